"""Checks of the training and validation sets."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from vq.data import ImageDataset, ImageLoader
from vq.engine.assembly.checks import check_images
from vq.engine.doctor.building import FAULTS
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import NEVER, Finding, first_lines, from_error, ok, trouble, warning
from vq.engine.doctor.images import Sample
from vq.engine.doctor.memory import step_seconds
from vq.tokenizers import Tokenizer

SOME = 0.1
"""The part of a sample from which on a property counts as one of the set."""
DARK = 16
"""Of 255; 12 bits in a file of 16 bits have no larger value."""
ENLARGED = 1.15
"""The factor from which on an image counts as enlarged."""
UNEVEN = 10
"""The ratio of the largest and the smallest class from which on there is a warning."""
BUDGET_OF = 1000
"""A loader takes the share of undecodable images of at least so many."""


def check_sets(case: Case) -> Iterator[Finding]:
    """Whether the sets are there, and what they hold."""
    for name, part in (("train_data", case.train_data), ("val_data", case.val_data)):
        if part.error is not None:
            yield from_error(name, part.error)
        elif isinstance(part.value, ImageLoader):
            yield ok(name, part.value.dataset.describe())


def check_sizes(case: Case) -> Iterator[Finding]:
    """Whether a batch can be filled, and whether size and channels of the images fit the tokenizer."""
    loader = case.train_data.value
    if loader is not None and loader.num_samples < loader.batch_size:
        yield trouble(
            "train_data.batch_size", f"{loader.batch_size}, but the set has {loader.num_samples} samples",
            f"use at most {loader.num_samples}",
        )  # fmt: skip
    model = None if case.step.error is not None else case.step.value.step.model
    for name, one in case.loaders().items():
        if isinstance(model, Tokenizer) and isinstance(one, ImageLoader):
            try:
                check_images(model, one, name)
            except FAULTS as error:
                yield from_error(name, error)


def check_images_of_sets(case: Case) -> Iterator[Finding]:
    """Decodes a random sample of each set."""
    for name, loader in case.loaders().items():
        if not isinstance(loader, ImageLoader):
            continue
        part = case.sample(name)
        if part.error is not None:
            yield from_error(name, part.error, step=1 if name == "train_data" else _validated_at(case))
            continue
        sample: Sample = part.value
        found = [*undecodable(case, name, loader, sample), *values(name, sample), *shapes(case, name, sample)]
        yield from found or [
            ok(name, f"{sample.num} of {sample.total:,} images decoded, all of ordinary values")
        ]


def check_reading(case: Case) -> Iterator[Finding]:
    """The time to read the images of a step against the time of the step."""
    loader = case.train_data.value
    if isinstance(loader, ImageLoader) and case.sample("train_data").error is None:
        yield from speed(case, loader, case.sample("train_data").value)


def undecodable(case: Case, name: str, loader: ImageLoader, sample: Sample) -> Iterator[Finding]:
    """The images of the sample that cannot be decoded, against the share that the loader tolerates."""
    if not (broken := len(sample.undecodable)):
        return
    share, limit = broken / sample.num, loader.max_undecodable
    what = (
        f"{broken} of {sample.num} images of a sample cannot be decoded: {first_lines(sample.undecodable, 2)}"
    )
    if broken >= 3 and share > limit:
        read = limit * min(sample.total, BUDGET_OF) / share  # images until the limit is exceeded
        step = 1 + int(read / loader.batch_size) if name == "train_data" else _validated_at(case)
        cure = f"remove or repair them, or raise max_undecodable (now {limit:.1%})"
        yield trouble(name, what, cure, step=min(step, case.max_steps))
    else:
        yield warning(name, what, "remove or repair them; in training, others replace them", step=1)


def values(name: str, sample: Sample) -> Iterator[Finding]:
    """Images of one colour, and values that use only a small part of their range."""
    num = len(sample.looks)
    flat = sample.having(lambda look: look.lowest == look.highest)
    dark = sample.having(lambda look: look.lowest < look.highest <= DARK)
    clipped = sample.having(lambda look: look.clipped > 0.9)
    if flat and len(flat) == num:
        yield trouble(
            name, f"every pixel of each of {num} images has one value", "give other images", step=NEVER
        )
    elif len(flat) > SOME * num:
        keys = first_lines(look.key for look in flat)
        yield warning(
            name, f"{len(flat)} of {num} images have a single colour: {keys}", "remove them", step=NEVER
        )
    if len(dark) > num / 2:
        top = max(look.highest for look in dark)
        yield trouble(
            name, f"{len(dark)} of {num} images are nearly black: their largest value is {top:.3g} of 255",
            "set value_range of the dataset to that of the files, such as (0, 4095) for 12 bits", step=NEVER,
        )  # fmt: skip
    if len(clipped) > num / 2:
        yield trouble(
            name, f"more than 90 % of the values of {len(clipped)} of {num} images are outside value_range",
            "set value_range of the dataset to that of the files", step=NEVER,
        )  # fmt: skip


def shapes(case: Case, name: str, sample: Sample) -> Iterator[Finding]:
    """Transformed images of several sizes, and images that the transforms enlarge."""
    counts = Counter(look.result for look in sample.looks)
    if len(counts) > 1:
        words = first_lines(f"{h} x {w}" for _, h, w in counts)
        at = 1 if name == "train_data" else _validated_at(case)
        yield trouble(
            name,
            f"the transforms give images of different sizes: {words}",
            "add a crop to transforms",
            step=at,
        )
    enlarged = sample.having(lambda look: min(look.result[1:]) > ENLARGED * min(look.size))
    if len(enlarged) > SOME * len(sample.looks):
        height, width = enlarged[0].size
        yield warning(
            name, f"{len(enlarged)} of {len(sample.looks)} images are enlarged, such as one of {height} x {width}",
            "lower image_size, or use larger images", step=NEVER,
        )  # fmt: skip


def speed(case: Case, loader: ImageLoader, sample: Sample) -> Iterator[Finding]:
    """Compares the time to read the images of a step, as the sample took it, with the time of the step."""
    processes = max(1, min(loader.num_workers, case.world.cores // case.world.local_ranks))
    reading = sample.seconds * loader.batch_size / case.world.ranks / processes
    who = f"{processes} worker{'s' if processes > 1 else ''}" if loader.num_workers else "the main process"
    words = f"{1000 * sample.seconds:.2g} ms per image, {reading:.2g} s per step with {who}"
    stepping = step_seconds(case)
    if stepping is not None and reading > stepping and (loader.num_workers or reading > 0.1):
        yield warning(
            "train_data", f"reading takes longer than computing: {words}, and about {stepping:.2g} s to compute a step",
            "raise num_workers, or store smaller images", step=1,
        )  # fmt: skip
    else:
        yield ok("train_data", f"reading: {words}")


def check_classes(case: Case) -> Iterator[Finding]:
    """The order of the classes of ImageNet, and their sizes where a model depends on them."""
    for name, loader in case.loaders().items():
        dataset = loader.dataset
        names = dataset.class_names
        if isinstance(dataset, ImageDataset):
            yield from wordnet(name, names)
        depends_on_classes = case.trained != "tokenizer" and len(names) > 1 and name == "train_data"
        if depends_on_classes and not case.tree[name].get("balance_classes"):
            yield from balance(name, [dataset.label(i) for i in range(len(dataset))], names)


def wordnet(name: str, names: Sequence[str]) -> Iterator[Finding]:
    """Whether classes that are named by WordNet IDs have the numbers of ImageNet, which follow the sorted IDs."""
    if not names or not all(re.fullmatch(r"n\d{8}", one) for one in names):
        return
    if list(names) != sorted(names):
        first = next(a for a, b in zip(names, sorted(names), strict=True) if a != b)
        yield trouble(
            name, f"its classes are not in the order of their WordNet IDs, from {first} on, as ImageNet's are",
            "name the folders by the IDs alone", step=NEVER,
        )  # fmt: skip
    elif len(names) != 1000:
        yield warning(
            name, f"{len(names):,} WordNet IDs; their labels are not those of ImageNet's 1,000 classes",
            "compare it only with models that were trained on these classes", step=NEVER,
        )  # fmt: skip
    else:
        yield ok(name, f"1,000 WordNet IDs in order, {names[0]} to {names[-1]}")


def balance(name: str, labels: Sequence[int], names: Sequence[str]) -> Iterator[Finding]:
    """Classes without images, and sizes of classes that differ much."""
    counts = Counter(labels)
    if empty := [one for i, one in enumerate(names) if i not in counts]:
        yield warning(
            name, f"{len(empty)} of {len(names)} classes have no images: {first_lines(empty)}",
            "nothing is learned of them", step=NEVER,
        )  # fmt: skip
    most, fewest = max(counts.values()), min(counts.values())
    if most > UNEVEN * fewest:
        yield warning(
            name, f"the largest class has {most / fewest:.0f} times as many images as the smallest",
            "set balance_classes of the loader", step=NEVER,
        )  # fmt: skip


def _validated_at(case: Case) -> int:
    """The step of the first validation."""
    return min(case.validates_every, case.max_steps)
