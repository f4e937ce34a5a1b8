"""The engine: training steps, evaluation, the training loop, the assembly of configs, and the work of the commands."""

from vq.engine.callbacks import Callback, NonFiniteLossError
from vq.engine.comparison.plan import Comparison
from vq.engine.evaluation.base import Evaluation
from vq.engine.evaluation.evaluator import Evaluator
from vq.engine.evaluation.generator_evaluator import ProposalEvaluator
from vq.engine.evaluation.probe_evaluator import ProbeEvaluator
from vq.engine.loop.checkpointer import Checkpointer
from vq.engine.loop.trainer import Trainer
from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep
from vq.engine.steps.base import TrainStep
from vq.engine.steps.discriminator import Adversary
from vq.engine.steps.generator import ProposalStep
from vq.engine.steps.probe import ProbeStep
from vq.engine.steps.reconstruction import ReconstructionStep
from vq.engine.steps.schedules import (
    Constant,
    Schedule,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
    WarmupStepDrop,
)
from vq.engine.steps.weight_ema import WeightEMA
from vq.engine.strategies import DDP, FSDP2

__all__ = [
    "DDP",
    "FSDP2",
    "AdversarialStep",
    "Adversary",
    "AlternatingStep",
    "Callback",
    "Checkpointer",
    "Comparison",
    "Constant",
    "Evaluation",
    "Evaluator",
    "NonFiniteLossError",
    "ProbeEvaluator",
    "ProbeStep",
    "ProposalEvaluator",
    "ProposalStep",
    "ReconstructionStep",
    "Schedule",
    "TrainStep",
    "Trainer",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupStableDecay",
    "WarmupStepDrop",
    "WeightEMA",
]
