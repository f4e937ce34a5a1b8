"""Callbacks: they receive values and show or store them; none can change a number of the run."""

from vq.engine.callbacks.base import Callback, Guarded, Scalars
from vq.engine.callbacks.console import ConsoleProgress
from vq.engine.callbacks.loggers import ImageGrid, LoggerError, TensorBoard, WandB, tensorboard_if_installed
from vq.engine.callbacks.not_finite import NonFiniteLossError, Origin
from vq.engine.callbacks.profiling import Profile
from vq.engine.callbacks.rows import BestScores, MetricsFile

__all__ = [
    "BestScores",
    "Callback",
    "ConsoleProgress",
    "Guarded",
    "ImageGrid",
    "LoggerError",
    "MetricsFile",
    "NonFiniteLossError",
    "Origin",
    "Profile",
    "Scalars",
    "TensorBoard",
    "WandB",
    "tensorboard_if_installed",
]
