"""Saving beside the training: a copy of the content in host memory, and a thread that writes it."""

import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

Tree = TypeVar("Tree")


def tensors_in(node: object, path: str = "") -> Iterator[tuple[str, Shaped[Tensor, "..."]]]:
    """The tensors in nested dicts and lists, each with its path, such as `optimizer.state.0.exp_avg`."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from tensors_in(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from tensors_in(value, f"{path}[{i}]")


class HostMemory:
    """Copies tensors to memory of the CPU, which is used again for the next copy of the same tensors.

    New memory would be slow: the system clears each of its pages when it is first written to. Copies from a CUDA
    device go to pinned memory, all at once.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def copy(self, tree: Tree) -> Tree:
        """Copies nested dicts and lists with all that they hold. The earlier copy is overwritten."""
        before, self._memory = self._memory, {}
        copies: dict[int, Any] = {}
        for path, tensor in tensors_in(tree):
            if id(tensor) not in copies:
                self._memory[path] = copies[id(tensor)] = _copied(tensor.detach(), before.get(path))
        for device in {tensor.device for _, tensor in tensors_in(tree) if tensor.is_cuda}:
            torch.cuda.synchronize(device)
        return copy.deepcopy(tree, copies)


def _copied(tensor: Tensor, memory: Tensor | None) -> Tensor:
    """A copy on the CPU, in the given memory if that has the right form."""
    is_fit = (
        memory is not None
        and (memory.dtype, memory.shape, memory.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        and memory.is_pinned() == tensor.is_cuda
    )
    if not is_fit:
        memory = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    assert memory is not None
    return memory.copy_(tensor, non_blocking=True)


class BackgroundJobs:
    """Does jobs one after the other in a thread, in the order in which they were given.

    The program does not end before the last job has, unless it is killed.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None  # started for the first job
        self._jobs: list[Future[None]] = []

    @property
    def is_idle(self) -> bool:
        """Whether no job is waiting or being done."""
        return all(job.done() for job in self._jobs)

    def start(self, job: Callable[[], None]) -> None:
        """Does a job in the thread, after those before it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._jobs.append(self._thread.submit(job))

    def do(self, job: Callable[[], None]) -> None:
        """Does a job after those before it: here and now if there are none, else in the thread."""
        if self.is_idle:
            job()
        else:
            self.start(job)

    def wait(self) -> None:
        """Returns when no job is waiting or being done."""
        wait(self._jobs)

    def raise_errors(self) -> None:
        """Raises the error of the first job that has failed; the next call raises that of the next one."""
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            job.result()
