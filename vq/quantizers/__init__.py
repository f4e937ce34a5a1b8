"""Quantizers: vectors `z` of shape (..., dim) go in, their codes and the indices of the codes come out.

All classes work in plain Python: `VectorQuantizer(codebook=EMACodebook(size=1024, dim=64))(z)`.
"""

from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.binary_spherical import BinarySphericalQuantizer
from vq.quantizers.codebooks.accumulation import accumulate
from vq.quantizers.codebooks.affine import AffineCodebook
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.codebooks.bridged import BridgedCodebook
from vq.quantizers.codebooks.clustered import ClusteredCodebook
from vq.quantizers.codebooks.ema import EMACodebook
from vq.quantizers.codebooks.frozen import FrozenCodebook
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.codebooks.mini_batch_k_means import MiniBatchKMeansCodebook
from vq.quantizers.codebooks.projected import ProjectedCodebook
from vq.quantizers.codebooks.spherical_ema import SphericalEMACodebook
from vq.quantizers.finite_scalar import FiniteScalarQuantizer, SimpleFiniteScalarQuantizer
from vq.quantizers.gumbel import GumbelQuantizer, SoftmaxQuantizer
from vq.quantizers.identity import IdentityQuantizer
from vq.quantizers.implicit_residual import ImplicitResidualQuantizer
from vq.quantizers.index_backpropagation import IndexBackpropagationQuantizer
from vq.quantizers.lookup_free import LookupFreeQuantizer
from vq.quantizers.parts.annealing import Annealing, CosineAnnealing, GeometricAnnealing, LinearAnnealing
from vq.quantizers.parts.contrastive import ContrastiveRegulariser
from vq.quantizers.parts.distances import CosineDistance, DirectionDistance, Distance, EuclideanDistance
from vq.quantizers.parts.estimators import (
    DirectionalReparameterisation,
    Estimator,
    RotationTrick,
    StraightThrough,
    Synchronised,
)
from vq.quantizers.parts.initialization import (
    DataMomentsInit,
    FileInit,
    Initialization,
    KMeansInit,
    NormalInit,
    UniformInit,
)
from vq.quantizers.parts.lattices import LatticeInit
from vq.quantizers.parts.regularisers import EntropyRegulariser, OrthogonalRegulariser, Regulariser
from vq.quantizers.parts.revival import (
    ReplaceDeadCodes,
    ReplaceRareCodes,
    ReplaceUnusedCodes,
    Revival,
    Revived,
)
from vq.quantizers.radial import RadialQuantizer
from vq.quantizers.scalar_perturbation import ScalarPerturbationQuantizer
from vq.quantizers.vector import VectorQuantizer
from vq.quantizers.warmup import codebook_warmup
from vq.quantizers.wrappers.axis import AxisQuantizer
from vq.quantizers.wrappers.bottleneck import BottleneckQuantizer
from vq.quantizers.wrappers.carry import CarryQuantizer
from vq.quantizers.wrappers.multi_scale import MultiScaleResidualQuantizer
from vq.quantizers.wrappers.norm_preserving import NormPreservingQuantizer
from vq.quantizers.wrappers.product import ProductQuantizer
from vq.quantizers.wrappers.residual import ResidualQuantizer
from vq.quantizers.wrappers.residual_coefficient import ResidualCoefficientQuantizer
from vq.quantizers.wrappers.residual_finite_scalar import ResidualFiniteScalarQuantizer

__all__ = [
    "AffineCodebook",
    "Annealing",
    "AxisQuantizer",
    "BinarySphericalQuantizer",
    "BottleneckQuantizer",
    "BridgedCodebook",
    "CarryQuantizer",
    "ClusteredCodebook",
    "Codebook",
    "ContrastiveRegulariser",
    "CosineAnnealing",
    "CosineDistance",
    "DataMomentsInit",
    "DirectionDistance",
    "DirectionalReparameterisation",
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
    "ImplicitResidualQuantizer",
    "IndexBackpropagationQuantizer",
    "Initialization",
    "KMeansInit",
    "LatticeInit",
    "LearnedCodebook",
    "LinearAnnealing",
    "LookupFreeQuantizer",
    "MiniBatchKMeansCodebook",
    "MultiScaleResidualQuantizer",
    "NormPreservingQuantizer",
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
    "ScalarPerturbationQuantizer",
    "SimpleFiniteScalarQuantizer",
    "SoftmaxQuantizer",
    "SphericalEMACodebook",
    "StraightThrough",
    "Synchronised",
    "UniformInit",
    "VectorQuantizer",
    "accumulate",
    "codebook_warmup",
]
