"""Quantizers: `z` of shape (..., dim) goes in, its codes and their indices come out.

Each class is usable in plain Python: `VectorQuantizer(codebook=EMACodebook(size=1024, dim=64))(z)`.
"""

from vq.quantizers.affine import AffineCodebook
from vq.quantizers.annealing import Annealing, CosineAnnealing, GeometricAnnealing, LinearAnnealing
from vq.quantizers.axis import AxisQuantizer
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.binary_spherical import BinarySphericalQuantizer
from vq.quantizers.bottleneck import BottleneckQuantizer
from vq.quantizers.carry import CarryQuantizer
from vq.quantizers.clustered import ClusteredCodebook
from vq.quantizers.codebooks import Codebook, EMACodebook, LearnedCodebook, accumulate
from vq.quantizers.contrastive import ContrastiveRegulariser
from vq.quantizers.distances import CosineDistance, DirectionDistance, Distance, EuclideanDistance
from vq.quantizers.estimators import Estimator, RotationTrick, StraightThrough, Synchronised
from vq.quantizers.finite_scalar import FiniteScalarQuantizer, SimpleFiniteScalarQuantizer
from vq.quantizers.frozen import FrozenCodebook
from vq.quantizers.gumbel import GumbelQuantizer, SoftmaxQuantizer
from vq.quantizers.identity import IdentityQuantizer
from vq.quantizers.index_backpropagation import IndexBackpropagationQuantizer
from vq.quantizers.initialization import (
    DataMomentsInit,
    FileInit,
    Initialization,
    KMeansInit,
    NormalInit,
    UniformInit,
)
from vq.quantizers.lookup_free import LookupFreeQuantizer
from vq.quantizers.multi_scale import MultiScaleResidualQuantizer
from vq.quantizers.product import ProductQuantizer
from vq.quantizers.projected import ProjectedCodebook
from vq.quantizers.radial import RadialQuantizer
from vq.quantizers.regularisers import EntropyRegulariser, OrthogonalRegulariser, Regulariser
from vq.quantizers.residual import ResidualQuantizer
from vq.quantizers.residual_coefficient import ResidualCoefficientQuantizer
from vq.quantizers.residual_finite_scalar import ResidualFiniteScalarQuantizer
from vq.quantizers.revival import (
    ReplaceDeadCodes,
    ReplaceRareCodes,
    ReplaceUnusedCodes,
    Revival,
    Revived,
)
from vq.quantizers.vector import VectorQuantizer
from vq.quantizers.warmup import codebook_warmup

__all__ = [
    "AffineCodebook",
    "Annealing",
    "AxisQuantizer",
    "BinarySphericalQuantizer",
    "BottleneckQuantizer",
    "CarryQuantizer",
    "ClusteredCodebook",
    "Codebook",
    "ContrastiveRegulariser",
    "CosineAnnealing",
    "CosineDistance",
    "DataMomentsInit",
    "DirectionDistance",
    "Distance",
    "EMACodebook",
    "EntropyRegulariser",
    "Estimator",
    "EuclideanDistance",
    "FileInit",
    "FiniteScalarQuantizer",
    "FrozenCodebook",
    "GeometricAnnealing",
    "GumbelQuantizer",
    "IdentityQuantizer",
    "IndexBackpropagationQuantizer",
    "Initialization",
    "KMeansInit",
    "LearnedCodebook",
    "LinearAnnealing",
    "LookupFreeQuantizer",
    "MultiScaleResidualQuantizer",
    "NormalInit",
    "OrthogonalRegulariser",
    "ProductQuantizer",
    "ProjectedCodebook",
    "QuantizeOutput",
    "Quantizer",
    "RadialQuantizer",
    "Regulariser",
    "ReplaceDeadCodes",
    "ReplaceRareCodes",
    "ReplaceUnusedCodes",
    "ResidualCoefficientQuantizer",
    "ResidualFiniteScalarQuantizer",
    "ResidualQuantizer",
    "Revival",
    "Revived",
    "RotationTrick",
    "SimpleFiniteScalarQuantizer",
    "SoftmaxQuantizer",
    "StraightThrough",
    "Synchronised",
    "UniformInit",
    "VectorQuantizer",
    "accumulate",
    "codebook_warmup",
]
