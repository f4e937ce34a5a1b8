"""Training steps: which loss updates which parameters, with which optimizer, schedule and weight."""

from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep
from vq.engine.steps.base import TokenizerArguments, TokenizerStep, TrainStep
from vq.engine.steps.discriminator import Adversary
from vq.engine.steps.generator import ProposalStep
from vq.engine.steps.optimization import OptimizationArguments, OptimizerArguments, ScheduledOptimizer
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

__all__ = [
    "AdversarialStep",
    "Adversary",
    "AlternatingStep",
    "Constant",
    "OptimizationArguments",
    "OptimizerArguments",
    "ProposalStep",
    "ReconstructionStep",
    "Schedule",
    "ScheduledOptimizer",
    "TokenizerArguments",
    "TokenizerStep",
    "TrainStep",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupStableDecay",
    "WarmupStepDrop",
    "WeightEMA",
]
