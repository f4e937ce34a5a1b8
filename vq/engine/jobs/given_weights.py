"""Weight files that a command line names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from vq.tokenizers.checkpoint import find_weights, load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenWeights:
    """Weight files, and where their tensors may differ from those of the model.

    Attributes:
        paths: Weight files, checkpoint folders or run folders; of a tensor that several hold, the last one counts.
        allow_missing: Regular expression of the names that the files may lack.
        allow_unexpected: Regular expression of the names that the model may lack.
    """

    paths: Sequence[str | Path] = ()
    allow_missing: str = ""
    allow_unexpected: str = ""

    def files(self) -> list[Path]:
        """The weight files that the paths mean.

        Raises:
            CheckpointError: If a file is missing or damaged.
        """
        return [find_weights(path) for path in self.paths]

    def followed_by(self, path: Path) -> "GivenWeights":
        """These weights and then those of one more path, which count where both have a tensor."""
        return replace(self, paths=[*self.paths, path])

    def load_into(self, model: nn.Module) -> list[Path]:
        """Loads the weights, and returns their files; does nothing if there are no paths.

        Raises:
            CheckpointError: If a file is missing or damaged, or its tensors do not fit.
        """
        files = self.files()
        if files:
            load_weights(
                model, files, allow_missing=self.allow_missing, allow_unexpected=self.allow_unexpected
            )
        return files
