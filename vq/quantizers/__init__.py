"""Quantizers: `z` of shape (..., dim) goes in, its codes and their indices come out.

Each class is usable in plain Python: `VectorQuantizer(codebook=EMACodebook(size=1024, dim=64))(z)`.
"""

from vq.quantizers.annealing import Annealing, CosineAnnealing, GeometricAnnealing, LinearAnnealing
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.binary_spherical import BinarySphericalQuantizer
from vq.quantizers.carry import CarryQuantizer
from vq.quantizers.clustered import ClusteredCodebook
from vq.quantizers.codebooks import Codebook, EMACodebook, LearnedCodebook, accumulate
from vq.quantizers.contrastive import ContrastiveRegulariser
from vq.quantizers.distances import CosineDistance, Distance, EuclideanDistance
from vq.quantizers.estimators import Estimator, RotationTrick, StraightThrough, Synchronised
from vq.quantizers.finite_scalar import FiniteScalarQuantizer, SimpleFiniteScalarQuantizer
from vq.quantizers.gumbel import GumbelQuantizer, SoftmaxQuantizer
from vq.quantizers.initialization import Initialization, KMeansInit, NormalInit, UniformInit
from vq.quantizers.lookup_free import LookupFreeQuantizer
from vq.quantizers.product import ProductQuantizer
from vq.quantizers.radial import RadialQuantizer
from vq.quantizers.regularisers import EntropyRegulariser, OrthogonalRegulariser, Regulariser
from vq.quantizers.residual import ResidualQuantizer
from vq.quantizers.residual_finite_scalar import ResidualFiniteScalarQuantizer
from vq.quantizers.revival import ReplaceDeadCodes, Revival, Revived
from vq.quantizers.vector import VectorQuantizer

__all__ = [
    "Annealing",
    "BinarySphericalQuantizer",
    "CarryQuantizer",
    "ClusteredCodebook",
    "Codebook",
    "ContrastiveRegulariser",
    "CosineAnnealing",
    "CosineDistance",
    "Distance",
    "EMACodebook",
    "EntropyRegulariser",
    "Estimator",
    "EuclideanDistance",
    "FiniteScalarQuantizer",
    "GeometricAnnealing",
    "GumbelQuantizer",
    "Initialization",
    "KMeansInit",
    "LearnedCodebook",
    "LinearAnnealing",
    "LookupFreeQuantizer",
    "NormalInit",
    "OrthogonalRegulariser",
    "ProductQuantizer",
    "QuantizeOutput",
    "Quantizer",
    "RadialQuantizer",
    "Regulariser",
    "ReplaceDeadCodes",
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
]
