"""Sampling steps as a CUDA graph: a step is recorded once, then replayed without launching its kernels one by one.

A recorded step reads and writes the same memory in every replay, and never waits for the GPU. So the number of the step
is a tensor, attention sees the whole cache through a mask, and logits are checked after the last step.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vq.generators.sampling import Position, Sampler, moved_away
from vq.ops.kernels import use_kernels

FEWEST_STEPS = 16
"""Recording takes about as long as a few steps, so that a graph does not pay for fewer steps than this."""

RECORDED = Position(place=-1, progress=0.0)
"""The position that a recorded step passes on. A `GraphSampler` knows the step, and raises no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSampler(Sampler):
    """Samples indices without a decision on the CPU.

    Attributes:
        scales: The guidance scale of each step.
        step: The number of the step, which changes between replays.
        is_finite: Becomes False when an index cannot be sampled; the index of that draw has no meaning.
    """

    scales: Float[Tensor, "steps"]
    step: Int64[Tensor, "1"]
    is_finite: Bool[Tensor, ""]

    def guided(self, logits: Float[Tensor, "rows *v"], progress: float) -> Float[Tensor, "b *v"]:
        """Combines the network's rows with the scale of the present step; `progress` is not used."""
        logits = logits.float()
        if self.copies == 1:
            return logits
        conditional, unconditional = logits.chunk(2)
        return moved_away(unconditional, conditional, self.scales[self.step])

    def check_finite(
        self, largest: Float[Tensor, "*b 1"], logits: Float[Tensor, "*b v"], place: int, depth: int
    ) -> None:
        """Notes whether an index can be sampled from every row of logits."""
        self.is_finite.logical_and_(largest.isfinite().all())


def graph_sampler(sampler: Sampler, step: Int64[Tensor, "1"], num_steps: int) -> GraphSampler:
    """Makes a sampler with the same settings for a step that is recorded."""
    scales = [sampler.guidance.at(t / num_steps) for t in range(num_steps)]
    return GraphSampler(
        **{field.name: getattr(sampler, field.name) for field in fields(sampler)},
        scales=torch.tensor(scales, device=step.device, dtype=torch.float32),
        step=step,
        is_finite=torch.ones((), dtype=torch.bool, device=step.device),
    )


def can_be_recorded(sampler: Sampler, *, device: torch.device, num_steps: int, vocabulary_size: int) -> bool:
    """Whether sampling uses a CUDA graph: on a CUDA device for more than a few steps, unless `VQ_KERNELS` is eager.

    Top-p without a smaller top-k looks at more and more candidates until their probability suffices, which cannot be
    recorded.
    """
    fewest_values = min(stop - start for start, stop in sampler.ranges or ((0, vocabulary_size),))
    has_candidates = sampler.top_k is not None and sampler.top_k < fewest_values
    needs_decision = sampler.top_p not in (None, 1) and sampler.temperature > 0 and not has_candidates
    return use_kernels(device) and num_steps >= FEWEST_STEPS and not needs_decision


def run_steps(step: Callable[[], None], count: int, device: torch.device) -> None:
    """Runs a step several times; on a CUDA device, once as it is and then as the replay of a graph.

    Args:
        step: Reads and writes the same tensors each time.
        count: How often it is run.
        device: The device of its tensors.
    """
    if device.type != "cuda":
        for _ in range(count):
            step()
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # libraries allocate their workspaces before the recording
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Records the step without running it; other threads, such as those of a loader, may use the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    for _ in range(count - 1):
        graph.replay()
    torch.cuda.current_stream(device).synchronize()  # the graph must outlive its last replay
