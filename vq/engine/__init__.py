"""What moves: the training step, the loop, validation, checkpoints, and the place that assembles them."""

from vq.engine.alternating import AlternatingStep
from vq.engine.checkpointer import Checkpointer
from vq.engine.evaluator import Evaluation, Evaluator
from vq.engine.schedules import Constant, Schedule, WarmupCosine
from vq.engine.steps import ReconstructionStep, TrainStep
from vq.engine.trainer import NonFiniteLossError, Trainer
from vq.engine.weight_ema import WeightEMA

__all__ = [
    "AlternatingStep",
    "Checkpointer",
    "Constant",
    "Evaluation",
    "Evaluator",
    "NonFiniteLossError",
    "ReconstructionStep",
    "Schedule",
    "TrainStep",
    "Trainer",
    "WarmupCosine",
    "WeightEMA",
]
