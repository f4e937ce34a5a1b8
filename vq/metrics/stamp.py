"""The stamp of statistics and scores: what they were computed from, and how."""

from dataclasses import asdict, dataclass
from typing import Any

from vq.errors import UserError
from vq.networks.frozen.features import FeatureNetwork
from vq.text import printable

_BINDING = ("protocol", "extractor", "extractor_sha256")


class StatisticsError(UserError, ValueError):
    """Reference statistics that cannot be used: damaged, of another kind, or of too few images."""


class MissingStatisticsError(UserError, FileNotFoundError):
    """A file of reference statistics that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A record of what statistics were computed from and how; None means unknown.

    Attributes:
        protocol: The name of the protocol for resizing images, such as `pytorch-fid`.
        extractor: The name of the feature network.
        extractor_sha256: The SHA-256 of the network's weights, in hexadecimal.
        resize: A description of the protocol's resizing.
        num_images: The number of images.
        num_undecodable: The number of images of the set that were skipped because they cannot be decoded.
        dataset: The name of the set.
        dataset_sha256: The SHA-256 of the keys of the images and of their preprocessing, in hexadecimal.
        preprocessing: A description of how the images were processed before the network.
    """

    protocol: str | None = None
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None
    num_images: int | None = None
    num_undecodable: int | None = None
    dataset: str | None = None
    dataset_sha256: str | None = None
    preprocessing: str | None = None

    @classmethod
    def of(cls, network: FeatureNetwork, **rest: Any) -> "Stamp":
        """Makes the stamp of features of a network.

        Args:
            network: The feature network, which gives the protocol, the extractor, its SHA-256 and the resizing.
            **rest: The other attributes.
        """
        return cls(
            protocol=network.protocol,
            extractor=network.name,
            extractor_sha256=network.sha256,
            resize=network.resize,
            **rest,
        )

    def as_dict(self) -> dict[str, str | int | None]:
        """Returns the attributes by name, ready for JSON."""
        return asdict(self)

    def agrees(self, other: "Stamp") -> bool:
        """Tests whether protocol, extractor and its weights are equal wherever both are known."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in _BINDING]
        return all(a == b or a is None or b is None for a, b in pairs)

    def __str__(self) -> str:
        known = {name: value for name, value in self.as_dict().items() if value is not None}
        return ", ".join(f"{name} {printable(str(value))}" for name, value in known.items())
