"""The Inception Score, KID, and precision and recall, from a network's features of two sets of images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vq.metrics.base import Images, Indices, ReconstructionMetric, set_to_zero, sum_over_ranks
from vq.metrics.features import BatchFeatures, score_name
from vq.metrics.reservoir import TwoReservoirs, image_keys
from vq.metrics.sets import FeatureSummary, SetMetric
from vq.metrics.stamp import StatisticsError
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import to_uint8
from vq.ops.two_samples import kernel_distances, precision_and_recall
from vq.registry import METRICS


class ClassSummary(FeatureSummary):
    """Sums the class probabilities of images and their negative entropies, for each of several splits.

    Args:
        num_classes: The number of logits.
        splits: The number of splits.
    """

    needs_real = False
    probability: Tensor
    negative_entropy: Tensor
    count: Tensor

    def __init__(self, *, num_classes: int, splits: int) -> None:
        super().__init__()
        self.splits = splits
        self.register_buffer("probability", torch.zeros(splits, num_classes).double(), persistent=False)
        self.register_buffer("negative_entropy", torch.zeros(splits).double(), persistent=False)
        self.register_buffer("count", torch.zeros(splits, dtype=torch.int64), persistent=False)

    def add(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the logits of images to the sums of their splits, which the pixels of `sample_by` decide."""
        log_probability = features.double().log_softmax(dim=1)
        probability = log_probability.exp()
        split = (image_keys(to_uint8(sample_by)) >> 32) % self.splits
        self.probability.index_add_(0, split, probability)
        self.negative_entropy.index_add_(0, split, (probability * log_probability).sum(dim=1))
        self.count.index_add_(0, split, torch.ones_like(split))

    def add_real(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Does nothing: the images are compared with no others."""

    def reset(self) -> None:
        """Discards all images."""
        set_to_zero(self)

    def sync(self) -> None:
        """Replaces the sums by those over all ranks."""
        sum_over_ranks(self)

    def scores(self) -> Float[Tensor, "splits"]:
        """Computes the Inception Score of each split that has images."""
        has_images = self.count > 0
        count = self.count[has_images].double()
        mean = self.probability[has_images] / count[:, None]
        negative_entropy = self.negative_entropy[has_images] / count
        return (negative_entropy - torch.xlogy(mean, mean).sum(dim=1)).exp()

    def stamp(self, num_images: int) -> dict[str, str | int | None]:
        """Returns the number of splits."""
        return {"splits": self.splits}


@METRICS.register_module()
class InceptionScore(SetMetric):
    """Computes how confidently and how diversely images are classified (Inception Score; key `inception_score`).

    The score of a split is the exponential of the mean KL divergence between the class distribution of an image and
    that of the split. The keys hold the mean and the standard deviation (`inception_score_std`) over splits. With
    another network the keys are `class_score[NAME]` and `class_score_std[NAME]`.

    Source: Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.
    Differs from the source: the pixels of an image decide its split (for a reconstruction, those of the original), so
        that batches and ranks do not matter; splits therefore differ a little in size. With one split the score equals
        torch-fidelity's.

    Args:
        network: The network whose `logits` are used; those of Inception have no biases.
        splits: The number of splits, 10 in most papers and 1 in some. A split without images is ignored.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If `splits` is below 1, or `rgb` is invalid.
    """

    higher_is_better = True
    summary: ClassSummary

    def __init__(
        self, *, network: FeatureNetwork, splits: int = 10, rgb: Sequence[int] | None = None
    ) -> None:
        if splits < 1:
            raise ValueError(f"InceptionScore: expected at least 1 split, got {splits}; most papers use 10")
        summary = ClassSummary(num_classes=network.sizes["logits"], splits=splits)
        super().__init__(network=network, kind="logits", summary=summary, rgb=rgb)
        self.score = score_name(network, "inception_score", "class_score")
        self.spread = score_name(network, "inception_score_std", "class_score_std")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.score]

    def result(self) -> dict[str, float]:
        """Computes the score, from 1 to the number of classes, and its standard deviation over splits."""
        scores = self.summary.scores()
        return {self.score: scores.mean().item(), self.spread: scores.std(correction=0).item()}


@METRICS.register_module()
class KID(SetMetric):
    """Computes the unbiased kernel distance between two sets' features (KID; keys `kid` and `kid_std`).

    The keys hold the mean and the standard deviation over random subsets. Unlike that of FID, the expected value does
    not depend on the number of images, so KID is the better score for small sets. It can be slightly below 0. Features
    of up to `capacity` images are kept in memory. With another network the keys are `kernel_distance[NAME]` and
    `kernel_distance_std[NAME]`.

    Source: Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, section 4.
    Differs from the source: of more than `capacity` images, a sample is compared, which their pixels decide.

    Args:
        network: The network whose `pool` features are compared.
        num_subsets: The number of subsets.
        subset_size: The number of images in a subset. Sets that have no more images are compared whole, once.
        capacity: The maximum number of images to keep.
        seed: The seed of the subsets; the default is that of torch-fidelity.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If a count is too small, or `rgb` is invalid.
    """

    higher_is_better = False
    summary: TwoReservoirs

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        num_subsets: int = 100,
        subset_size: int = 1000,
        capacity: int = 10_000,
        seed: int = 2020,
        rgb: Sequence[int] | None = None,
    ) -> None:
        if num_subsets < 1 or subset_size < 2:
            raise ValueError(
                f"KID: expected at least 1 subset of at least 2 images, got {num_subsets} of {subset_size}; most "
                "papers use 100 of 1000"
            )
        summary = TwoReservoirs(network=network, capacity=capacity)
        super().__init__(network=network, kind="pool", summary=summary, rgb=rgb)
        self.num_subsets, self.subset_size, self.seed = num_subsets, subset_size, seed
        self.score = score_name(network, "kid", "kernel_distance")
        self.spread = score_name(network, "kid_std", "kernel_distance_std")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.score]

    def result(self) -> dict[str, float]:
        """Computes the mean and the standard deviation of the distance over subsets.

        Raises:
            StatisticsError: If there are fewer than two images on a side.
        """
        found, wanted = self.summary.result()
        smallest, largest = sorted((len(found), len(wanted)))
        if smallest < 2:
            raise StatisticsError(
                f"KID: expected at least two images on each side, got {smallest}; evaluate more images"
            )
        size = min(self.subset_size, smallest)
        num_subsets = self.num_subsets if size < largest else 1
        distances = kernel_distances(found, wanted, num_subsets=num_subsets, subset_size=size, seed=self.seed)
        return {self.score: distances.mean().item(), self.spread: distances.std(correction=0).item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Returns the stamp of a `SetMetric`, with the settings of the subsets."""
        return super().stamp() | {
            "subsets": self.num_subsets,
            "subset_size": self.subset_size,
            "seed": self.seed,
        }


@METRICS.register_module()
class PrecisionRecall(SetMetric):
    """Computes the fractions of realistic images and of covered real images (keys `precision` and `recall`).

    Precision is the fraction of images whose features are within the distance to the k-th nearest neighbour of some
    real image; recall is the same with the two sets exchanged. Both depend on the number of images and on the network,
    so compare them only if these are equal. With another network the keys are `precision[NAME]` and `recall[NAME]`.

    Source: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eqs. 1 and 2.
    Differs from the source: the features are Inception's `pool`, as in ADM's evaluator, not those of VGG16.

    Args:
        network: The network whose `pool` features are compared.
        neighbours: The number k of neighbours.
        capacity: The maximum number of images to keep; ADM compares with 10,000.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If a count is too small, or `rgb` is invalid.
    """

    higher_is_better = True
    summary: TwoReservoirs

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        neighbours: int = 3,
        capacity: int = 10_000,
        rgb: Sequence[int] | None = None,
    ) -> None:
        if neighbours < 1:
            raise ValueError(f"PrecisionRecall: expected at least 1 neighbour, got {neighbours}; take 3")
        summary = TwoReservoirs(network=network, capacity=capacity)
        super().__init__(network=network, kind="pool", summary=summary, rgb=rgb)
        self.neighbours = neighbours
        self.precision = score_name(network, "precision", "precision")
        self.recall = score_name(network, "recall", "recall")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.precision, self.recall]

    def result(self) -> dict[str, float]:
        """Computes precision and recall, in 0..1; both are NaN if an image was NaN.

        Raises:
            StatisticsError: If there are no more images than neighbours.
        """
        found, wanted = self.summary.result()
        if (smallest := min(len(found), len(wanted))) <= self.neighbours:
            raise StatisticsError(
                f"PrecisionRecall: expected more than {self.neighbours} images, the number of neighbours, got "
                f"{smallest}; evaluate more images"
            )
        if not bool(torch.isfinite(found).all() and torch.isfinite(wanted).all()):
            return {self.precision: float("nan"), self.recall: float("nan")}
        precision, recall = precision_and_recall(found, wanted, neighbours=self.neighbours)
        return {self.precision: precision.item(), self.recall: recall.item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Returns the stamp of a `SetMetric`, with the number of neighbours."""
        return super().stamp() | {"neighbours": self.neighbours}


def cosine_distance(
    features: Float[Tensor, "b *rest dim"], target: Float[Tensor, "b *rest dim"]
) -> Float[Tensor, "b"]:
    """Computes 1 minus the cosine similarity of feature vectors, averaged over the positions of an image: 0..2.

    It is the training loss of VQ-KD, used as a score.

    Source: Peng et al. 2022, https://arxiv.org/abs/2208.06366, eq. 2.

    Example:
        >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).tolist()
        [1.0]
    """
    cosine = torch.nn.functional.cosine_similarity(features.double(), target.double(), dim=-1)
    return 1 - (cosine if cosine.ndim == 1 else cosine.flatten(1).mean(dim=1))


@METRICS.register_module()
class FeatureCosine(ReconstructionMetric):
    """Averages the cosine distance between an image and its reconstruction in pooled features (`feature_cosine[NAME]`).

    Source: Peng et al. 2022, https://arxiv.org/abs/2208.06366, eq. 2.
    Differs from the source: both features are those of the network, not those of a decoder and of a teacher. For the
        latter use `cosine_distance`.

    Args:
        network: The network whose `pool` features are compared.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If `rgb` is invalid.
    """

    higher_is_better = False
    distance: Tensor

    def __init__(self, *, network: FeatureNetwork, rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.features = BatchFeatures(network=network, rgb=rgb, place="FeatureCosine")
        self.score = f"feature_cosine[{network.name}]"
        self.add_sum("distance")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the distances of a batch."""
        found, wanted = self.features(reconstruction)["pool"], self.features(image)["pool"]
        self.distance += cosine_distance(found, wanted).sum()

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.score]

    def result(self) -> dict[str, float]:
        """Computes the mean over images, in 0..2."""
        return {self.score: (self.distance / self.images).item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Returns the protocol, the network, the SHA-256 of its weights, the resizing and the number of images."""
        return self.features.stamp() | {"num_images": int(self.images)}
