"""Networks: images to features and back, one file an architecture; and frozen feature networks."""

from vq.networks.cnn import CNNDecoder, CNNEncoder
from vq.networks.lpips import LPIPSNetwork
from vq.networks.strided_cnn import StridedCNNDecoder, StridedCNNEncoder

__all__ = ["CNNDecoder", "CNNEncoder", "LPIPSNetwork", "StridedCNNDecoder", "StridedCNNEncoder"]
