"""TensorBoard, Weights & Biases, and pictures as files."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from vq import packages
from vq.engine.callbacks.base import Callback, Scalars
from vq.engine.callbacks.not_finite import NonFiniteLossError
from vq.errors import UserError
from vq.files import write_atomically
from vq.ops.images import save_png
from vq.registry import CALLBACKS
from vq.text import printable

logger = logging.getLogger(__name__)


@CALLBACKS.register_module()
class TensorBoard(Callback):
    """Writes the config, scalars and pictures as TensorBoard events under `tensorboard/`.

    A resumed run tells TensorBoard to discard the steps that it repeats. After an error, such as a full disk, the next
    value opens a new file.

    Args:
        directory: The run folder.
        config: The resolved config, shown as JSON under "Text"; None to show none.

    Raises:
        MissingPackageError: If the package is not installed; see `tensorboard_if_installed`.
    """

    def __init__(self, *, directory: Path, config: Mapping[str, Any] | None = None) -> None:
        packages.require("tensorboard", needed_by="TensorBoard")
        self.directory, self.config = directory / "tensorboard", config
        self.writer: Any = None

    def on_start(self, step: int, max_steps: int) -> None:
        """Opens the file and writes the config; what was written for steps after `step` is discarded."""
        self._open(purge_step=step + 1 if step else None)
        if self.config is not None:
            text = json.dumps(self.config, indent=2)
            self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Writes `train/...`."""
        self._write({f"train/{name}": value for name, value in scalars.items()}, step)

    def on_not_finite(self, error: NonFiniteLossError, back_to: int | None) -> None:
        """Discards what was written for the steps after the one to which training goes back."""
        if back_to is not None:
            self.on_end(error.step)
            self._open(purge_step=back_to + 1)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Writes `val/...` and the picture."""
        self._write({f"val/{name}": value for name, value in scores.items()}, step, picture)

    def on_end(self, step: int) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()

    def _open(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.directory), purge_step=purge_step)

    def _write(self, values: Scalars, step: int, picture: Tensor | None = None) -> None:
        if self.writer is None:
            self._open()
        try:
            for name, value in values.items():
                self.writer.add_scalar(printable(name), value, step)
            if picture is not None:
                self.writer.add_image("val/reconstructions", picture, step)
                self.writer.flush()
        except Exception:
            self.writer = None  # its thread ended with the error
            raise


def tensorboard_if_installed(directory: Path, config: Mapping[str, Any]) -> list[Callback]:
    """A `TensorBoard` for this folder; without the package, no callback, and one line in the log."""
    if packages.is_installed("tensorboard"):
        return [TensorBoard(directory=directory, config=config)]
    logger.info(
        "no TensorBoard files: the package tensorboard is not installed; %s",
        packages.how_to_install("tensorboard"),
    )
    return []


@CALLBACKS.register_module()
class WandB(Callback):
    """Sends the config, scalars and pictures to Weights & Biases; WANDB_MODE=offline needs no network.

    A resumed run continues the same W&B run, whose id is kept in the folder. Without a network at the start, the values
    are kept in `wandb/` for `wandb sync`.

    Args:
        directory: Where W&B keeps its files, in `wandb/`.
        config: The resolved config.
        name: The name of the W&B run.
        project: Its project.
        entity: The user or the team that owns the project; None for the default of the login.
        id_name: The file in the directory that holds the id of the W&B run.

    Raises:
        MissingPackageError: If the package is not installed.
        LoggerError: If nobody is logged in.
    """

    def __init__(
        self,
        *,
        directory: Path,
        config: Mapping[str, Any],
        name: str,
        project: str = "vq",
        entity: str | None = None,
        id_name: str = "wandb_id.txt",
    ) -> None:
        packages.require("wandb", needed_by="--wandb")
        if not _has_wandb_login():
            raise LoggerError(
                "--wandb: expected a login to Weights & Biases, got none; run `wandb login`, set WANDB_API_KEY, or set "
                "WANDB_MODE=offline"
            )
        self.id_file = directory / id_name
        self.run: Any = None
        self.arguments: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": name,
            "dir": str(directory),
            "config": dict(config),
            "resume": "allow",
        }

    def on_start(self, step: int, max_steps: int) -> None:
        """Opens the W&B run, that of the earlier training if there is one; offline if there is no network."""
        import wandb

        known = self.id_file.read_text(encoding="utf-8").strip() if self.id_file.exists() else None
        try:
            self.run = wandb.init(id=known, **self.arguments)
        except wandb.errors.Error as error:
            logger.warning("wandb: %s; values are kept under %s for wandb sync", error, self.arguments["dir"])
            self.run = wandb.init(id=known, mode="offline", **self.arguments)
        write_atomically(self.id_file, f"{self.run.id}\n")

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Writes `train/...`."""
        if self.run is not None:
            self.run.log({printable(f"train/{k}"): v for k, v in scalars.items()}, step=step)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Writes `val/...` and the picture."""
        import wandb

        if self.run is not None:
            image = wandb.Image(picture.permute(1, 2, 0).numpy())
            values = {printable(f"val/{k}"): v for k, v in scores.items()}
            self.run.log(values | {"val/reconstructions": image}, step=step)

    def on_end(self, step: int) -> None:
        """Finishes the run."""
        if self.run is not None:
            self.run.finish()


class LoggerError(UserError, RuntimeError):
    """A requested logger cannot be used."""


def _has_wandb_login() -> bool:
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # no network, or a version with another interface: on_start finds out
        return True


@CALLBACKS.register_module()
class ImageGrid(Callback):
    """Writes the picture of each validation to `images/iter_N.png`."""

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory / "images"

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Saves the picture."""
        save_png(picture, self.directory / f"iter_{step}.png")
