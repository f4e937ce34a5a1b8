"""The weights of published models: found on this machine, or downloaded, and converted once into the user's cache."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vq import __version__, known_weights, packages, zoo
from vq.config import load, parse_assignments
from vq.download import Progress, fetch, file_name, is_address
from vq.errors import UserError
from vq.files import read_json, sha256_of, write_atomically
from vq.interop import Conversion, InteropError, convert, recognise
from vq.interop.convert import DIALECTS
from vq.pretrained import ignoring_training_state, read_tensors
from vq.tokenizers.checkpoint import read_config, save_weights
from vq.tokenizers.foreign import Source, is_foreign, is_own, read_foreign, read_own, write_foreign
from vq.zoo import Family, Model

HUB = "hf://"


class PublishedWeightsError(UserError, OSError):
    """Published weights that are not on this machine, or are not those of their name."""


def converted(name: str, source: str | Path | None = None) -> Path:
    """The weight file, in the format of this project, of a published model.

    The published file is converted when it is needed first, and again when it or this version of vq is another one. The
    result is in the user's
    cache (`$VQ_CACHE`), beside a record of the file that it was made of.

    Args:
        name: `zoo:family/name`.
        source: The published file; None to look for it, as `located` does.

    Raises:
        UnknownModelError: If the catalogue has no such model.
        PublishedWeightsError: If the file is not on this machine, its SHA-256 is another one, or its tensors are not
            those of the model.
    """
    family, model = zoo.find(name)
    file = Path(source).expanduser() if source is not None else located(family, model)
    target = _target(family, model)
    record = target.with_suffix(".json")
    found = _read_record(record)
    if file is None and _is_converted(target, model):
        return target  # the published file was elsewhere, or has been deleted
    if file is None or not file.is_file():
        raise PublishedWeightsError(_missing(name, family, model, file))
    status = file.stat()
    stamp = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "vq": __version__}
    stamp["file"] = str(file.resolve())
    if _is_converted(target, model) and found is not None and {**found, **stamp} == found:
        return target
    sha256 = sha256_of(file)
    expected = model.sha256 or (found or {}).get("sha256")
    if expected is not None and not sha256.startswith(expected):
        origin = (
            "that its publisher states" if model.sha256 else f"of the file that was used first ({record})"
        )
        raise PublishedWeightsError(
            f"{name}: {file}: expected the sha256 {expected} {origin}, got {sha256}; download the file again"
            + ("" if model.sha256 else f", or delete {record} if the new file is right")
        )
    config, tensors = _translated(name, family, model, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, lambda path: save_weights(tensors, path, config))
    write_atomically(record, json.dumps(stamp | {"sha256": sha256}))
    return target


def convert_file(
    file: Path,
    out: Path,
    *,
    dialect: str | None = None,
    page: str | None = None,
    options: Sequence[str] = (),
    compared: str | None = None,
) -> Conversion:
    """Converts weights of another project, and writes them with their config.

    Args:
        file: The weight file of the project, or a folder that diffusers or transformers wrote.
        out: The file to write.
        dialect: The name of the project; None to recognise it.
        page: The page whose model has these weights; None for what the names and shapes say.
        options: `KEY:VALUE` words for the dialect.
        compared: A page whose model must be able to hold the weights; the file that is written does not depend on it.

    Raises:
        UserError: If the file or a page cannot be used, or the weights are not those of a known model or of a page's.
    """
    other = load(compared).to_dict() if compared else None
    if is_own(file):
        raise InteropError(
            f"{file}: expected weights of another project, got those of this one, which vq.load reads; --to writes "
            "them for another project"
        )
    state = read_foreign(file)
    found = _converted(state, file, dialect, page, options)
    if other is not None:
        try:
            convert(state, found.dialect, config=other)
        except InteropError as error:
            raise InteropError(f"{file} is not for {compared}: {error}; nothing is written") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, lambda path: save_weights(found.tensors, path, found.config))
    return found


def write_file(
    file: Path,
    out: Path,
    target: str,
    *,
    dialect: str | None = None,
    page: str | None = None,
    options: Sequence[str] = (),
) -> int:
    """Writes weights as another project publishes them; they are then read as they were, bit for bit.

    Args:
        file: What `vq.load` accepts, or the weights of a third project.
        out: The file or folder to write, which must not exist.
        target: The project to write for.
        dialect: The project of `file`, if it is not this one; None to recognise it.
        page: The page whose model has the weights of that project.
        options: `KEY:VALUE` words for the dialect of that project.

    Returns:
        The number of tensors that were written.

    Raises:
        UserError: If the weights cannot be read, or the project cannot hold them.
    """
    if is_foreign(file):
        found = _converted(read_foreign(file), file, dialect, page, options)
        return write_foreign(Source(file=file, config=found.config, tensors=found.tensors), out, target)
    if dialect or page or options:
        raise InteropError(
            f"{file}: expected no dialect, config or options for weights of this project, which have a config"
        )
    return write_foreign(read_own(file), out, target)


def _converted(
    state: Mapping[str, torch.Tensor],
    file: Path,
    dialect: str | None,
    page: str | None,
    options: Sequence[str],
) -> Conversion:
    config = load(page).to_dict() if page else None
    try:
        return convert(state, dialect, options=parse_assignments(list(options)), config=config)
    except InteropError as error:
        raise InteropError(f"{file}{f' with {page}' if page else ''}: {error}") from error


def located(family: Family, model: Model) -> Path | None:
    """The published file of a model on this machine; None if it is not there.

    It is looked for below the folder of pretrained weights and in the user's cache, as `FAMILY/NAME/FILE` or
    `FAMILY/FILE`, and then in the caches of the hub's client and of `torch.hub`.
    """
    return next((file for file in _candidates(family, model) if file.is_file()), None)


def download(name: str, on_progress: Progress | None = None) -> Path | None:
    """Downloads the published file of a model, if neither it nor the converted one is on this machine.

    Args:
        name: `zoo:family/name`.
        on_progress: Called while a file arrives that is not on the hub, whose client shows its own progress.

    Returns:
        The published file; None if it is gone, and the converted one is there.

    Raises:
        PublishedWeightsError: If its publisher names no file, or no address of a file.
        DownloadError: If it cannot be downloaded.
        MissingPackageError: If it is on the hub and huggingface_hub is not installed.
    """
    family, model = zoo.find(name)
    if (file := located(family, model)) is not None:
        return file
    if _is_converted(_target(family, model), model):
        return None
    if model.file is None:
        raise PublishedWeightsError(_missing(name, family, model, None))
    if model.address.startswith(HUB):
        from vq.tokenizers.hub import saying_what_the_hub_refuses

        client = packages.require("huggingface_hub", needed_by=name)
        with saying_what_the_hub_refuses(model.address, model.file):
            return Path(client.hf_hub_download(model.address.removeprefix(HUB), model.file))
    if not _is_of_file(model):
        raise PublishedWeightsError(_missing(name, family, model, None))
    target = known_weights.cache() / "zoo" / family.name / model.name / model.file
    fetch(model.address, target, sha256=model.sha256 or "", on_progress=on_progress)
    return target


def _target(family: Family, model: Model) -> Path:
    """Where the converted weights of a model are."""
    return known_weights.cache() / "zoo" / family.name / f"{model.name}.safetensors"


def _is_converted(target: Path, model: Model) -> bool:
    """Whether the converted weights are there, and are those of the model as the catalogue describes it now."""
    has_record = _read_record(target.with_suffix(".json")) is not None
    return has_record and target.is_file() and read_config(target) == model.config


def _candidates(family: Family, model: Model) -> Iterator[Path]:
    if model.file is None:
        return
    for folder in (known_weights.root(), known_weights.cache() / "zoo"):
        yield folder / family.name / model.name / model.file
        if sum(other.file == model.file for other in family.models) == 1:
            yield folder / family.name / model.file
    if model.address.startswith(HUB) and packages.is_installed("huggingface_hub"):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model.address.removeprefix(HUB), model.file)
        if isinstance(found, str):
            yield Path(found)
    yield Path(torch.hub.get_dir()) / "checkpoints" / model.file


def _is_of_file(model: Model) -> bool:
    """Whether the address is that of the file itself, and not of a page that links it."""
    is_same_kind = Path(file_name(model.address)).suffix == Path(model.file or "").suffix
    return is_address(model.address) and is_same_kind


def _missing(name: str, family: Family, model: Model, file: Path | None) -> str:
    if file is not None:
        return f"{name}: there is no file {file}"
    if model.file is None:
        return (
            f"{name}: its publisher ({model.address}) names no file; download it and give it, as "
            f'vq.load_pretrained("{family.name}/{model.name}", source="FILE")'
        )
    place = known_weights.root() / family.name / model.name / model.file
    if model.address.startswith(HUB) or _is_of_file(model):
        cure = f"`vq weights {name}` downloads it from {model.address}, or put it at {place}"
    else:
        cure = f"download it by hand from {model.address}, and put it at {place}"
    return f"{name}: {model.file} is not on this machine; {cure}"


def _translated(
    name: str, family: Family, model: Model, file: Path
) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
    """The config and the tensors of a model, from its published file."""
    with ignoring_training_state():
        state = read_tensors(file)
    dialect = model.dialect or family.dialect
    try:
        found = convert(state, dialect, options=model.options)
    except InteropError as error:
        raise PublishedWeightsError(f"{name}: {file}: {error}{_nearest(state, file)}") from error
    if found.config != model.config:
        raise PublishedWeightsError(
            f"{name}: {file}: expected the weights of this model, got those of another one of its kind"
            f"{_nearest(state, file)}"
        )
    return found.config, found.tensors


def _nearest(state: Mapping[str, torch.Tensor], file: Path) -> str:
    """The end of an error message: the two published models whose configs are nearest to that of some tensors."""
    try:
        dialect = DIALECTS[recognise(state)]
        config = _leaves(dialect.describe(dialect.own(state), **dialect.options))
    except InteropError:
        return f"; {file.name} is not the file of any published model that vq reads"
    distances = {
        f"{family.name}/{model.name}": len(config ^ _leaves(model.config))
        for family in zoo.FAMILIES.values()
        for model in family.models
        if (model.dialect or family.dialect) == dialect.name
    }
    nearest = sorted(distances, key=lambda other: (distances[other], other))[:2]
    return f"; the nearest published models are {' and '.join(nearest)}" if nearest else ""


def _leaves(value: Any, place: str = "") -> set[tuple[str, str]]:
    """The places and values inside a config."""
    if isinstance(value, Mapping):
        return {leaf for key, child in value.items() for leaf in _leaves(child, f"{place}.{key}")}
    return {(place, repr(value))}


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(target: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under another name first, so that it appears whole or not at all."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        write(unfinished)
        unfinished.chmod(0o644)  # mkstemp gives access to the owner alone
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
