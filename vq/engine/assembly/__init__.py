"""Builds the parts of a run from a config: the only package of the engine that knows both configs and classes."""

from vq.engine.assembly.build import (
    Tree,
    make_callbacks,
    make_checkpointer,
    make_evaluator,
    make_frozen_tokenizer,
    make_loader,
    make_model,
    make_sampling,
    make_score_callback,
    make_tokenizer,
    make_tokenizer_below,
    make_trainer,
    section,
)
from vq.engine.assembly.checks import check_channels, check_data, check_images
from vq.engine.assembly.describe import describe
from vq.engine.assembly.step import make_step

__all__ = [
    "Tree",
    "check_channels",
    "check_data",
    "check_images",
    "describe",
    "make_callbacks",
    "make_checkpointer",
    "make_evaluator",
    "make_frozen_tokenizer",
    "make_loader",
    "make_model",
    "make_sampling",
    "make_score_callback",
    "make_step",
    "make_tokenizer",
    "make_tokenizer_below",
    "make_trainer",
    "section",
]
