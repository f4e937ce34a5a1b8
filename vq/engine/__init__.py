"""What moves: the training step, the loop, validation, checkpoints, and the place that assembles them."""

from vq.engine.adversarial import AdversarialStep
from vq.engine.adversary import Adversary
from vq.engine.alternating import AlternatingStep
from vq.engine.checkpointer import Checkpointer, NonFiniteLossError
from vq.engine.evaluator import Evaluation, Evaluator
from vq.engine.proposal import ProposalStep
from vq.engine.proposal_evaluator import ProposalEvaluator
from vq.engine.schedules import Constant, Schedule, WarmupCosine
from vq.engine.steps import ReconstructionStep, TrainStep
from vq.engine.trainer import Trainer
from vq.engine.weight_ema import WeightEMA

__all__ = [
    "AdversarialStep",
    "Adversary",
    "AlternatingStep",
    "Checkpointer",
    "Constant",
    "Evaluation",
    "Evaluator",
    "NonFiniteLossError",
    "ProposalEvaluator",
    "ProposalStep",
    "ReconstructionStep",
    "Schedule",
    "TrainStep",
    "Trainer",
    "WarmupCosine",
    "WeightEMA",
]
