"""Tokenizers on the Hugging Face hub: `vq.load("hf://OWNER/REPOSITORY")` and `tokenizer.push_to_hub(REPOSITORY)`."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import packages
from vq.errors import UserError
from vq.files import read_json
from vq.text import printable
from vq.tokenizers.checkpoint import WEIGHTS, CheckpointError, save_weights, self_contained

if TYPE_CHECKING:
    from vq.tokenizers.base import Tokenizer

PREFIX = "hf://"
"""What precedes the name of a repository where a path of weights is expected."""

_ADDRESS = re.compile(r"hf://(?P<repository>\w[\w.\-]*/\w[\w.\-]*)(@(?P<revision>\w[\w.\-/]*))?")


class HubError(UserError, OSError):
    """A repository of the hub that cannot be read or written."""


def pull(address: str) -> Path:
    """Downloads the weights of a repository into the hub's cache, and returns their file.

    A file that is in the cache is not downloaded again. An interrupted download continues.

    Args:
        address: `hf://OWNER/REPOSITORY`, or `hf://OWNER/REPOSITORY@REVISION` for a branch, a tag or a commit.

    Raises:
        HubError: If the address is not one, or there is no such repository, revision or file, or it cannot be read.
        MissingPackageError: If huggingface_hub is not installed.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise HubError(f"{address}: expected hf://OWNER/REPOSITORY, or hf://OWNER/REPOSITORY@REVISION")
    client = packages.require("huggingface_hub", needed_by=address)
    with saying_what_the_hub_refuses(address):
        return Path(client.hf_hub_download(match["repository"], WEIGHTS, revision=match["revision"]))


def push(
    tokenizer: "Tokenizer",
    repository: str,
    *,
    licence: str,
    scores: str | Path | None = None,
    private: bool = False,
) -> str:
    """Writes the weights of a tokenizer with their config, and a model card, to a repository of the hub.

    Args:
        tokenizer: A tokenizer that `vq.load` has loaded.
        repository: `OWNER/REPOSITORY`, which is made if it does not exist.
        licence: The licence of the weights, as the hub writes it: `mit`, `apache-2.0`, `other`.
        scores: A `metrics.json` that `vq val` or `vq test` has written, for the model card.
        private: Whether a repository that is made is private.

    Returns:
        The address that `vq.load` takes, with the commit as its revision.

    Raises:
        HubError: If the repository, the licence or the scores cannot be used, the hub refuses, or it cannot be reached.
        CheckpointError: If the tokenizer has no config, or does not hold all of its weights.
        MissingPackageError: If huggingface_hub is not installed.
    """
    client = packages.require("huggingface_hub", needed_by="push_to_hub")
    address = f"{PREFIX}{repository}"
    if (match := _ADDRESS.fullmatch(address)) is None or match["revision"] is not None:
        raise HubError(f"push_to_hub: expected OWNER/REPOSITORY, got {repository!r}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", licence):
        raise HubError(f"push_to_hub: expected a licence such as mit, apache-2.0 or other, got {licence!r}")
    config = _own_config(tokenizer)
    record = None if scores is None else _scores(Path(scores))
    with tempfile.TemporaryDirectory() as folder, saying_what_the_hub_refuses(address):
        files = Path(folder)
        save_weights(tokenizer.state_dict(), files / WEIGHTS, config)
        (files / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (files / "README.md").write_text(model_card(repository, config, licence, record), encoding="utf-8")
        hub = client.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Tokenizer of vq")
    return f"{address}@{commit.oid}"


def model_card(
    repository: str, config: Mapping[str, Any], licence: str, record: Mapping[str, Any] | None
) -> str:
    """The text of the README of a repository: what the tokenizer is, how to use it, its scores and its config.

    Args:
        repository: `OWNER/REPOSITORY`.
        config: The config of the tokenizer.
        licence: The licence of the weights.
        record: The content of a `metrics.json`.
    """
    lines = [
        "---", f"license: {licence}", "library_name: vq", "tags:", "- image-tokenizer", "---",
        f"# {repository}",
        "A discrete image tokenizer. `encode` maps images to indices, and `decode` maps them back.",
        "```python",
        "import vq",
        f'tokenizer = vq.load("{PREFIX}{repository}")',
        "indices = tokenizer.encode(images)  # uint8 pixels, or floats in [-1, 1]: (batch, channels, height, width)",
        "```",
    ]  # fmt: skip
    if record is not None:
        lines += ["## Scores", "| score | value | computed with |", "|---|---|---|"]
        for name, value in record.get("scores", {}).items():
            stamp = record.get("stamp", {}).get(name, {})
            words = ", ".join(f"{key} {text}" for key, text in stamp.items() if text is not None)
            lines.append(f"| {_cell(name)} | {value:.5g} | {_cell(words)} |")
    lines += ["## Config", "```json", json.dumps(config["tokenizer"], indent=1), "```"]
    return "\n".join(lines) + "\n"


@contextmanager
def saying_what_the_hub_refuses(address: str, file: str = WEIGHTS) -> Iterator[None]:
    """Inside, what the hub's client raises becomes one sentence about the repository.

    Args:
        address: The repository.
        file: The file that it must have.

    Raises:
        HubError: In place of an error of the client.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(f"{address}: access must be granted on the page of the repository first") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{address}: there is no such repository, or it is private; `hf auth login` gives access to yours"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{address}: the repository has no such branch, tag or commit") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"{address}: the hub cannot be reached, and the file is not in its cache ({_first_line(error)})"
        ) from error
    except errors.EntryNotFoundError as error:
        cure = (
            "; weights of another project are downloaded and given to `vq convert`" if file == WEIGHTS else ""
        )
        by = ", as push_to_hub writes it" if file == WEIGHTS else ""
        raise HubError(f"{address}: expected a file {file}{by}, got none{cure}") from error
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise HubError(
                f"{address}: access is refused; `hf auth login` gives access to what is yours"
            ) from error
        raise HubError(f"{address}: the hub refuses: {_first_line(error)}") from error
    except OSError as error:  # connections that are cut, full disks
        raise HubError(f"{address}: {_first_line(error)}") from error
    except RuntimeError as error:  # the client's word for a cut or incomplete download
        raise HubError(f"{address}: {_first_line(error)}") from error


def _scores(file: Path) -> Mapping[str, Any]:
    """The content of a `metrics.json`."""
    try:
        record = read_json(file)
    except (OSError, ValueError) as error:
        raise HubError(f"push_to_hub: scores: {file}: {error}") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("scores"), Mapping):
        raise HubError(
            f"push_to_hub: scores: expected a metrics.json that `vq val` or `vq test` wrote, got {file}"
        )
    return record


def _own_config(tokenizer: "Tokenizer") -> dict[str, Any]:
    """The section of a tokenizer's config that rebuilds it without other files."""
    node = (tokenizer.config or {}).get("tokenizer")
    if node is None:
        raise CheckpointError(
            "push_to_hub: expected a tokenizer with a config, which says how it was built, got none; load it with "
            "vq.load from a run or a weight file"
        )
    if node.get("stores_tokenizer") is False:
        raise CheckpointError(
            "push_to_hub: expected a tokenizer with all of its weights, got one with stores_tokenizer=False, which "
            "refers to those of another file; train the decoder with stores_tokenizer=True"
        )
    return {"tokenizer": dict(self_contained(node))}


def _cell(text: str) -> str:
    return printable(str(text)).replace("|", "\\|").replace("<", "&lt;")


def _first_line(error: Exception) -> str:
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))[:200]
