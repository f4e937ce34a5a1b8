"""Networks: images to features and back, one file an architecture; and frozen feature networks."""

from vq.networks.cnn import CNNDecoder, CNNEncoder
from vq.networks.dino_discriminator import DINODiscriminator
from vq.networks.efficientnet import EfficientNetLite0
from vq.networks.features import FeatureNetwork, FeaturePyramid
from vq.networks.frequency import FrequencyDecoder, FrequencyEncoder
from vq.networks.inception import InceptionNetwork
from vq.networks.latent_tokens import LatentTokensDecoder, LatentTokensEncoder
from vq.networks.lpips import LPIPSNetwork
from vq.networks.patchgan import PatchDiscriminator
from vq.networks.strided_cnn import StridedCNNDecoder, StridedCNNEncoder
from vq.networks.stylegan import StyleGAN2Discriminator
from vq.networks.timm_vit import TimmViTFeatures
from vq.networks.vit import ViTDecoder, ViTEncoder
from vq.networks.vq_vae import VQVAEDecoder, VQVAEEncoder

__all__ = [
    "CNNDecoder",
    "CNNEncoder",
    "DINODiscriminator",
    "EfficientNetLite0",
    "FeatureNetwork",
    "FeaturePyramid",
    "FrequencyDecoder",
    "FrequencyEncoder",
    "InceptionNetwork",
    "LPIPSNetwork",
    "LatentTokensDecoder",
    "LatentTokensEncoder",
    "PatchDiscriminator",
    "StridedCNNDecoder",
    "StridedCNNEncoder",
    "StyleGAN2Discriminator",
    "TimmViTFeatures",
    "VQVAEDecoder",
    "VQVAEEncoder",
    "ViTDecoder",
    "ViTEncoder",
]
