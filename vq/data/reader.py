"""Reads samples, each of which is a pure function of (seed, epoch, item), in the main process or in workers."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from vq.data.base import DataError, ImageDataset, UndecodableImage, UndecodableSetError
from vq.data.sample import Sample
from vq.data.transforms import ImageTooLargeError, Transform
from vq.ops.keyed import generator
from vq.text import printable

logger = logging.getLogger(__name__)

_MAX_REPLACEMENTS = 64  # undecodable images in a row before a reader gives up
_SECONDS_BETWEEN_LOOKS = 2  # of a worker, at whether the main process is alive


class Draw(NamedTuple):
    """The key of a sample, which determines its pixels."""

    seed: int
    epoch: int
    item: int  # the index of the image in its dataset


class SampleReader(Dataset[Sample | UndecodableImage]):
    """Decodes and transforms the image of a draw.

    Args:
        dataset: The images.
        transforms: The transforms, applied in order, with a generator keyed by the draw.
        scaled: Whether large images may be decoded at a lower resolution, if the first transform resizes them anyway.
        replace: Whether an undecodable image is replaced by the next one of the set, as it looks in the same epoch; if
            not, its error is returned.
        reported: The names of undecodable images that are not logged again; those that are logged are added.
    """

    def __init__(
        self,
        *,
        dataset: ImageDataset,
        transforms: Sequence[Transform],
        replace: bool,
        scaled: bool = False,
        reported: set[str] | None = None,
    ) -> None:
        self._dataset = dataset
        self._transforms = transforms
        self._replace = replace
        self._min_side = transforms[0].min_side if scaled and transforms else None
        self._reported: set[str] = set() if reported is None else reported

    def __getitem__(self, draw: Draw) -> Sample | UndecodableImage:
        """Returns the sample of a draw, or the error of its image.

        Raises:
            UndecodableSetError: If 64 images in a row, or all images of the set, cannot be decoded.
        """
        failed, reason = "", ""
        tried = min(_MAX_REPLACEMENTS, len(self._dataset))
        for distance in range(tried):
            item = (draw.item + distance) % len(self._dataset)
            try:
                sample = self._read(draw._replace(item=item))
            except UndecodableImage as error:
                self._report(error)
                if not self._replace:
                    return error
                failed, reason = failed or error.name, reason or error.reason
            else:
                sample["undecodable"] = failed
                return sample
        several = f"{tried} images in a row cannot be decoded, from {printable(failed)!r} on"
        all_there_are = f"{tried} images, none can be decoded; the first is {printable(failed)!r}"
        raise UndecodableSetError(
            f"ImageLoader: {all_there_are if tried == len(self._dataset) else several} ({printable(reason)}); "
            "check that the set consists of images"
        )

    def _read(self, draw: Draw) -> Sample:
        if self._min_side is None:
            image = self._dataset.read(draw.item)
        else:
            image = self._dataset.read_scaled(draw.item, min_side=self._min_side)
        key = self._dataset.key(draw.item)
        keyed = generator("sample", *draw)
        for transform in self._transforms:
            try:
                image = transform(image, keyed)
            except ImageTooLargeError as error:
                raise UndecodableImage(key, str(error)) from error
            except ValueError as error:
                raise DataError(f"ImageLoader: image {key!r}: {error}") from error
        return {"image": image, "label": self._dataset.label(draw.item), "key": key, "undecodable": ""}

    def _report(self, error: UndecodableImage) -> None:
        if error.name not in self._reported:
            self._reported.add(error.name)
            logger.warning("cannot decode %s", error)


@contextmanager
def signals_held() -> Iterator[None]:
    """Blocks signals; processes forked inside keep them blocked until `quiet_worker` has run."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = {getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def quiet_worker(_: int) -> None:
    """Initializes a worker process: it uses one thread and ignores signals that do not come from the main process.

    When the whole job gets a signal, the main process handles it: it finishes its step and saves, for which it needs
    its workers. Only the main process ends them, with SIGTERM, as Python does at exit.

    Args:
        _: The number of the worker.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(
        signal, "sigwaitinfo"
    ):  # macOS has none: SIGTERM to the whole job ends workers
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_told_by, args=(main.pid,), daemon=True).start()


def _exit_when_told_by(parent: int | None) -> None:
    # If workers ignored every SIGTERM, a program that failed would wait for them forever. If the main process is
    # killed, a worker that waits until somebody reads its batches would never end. The main process may be dead before
    # this line runs, so its number comes from multiprocessing and not from os.getppid().
    while os.getppid() == parent:
        told = signal.sigtimedwait({signal.SIGTERM}, _SECONDS_BETWEEN_LOOKS)
        if told is not None and told.si_pid == parent:
            break
    os._exit(0)
