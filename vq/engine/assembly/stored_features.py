"""Checks that stored features can take the place of a tokenizer's encoder in training."""

import json
from collections.abc import Mapping
from typing import Any

from vq.data import FeatureLoader
from vq.engine.steps.base import TrainStep
from vq.engine.steps.reconstruction import ReconstructionStep
from vq.errors import ConfigError
from vq.networks import TeacherEncoder
from vq.tokenizers import FeatureTokenizer
from vq.tokenizers.fingerprint import network_fingerprint


def check_features(config: Mapping[str, Any], train_step: TrainStep, loader: FeatureLoader) -> None:
    """Refuses stored features that the encoder of the trained tokenizer would not compute.

    Args:
        config: The page.
        train_step: The step that gets the features.
        loader: The section `train_data`.

    Raises:
        ConfigError: If the encoder learns or is another one, or a loss needs images.
    """
    tokenizer, root = train_step.model, loader.dataset.root
    encoder = getattr(tokenizer, "encoder", None)
    if not isinstance(tokenizer, FeatureTokenizer) or not isinstance(encoder, TeacherEncoder):
        raise ConfigError(
            f"train_data: holds features of a frozen network, which only a FeatureTokenizer with a TeacherEncoder can "
            f"be trained on, got {type(tokenizer).__name__} with {type(encoder).__name__}; use an ImageLoader"
        )
    if not isinstance(train_step, ReconstructionStep) or train_step.losses:
        losses = ", ".join(getattr(train_step, "losses", {}))
        raise ConfigError(
            f"train_data: holds features and no images, with which {type(train_step).__name__}"
            f"{f' and its losses ({losses})' if losses else ''} would compare; use a ReconstructionStep without "
            f"losses, or an ImageLoader"
        )
    manifest = loader.dataset.store.manifest
    node = json.loads(json.dumps(config["tokenizer"]["encoder"]))
    if manifest["network"] != node:
        raise ConfigError(
            f"train_data: {root} holds features of another network: {manifest['network']} there, {node} in "
            f"tokenizer.encoder; store them again with vq tokenize NAME --features"
        )
    mine, theirs = network_fingerprint(encoder), manifest["network_sha256"]
    if mine != theirs:
        raise ConfigError(
            f"train_data: {root} holds features of weights with the checksum {theirs[:16]}..., those of "
            f"tokenizer.encoder have {mine[:16]}...; store them again with vq tokenize NAME --features"
        )
