"""Scores of what images show to a classifier's features: Inception Score, KID, precision and recall."""

import torch
from jaxtyping import Float
from torch import Tensor

from vq.metrics.base import Images, Indices, Metric, SetMetric
from vq.metrics.features import BatchFeatures, score_name
from vq.metrics.reservoir import TwoReservoirs, image_keys
from vq.metrics.statistics import StatisticsError
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.images import to_uint8
from vq.ops.two_samples import kernel_distances, precision_and_recall
from vq.registry import METRICS


@METRICS.register_module()
class InceptionScore(SetMetric):
    """Scores how sharply and how variously the pictures are classified (key `inception_score`).

    The exp of the mean divergence between an image's classes and those of its split, then the mean and the spread
    (`inception_score_std`) over splits. With another network the keys are `class_score[NAME]`.

    Source: Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.
    Differs from the source: the split of a reconstruction comes from its original's pixels, that of a generated
        picture from its own, so that batches and ranks do not matter; splits then differ a little in size. With one
        split it equals torch-fidelity.

    Args:
        network: Whose `logits` are read, without biases in Inception's case.
        splits: 10 in most papers; 1 in some. A split without images is left out.

    Raises:
        ValueError: If `splits` is below 1.
    """

    higher_is_better = True
    split_probability: Tensor
    split_negative_entropy: Tensor
    split_images: Tensor

    def __init__(self, *, network: FeatureNetwork, splits: int = 10) -> None:
        super().__init__()
        if splits < 1:
            raise ValueError(f"InceptionScore: expected at least 1 split, got {splits}; most papers use 10")
        self.features = BatchFeatures(network=network)
        self.score = score_name(network, "inception_score", "class_score")
        self.spread = score_name(network, "inception_score_std", "class_score_std")
        self.splits = splits
        self.add_sum("split_probability", shape=(splits, network.sizes["logits"]))
        self.add_sum("split_negative_entropy", shape=(splits,))
        self.add_sum("split_images", shape=(splits,), dtype=torch.int64)

    @property
    def needs_real(self) -> bool:
        """False: the pictures are compared with nothing."""
        return False

    def add_made(self, made: Images, decides: Images) -> None:
        """Adds the pictures' class distributions to their splits' sums."""
        log_probability = self.features(made)["logits"].double().log_softmax(dim=1)
        probability = log_probability.exp()
        split = (image_keys(to_uint8(decides)) >> 32) % self.splits
        self.split_probability.index_add_(0, split, probability)
        self.split_negative_entropy.index_add_(0, split, (probability * log_probability).sum(dim=1))
        self.split_images.index_add_(0, split, torch.ones_like(split))

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.features.forget()

    def result(self) -> dict[str, float]:
        """The score, from 1 to the number of classes, and its spread over splits."""
        has_images = self.split_images > 0
        count = self.split_images[has_images].double()
        mean = self.split_probability[has_images] / count[:, None]
        negative_entropy = self.split_negative_entropy[has_images] / count
        scores = (negative_entropy - torch.xlogy(mean, mean).sum(dim=1)).exp()
        return {self.score: scores.mean().item(), self.spread: scores.std(correction=0).item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing, number of images and splits."""
        return self.features.network.stamp() | {"num_images": int(self.images), "splits": self.splits}


@METRICS.register_module()
class KID(SetMetric):
    """Compares two sets of pictures by a polynomial kernel, without bias (keys `kid`, `kid_std`).

    The mean and the spread over random subsets. Unlike FID's, its expectation does not depend on the number of
    images, so it is the one to read for small sets; a little below 0 is possible. Features are kept, so
    memory grows up to `capacity` images. With another network the keys are `kernel_distance[NAME]`.

    Source: Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, section 4.
    Differs from the source: beyond `capacity` images a sample that their pixels decide is compared.

    Args:
        network: Whose `pool` features are compared.
        num_subsets: Draws.
        subset_size: Images a draw; a set that has no more than these is compared whole, once.
        capacity: How many images are kept.
        seed: Of the draws; torch-fidelity's.

    Raises:
        ValueError: If a count is too small.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        num_subsets: int = 100,
        subset_size: int = 1000,
        capacity: int = 10_000,
        seed: int = 2020,
    ) -> None:
        super().__init__()
        if num_subsets < 1 or subset_size < 2:
            raise ValueError(
                f"KID: expected at least 1 subset of at least 2 images, got {num_subsets} of {subset_size}; the "
                "field's are 100 of 1000"
            )
        self.num_subsets, self.subset_size, self.seed = num_subsets, subset_size, seed
        self.features = BatchFeatures(network=network)
        self.score = score_name(network, "kid", "kernel_distance")
        self.spread = score_name(network, "kid_std", "kernel_distance_std")
        self.sides = TwoReservoirs(network=network, capacity=capacity)

    @property
    def needs_real(self) -> bool:
        """True."""
        return True

    def add_made(self, made: Images, decides: Images) -> None:
        """Keeps the features of those pictures whose pixels decide it."""
        self.sides.add("made", self.features(made)["pool"], decides)

    def add_real(self, real: Images) -> None:
        """Keeps the features of those images whose pixels decide it."""
        self.sides.add("real", self.features(real)["pool"], real)

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.features.forget()
        self.sides.reset()

    def sync(self) -> None:
        """Joins the ranks' features; every rank must call it. A second call does nothing."""
        self.features.forget()
        if not self.is_synced:
            self.sides.sync(device=self.images.device)
        super().sync()

    def result(self) -> dict[str, float]:
        """The mean and the spread over subsets.

        Raises:
            StatisticsError: If there were fewer than two pictures on a side.
        """
        found, wanted = self.sides.result()
        smallest, largest = sorted((len(found), len(wanted)))
        if smallest < 2:
            raise StatisticsError(
                f"KID: expected at least two images a side, got {smallest}; evaluate more images"
            )
        size = min(self.subset_size, smallest)
        num_subsets = self.num_subsets if size < largest else 1
        distances = kernel_distances(found, wanted, num_subsets=num_subsets, subset_size=size, seed=self.seed)
        return {self.score: distances.mean().item(), self.spread: distances.std(correction=0).item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing, number of images and of those compared, and the draws."""
        return self.features.network.stamp() | {
            "num_images": int(self.images),
            **self.sides.stamp(int(self.images)),
            "subsets": self.num_subsets,
            "subset_size": self.subset_size,
            "seed": self.seed,
        }


@METRICS.register_module()
class PrecisionRecall(SetMetric):
    """Measures how real the pictures look and how many of the real ones they cover (`precision`, `recall`).

    Both are fractions of images, by the balls around each set's features that reach to the k-th nearest
    neighbour. They depend on the number of images and on the network, so compare only at equal ones; with
    another network the keys are `precision[NAME]` and `recall[NAME]`.

    Source: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eqs. 1 and 2.
    Differs from the source: the features are Inception's `pool`, as in ADM's evaluator, not VGG16's.

    Args:
        network: Whose `pool` features are compared.
        neighbours: k of the paper.
        capacity: How many images are kept; ADM compares with 10,000.

    Raises:
        ValueError: If a count is too small.
    """

    higher_is_better = True

    def __init__(self, *, network: FeatureNetwork, neighbours: int = 3, capacity: int = 10_000) -> None:
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"PrecisionRecall: expected at least 1 neighbour, got {neighbours}; take 3")
        self.neighbours = neighbours
        self.features = BatchFeatures(network=network)
        self.precision = score_name(network, "precision", "precision")
        self.recall = score_name(network, "recall", "recall")
        self.sides = TwoReservoirs(network=network, capacity=capacity)

    @property
    def needs_real(self) -> bool:
        """True."""
        return True

    def add_made(self, made: Images, decides: Images) -> None:
        """Keeps the features of those pictures whose pixels decide it."""
        self.sides.add("made", self.features(made)["pool"], decides)

    def add_real(self, real: Images) -> None:
        """Keeps the features of those images whose pixels decide it."""
        self.sides.add("real", self.features(real)["pool"], real)

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.features.forget()
        self.sides.reset()

    def sync(self) -> None:
        """Joins the ranks' features; every rank must call it. A second call does nothing."""
        self.features.forget()
        if not self.is_synced:
            self.sides.sync(device=self.images.device)
        super().sync()

    def result(self) -> dict[str, float]:
        """Precision and recall, in 0..1; NaN if a picture was NaN.

        Raises:
            StatisticsError: If there were not more images than neighbours.
        """
        found, wanted = self.sides.result()
        if (smallest := min(len(found), len(wanted))) <= self.neighbours:
            raise StatisticsError(
                f"PrecisionRecall: expected more than {self.neighbours} images for as many neighbours, got "
                f"{smallest}; evaluate more images"
            )
        if not bool(torch.isfinite(found).all() and torch.isfinite(wanted).all()):
            return {self.precision: float("nan"), self.recall: float("nan")}
        precision, recall = precision_and_recall(found, wanted, neighbours=self.neighbours)
        return {self.precision: precision.item(), self.recall: recall.item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing, number of images and of those compared, and k."""
        return self.features.network.stamp() | {
            "num_images": int(self.images),
            **self.sides.stamp(int(self.images)),
            "neighbours": self.neighbours,
        }


def cosine_distance(
    features: Float[Tensor, "b *rest dim"], target: Float[Tensor, "b *rest dim"]
) -> Float[Tensor, "b"]:
    """1 - cosine of the angle between feature vectors, averaged over all places of an image: 0..2.

    The loss that VQ-KD learns by, as a score.

    Source: Peng et al. 2022, https://arxiv.org/abs/2208.06366, eq. 2.

    Example:
        >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).tolist()
        [1.0]
    """
    cosine = torch.nn.functional.cosine_similarity(features.double(), target.double(), dim=-1)
    return 1 - (cosine if cosine.ndim == 1 else cosine.flatten(1).mean(dim=1))


@METRICS.register_module()
class FeatureCosine(Metric):
    """Averages the images' cosine distances in a network's pooled features (key `feature_cosine[NAME]`, 0..2).

    Source: Peng et al. 2022, https://arxiv.org/abs/2208.06366, eq. 2.
    Differs from the source: between the network's features of both images, not between a decoder's and a
        teacher's; for those use `cosine_distance`.

    Args:
        network: Whose `pool` features are compared.
    """

    higher_is_better = False

    def __init__(self, *, network: FeatureNetwork) -> None:
        super().__init__()
        self.features = BatchFeatures(network=network)
        self.score = f"feature_cosine[{network.name}]"
        self.add_sum("distance")

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images' distances."""
        found, wanted = self.features(reconstruction)["pool"], self.features(image)["pool"]
        self.get_buffer("distance").add_(cosine_distance(found, wanted).sum())

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.features.forget()

    def result(self) -> dict[str, float]:
        """The mean over images."""
        return {self.score: (self.get_buffer("distance") / self.images).item()}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing and number of images."""
        return self.features.network.stamp() | {"num_images": int(self.images)}
