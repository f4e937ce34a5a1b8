"""How a training step updates a model: the optimizer and its schedule, micro-batches, ranks, averaged weights."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Required, TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vq import distributed
from vq.engine.steps.clock import BACKWARD, OPTIMIZER, StepClock
from vq.engine.steps.micro_batches import average_gradients
from vq.engine.steps.optimizer_state import optimizer_state, restore_optimizer
from vq.engine.steps.schedules import Constant, Schedule
from vq.engine.steps.weight_ema import WeightEMA
from vq.engine.strategies import DDP, Strategy
from vq.engine.strategies.activations import checkpoint_blocks
from vq.engine.strategies.shards import clip_gradients, is_divided
from vq.quantizers import accumulate

CONSTANT = Constant()
FUSED_ON = "cuda"
"""The type of device on which `fuse` fuses."""

Parameters = Sequence[nn.Parameter] | Sequence[dict[str, Any]]
"""Parameters, or groups of them, as the optimizers of PyTorch take them."""


class OptimizerArguments(TypedDict, total=False):
    """Keyword arguments of all that owns an optimizer: every training step, and the discriminator's side.

    Attributes:
        optimizer: A function that makes an optimizer of the parameters, such as `partial(torch.optim.Adam, lr=1e-3)`,
            for which a config has `dict(type=Adam, lr=1e-3)`; or an optimizer that already has them; or None if nothing
            learns by gradient, as in streaming k-means on frozen features.
        schedule: Factor of the learning rates; or a function of `total_steps` that makes the schedule, such as
            `partial(WarmupCosine, warmup_steps=50)`. By default `Constant()`.
        max_gradient_norm: The gradient is clipped to this 2-norm; None, the default, clips nothing.
        max_steps: Length of the run, for a schedule that is given as a function. A command fills it in.
    """

    optimizer: Required[Optimizer | Callable[..., Optimizer] | None]
    schedule: Schedule | Callable[..., Schedule]
    max_gradient_norm: float | None
    max_steps: int | None


class OptimizationArguments(OptimizerArguments, total=False):
    """Keyword arguments of every training step.

    Attributes:
        weight_ema: Decay of the averaged weights, which are validated and loaded by default; None, the default,
            keeps no average.
        accumulate: Micro-batches per step, by default 1. Together they equal one large batch, codebooks included.
        autocast: Run the networks in bfloat16, with those of losses that have `uses_autocast`; the quantizer and the
            arithmetic of the losses stay in float32. A command fills it in.
        strategy: How the ranks share the model: `DDP()`, the default, or `FSDP2()`.
        checkpoint_activations: Compute the activations inside of blocks again in the backward pass instead of keeping
            them, which takes less memory and more time. By default they are kept.
    """

    weight_ema: float | None
    accumulate: int
    autocast: bool
    strategy: Strategy | None
    checkpoint_activations: bool


class ScheduledOptimizer:
    """An optimizer with a learning-rate schedule and gradient clipping.

    On a CUDA device, Adam and AdamW are fused unless their arguments say otherwise (`fuse`).

    Args:
        parameters: The parameters to update, or groups of them, if `optimizer` is a function.
        optimizer: An optimizer, or a function that makes one. The schedule's factor multiplies its learning rates.
        schedule: The schedule, or a function that makes one of `total_steps`.
        max_gradient_norm: Clips the gradient to this 2-norm; None for no clipping.
        max_steps: The length of the run, for a schedule that is given as a function.

    Raises:
        ValueError: If `max_gradient_norm` is not above 0, or a schedule needs `max_steps` and there is none.
        TypeError: If `optimizer` or `schedule` is neither what it should be nor a function.

    Attributes:
        inner: The optimizer of PyTorch.
        parameters: All parameters that it holds.

    Example:
        >>> from functools import partial
        >>> layer = nn.Linear(2, 1)
        >>> adam = ScheduledOptimizer(list(layer.parameters()), optimizer=partial(torch.optim.Adam, lr=0.1))
        >>> adam.prepare(step=0)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> sorted(adam.step())
        ['gradient_norm', 'learning_rate']
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        optimizer: Optimizer | Callable[..., Optimizer] | None,
        schedule: Schedule | Callable[..., Schedule] = CONSTANT,
        max_gradient_norm: float | None = None,
        max_steps: int | None = None,
    ) -> None:
        if optimizer is not None and not parameters:
            raise ValueError(
                "optimizer: expected None, because nothing here learns by gradient; all parts are frozen"
            )
        if max_gradient_norm is not None and not max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm: expected a number above 0 or None, got {max_gradient_norm}")
        self._given, self._optimizer = parameters, optimizer
        self.inner: Optimizer = _called(optimizer, Optimizer, "optimizer", parameters)
        fuse(self.inner)
        if callable(schedule) and max_steps is None:
            raise ValueError(
                "schedule: its length is unknown; give max_steps, or a schedule that has its total_steps"
            )
        self.schedule: Schedule = _called(schedule, Schedule, "schedule", total_steps=max_steps)
        self.max_gradient_norm = max_gradient_norm
        # A group may have a factor of its own, its `rate` (`parameter_groups`).
        self.base_rates = [float(group["lr"]) * group.get("rate", 1.0) for group in self.inner.param_groups]
        self.parameters: list[nn.Parameter] = [
            p for group in self.inner.param_groups for p in group["params"]
        ]

    def prepare(self, step: int) -> None:
        """Sets the learning rates of a step, and drops the gradients of the step before."""
        factor = self.schedule.factor(step)
        for group, rate in zip(self.inner.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.inner.zero_grad(set_to_none=True)

    def step(self) -> dict[str, Float[Tensor, ""]]:
        """Updates the parameters.

        Returns:
            The gradient's norm before clipping, and the learning rate of the first group.
        """
        norm = clip_gradients(self.parameters, self.max_gradient_norm or float("inf"))
        self.inner.step()
        rate = torch.tensor(self.inner.param_groups[0]["lr"])
        return {"gradient_norm": norm.detach(), "learning_rate": rate}

    def without(self, parameters: Sequence[nn.Parameter]) -> "ScheduledOptimizer":
        """The same optimizer for its other parameters, made anew; to be called before the first step.

        Raises:
            ValueError: If the optimizer holds one of them and was not given as a function.
        """
        left_out = {id(p) for p in parameters}
        if not left_out & {id(p) for p in self.parameters}:
            return self
        if isinstance(self._optimizer, Optimizer):
            raise ValueError("the optimizer already holds parameters that another optimizer updates")
        kept: list[Any] = [
            {**one, "params": [p for p in one["params"] if id(p) not in left_out]}
            if isinstance(one, dict)
            else one
            for one in self._given
            if isinstance(one, dict) or id(one) not in left_out
        ]
        return ScheduledOptimizer(
            kept,
            optimizer=self._optimizer,
            schedule=self.schedule,
            max_gradient_norm=self.max_gradient_norm,
        )

    def state_dict(self) -> dict[str, object]:
        """The state of the optimizer, with its type (`optimizer_state`)."""
        return optimizer_state(self.inner)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restores the state of the same type of optimizer; the hyperparameters stay (`restore_optimizer`)."""
        restore_optimizer(self.inner, state)


class NoOptimizer(ScheduledOptimizer):
    """Stands for the optimizer of a model in which nothing learns by gradient."""

    def __init__(self) -> None:
        self.parameters = []

    def prepare(self, step: int) -> None:
        """Does nothing."""

    def step(self) -> dict[str, Float[Tensor, ""]]:
        """Does nothing, and returns no scalars."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """An empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Accepts an empty state only.

        Raises:
            ValueError: If the state is that of an optimizer.
        """
        if state:
            raise ValueError("expected no state of an optimizer, because train_step.optimizer is None")


class Optimization:
    """A model together with everything that updates it, once per step.

    Args:
        model: The model that is trained.
        parameters: The parameters of it to update, or groups of them; those in `beside` too.
        beside: Parameters outside the model that are trained with it, such as those of a loss. Their gradients are
            averaged over the ranks in `step`.
        weight_ema: Decay of the averaged weights; None for no average.
        accumulate: Micro-batches per step.
        autocast: Run the networks in bfloat16.
        strategy: How the ranks share the model; None for `DDP()`.
        checkpoint_activations: Compute the activations inside of blocks twice (`checkpoint_blocks`).
        **optimizer: The keyword arguments in `OptimizerArguments`.

    Raises:
        ConfigError: If the strategy or the checkpointing of activations is not possible here.
        ValueError: If the strategy replaces parameters and the optimizer already has them.

    Attributes:
        strategy: How the ranks share the model.
        forward: Called in place of the model; with several ranks it averages the gradients over them.
        optimizer: Updates the parameters.
        weight_ema: The averaged weights, if an average is kept.
        device: Where the model is.
        clock: Measures the parts of a step.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        *,
        beside: Sequence[nn.Parameter] = (),
        weight_ema: float | None = None,
        accumulate: int = 1,
        autocast: bool = False,
        strategy: Strategy | None = None,
        checkpoint_activations: bool = False,
        **optimizer: Unpack[OptimizerArguments],
    ) -> None:
        self.model, self.accumulate, self.autocast = model, accumulate, autocast
        self.strategy = DDP() if strategy is None else strategy
        self.beside = list(beside)
        for parameter in self.beside:  # those of the model are sent by the strategy
            parameter.data.copy_(distributed.broadcast(parameter.data))
        names = {id(p): name for name, p in model.named_parameters()}
        if checkpoint_activations:
            checkpoint_blocks(model)
        self.forward = self.strategy.wrap(model)
        if self.strategy.is_sharded:
            if isinstance(optimizer["optimizer"], Optimizer):
                raise ValueError(
                    f"optimizer: {type(self.strategy).__name__} replaces the parameters that it already has; give a "
                    f"function that makes it, such as partial(torch.optim.Adam, lr=1e-3)"
                )
            parameters = _replaced(parameters, names, model)
        is_optimized = optimizer["optimizer"] is not None
        self.optimizer = ScheduledOptimizer(parameters, **optimizer) if is_optimized else NoOptimizer()
        if is_optimized:
            self.strategy.check_optimizer(self.optimizer.inner)
        self.weight_ema = None if weight_ema is None else WeightEMA(model, weight_ema)
        self.device = next(itertools.chain(model.parameters(), model.buffers())).device
        self.clock = StepClock(self.device)

    def prepare(self, step: int) -> None:
        """Begins a step: sets the learning rates, and drops old gradients."""
        self.optimizer.prepare(step)

    def contexts(self, count: int) -> Iterator[AbstractContextManager[None]]:
        """The context of each of `count` micro-batches; the ranks exchange gradients in the last one only."""
        for i in range(count):
            yield nullcontext() if i == count - 1 else self._collecting()

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        """For a micro-batch before the last: gradients stay on their rank, and codebooks only count."""
        with ExitStack() as stack:
            stack.enter_context(accumulate(self.model))
            stack.enter_context(self.strategy.collecting(self.forward))
            yield

    def networks_autocast(self) -> torch.autocast:
        """The context in which networks run in bfloat16 if `autocast` says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def backward(
        self,
        outputs: Float[Tensor, "..."] | Sequence[Float[Tensor, "..."]],
        gradients: Sequence[Float[Tensor, "..."]] | None = None,
    ) -> None:
        """Adds gradients to those of the parameters, as `torch.autograd.backward` does, and measures how long it takes.

        Does nothing if nothing learns by gradient.
        """
        with self.clock.part(BACKWARD):
            if self.optimizer.parameters:
                torch.autograd.backward(outputs, gradients)

    def step(self) -> dict[str, Float[Tensor, ""]]:
        """Ends a step: updates the parameters, then their average; returns the scalars of `ScheduledOptimizer.step`."""
        with self.clock.part(OPTIMIZER):
            average_gradients([*self.beside, *self.strategy.not_averaged(self.model)])
            scalars = self.optimizer.step()
            if self.weight_ema is not None:
                self.weight_ema.update()
        return scalars

    def parts(self) -> dict[str, ScheduledOptimizer | WeightEMA]:
        """What a checkpoint holds besides the weights and their average."""
        average = {} if self.weight_ema is None else {"weight_ema": self.weight_ema}
        return {"optimizer": self.optimizer, **average}


def _replaced(parameters: Parameters, names: Mapping[int, str], model: nn.Module) -> Parameters:
    """The same parameters, or groups of them, after those of the model have been replaced.

    Args:
        parameters: The parameters before.
        names: The `id` of each parameter that the model had -> its name.
        model: The model with its new parameters.
    """

    def present(parameter: nn.Parameter) -> nn.Parameter:
        name = names.get(id(parameter))
        return parameter if name is None else model.get_parameter(name)

    new: list[Any] = [
        {**one, "params": [present(p) for p in one["params"]]} if isinstance(one, dict) else present(one)
        for one in parameters
    ]
    return new


def fuse(optimizer: Optimizer) -> None:
    """Lets a new Adam or AdamW on a CUDA device update all parameters in one kernel; the numbers differ by rounding.

    Nothing changes if one of the arguments `fused`, `foreach`, `capturable` and `differentiable` was given, or if only
    some of the parameters are divided among ranks.
    """
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW) or optimizer.state:
        return
    if len({is_divided(p) for group in optimizer.param_groups for p in group["params"]}) > 1:
        return
    for group in optimizer.param_groups:
        is_decided = group["fused"] is not None or group["foreach"] is not None
        if is_decided or group["capturable"] or group["differentiable"]:
            return
        if not all(p.device.type == FUSED_ON and p.is_floating_point() for p in group["params"]):
            return
    for group in optimizer.param_groups:
        group["fused"] = True


def _called(value: Any, kind: type, name: str, *args: Any, **kwargs: Any) -> Any:
    """The value if it is of the kind, else what it returns as a function of the arguments."""
    made = value(*args, **kwargs) if callable(value) and not isinstance(value, kind) else value
    if not isinstance(made, kind):
        raise TypeError(f"{name}: expected {kind.__name__} or a function that makes one, got {made!r}")
    return made
