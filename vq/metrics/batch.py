"""A batch of what a tokenizer computed, and metrics of every kind that see it."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from vq.metrics.base import CodeMetric, Images, Indices, Metric, ReconstructionMetric, VectorMetric
from vq.metrics.sets import SetMetric


def needs_reconstruction(metric: Metric) -> bool:
    """Whether the metric scores reconstructed images, so that it cannot score a tokenizer without an image decoder."""
    return isinstance(metric, ReconstructionMetric | SetMetric)


def update_metrics(
    metrics: Iterable[Metric],
    *,
    image: Images,
    indices: Indices,
    reconstruction: Images | None = None,
    latent: Float[Tensor, "b *position dim"] | None = None,
    quantized: Float[Tensor, "b *_position _dim"] | None = None,
    features: Float[Tensor, "b c rows columns"] | None = None,
) -> None:
    """Adds a batch of images, and what a tokenizer computed from them, to metrics of every kind.

    Args:
        metrics: The metrics; changed in place.
        image: The images, in [-1, 1].
        indices: The code indices of the images, int64.
        reconstruction: The reconstructions, in about [-1, 1]; None if the tokenizer has no image decoder.
        latent: The vectors before quantization; None only if no metric needs them.
        quantized: The codes that replaced them; None only if no metric needs them.
        features: The features of a teacher that the tokenizer predicts; None if it reconstructs images.

    Raises:
        TypeError: If a metric is of no known kind, or needs something that is None.
    """
    for metric in metrics:
        if isinstance(metric, CodeMetric):
            metric.update(image=image, indices=indices)
        elif isinstance(metric, VectorMetric):
            metric.update(
                image=image,
                latent=_given(metric, latent, "latent"),
                quantized=_given(metric, quantized, "quantized"),
                features=features,
            )
        elif isinstance(metric, ReconstructionMetric):
            found = _given(metric, reconstruction, "reconstruction")
            metric.update(image=image, reconstruction=found, indices=indices)
        elif isinstance(metric, SetMetric):
            metric.update(_given(metric, reconstruction, "reconstruction"), sample_by=image)
            metric.update_real(image)
        else:
            raise TypeError(
                f"metrics: expected each to be a ReconstructionMetric, SetMetric, CodeMetric or VectorMetric, got "
                f"{type(metric).__name__}; derive it from one of them"
            )


def _given(metric: Metric, value: Float[Tensor, "..."] | None, name: str) -> Float[Tensor, "..."]:
    if value is None:
        raise TypeError(
            f"{type(metric).__name__}: expected {name} in each batch, got none; pass {name}= to update_metrics"
        )
    return value
