"""How the ranks of a training share one model: a copy on every rank, or its parameters divided among them."""

from vq.engine.strategies.base import Strategy
from vq.engine.strategies.ddp import DDP
from vq.engine.strategies.fsdp2 import FSDP2

__all__ = ["DDP", "FSDP2", "Strategy"]
