"""Encoders and decoders (one file per architecture), discriminators, frozen feature networks, and teachers."""

from vq.networks.convolutional.cnn import CNNDecoder, CNNEncoder
from vq.networks.convolutional.emu3 import Emu3Decoder, Emu3Encoder
from vq.networks.convolutional.maskgit import MaskGITDecoder, MaskGITEncoder
from vq.networks.convolutional.open_magvit2 import OpenMAGVIT2Decoder, OpenMAGVIT2Encoder
from vq.networks.convolutional.strided_cnn import StridedCNNDecoder, StridedCNNEncoder
from vq.networks.convolutional.vq_vae import VQVAEDecoder, VQVAEEncoder
from vq.networks.convolutional.wavelet_cnn import WaveletCNNDecoder, WaveletCNNEncoder
from vq.networks.discriminators.dino import DINODiscriminator
from vq.networks.discriminators.patchgan import PatchDiscriminator
from vq.networks.discriminators.stylegan import StyleGAN2Discriminator
from vq.networks.frozen.efficientnet import EfficientNetLite0
from vq.networks.frozen.features import FeatureNetwork, FeaturePyramid, ImageClassifier
from vq.networks.frozen.inception import InceptionNetwork
from vq.networks.frozen.lpips import LPIPSNetwork
from vq.networks.frozen.timm_classifier import TimmClassifier
from vq.networks.frozen.timm_vit import TimmViTFeatures
from vq.networks.frozen.vgg import VGG16
from vq.networks.teachers.base import Teacher
from vq.networks.teachers.efficientnet import EfficientNetTeacher
from vq.networks.teachers.encoder import TeacherEncoder, TimmEncoder
from vq.networks.teachers.timm import TimmTeacher
from vq.networks.transformers.frequency import FrequencyDecoder, FrequencyEncoder
from vq.networks.transformers.latent_tokens import LatentTokensDecoder, LatentTokensEncoder
from vq.networks.transformers.titok import TiTokCodeDecoder, TiTokDecoder, TiTokEncoder
from vq.networks.transformers.vit import ViTDecoder, ViTEncoder
from vq.networks.transformers.vitamin import ViTaminDecoder, ViTaminEncoder

__all__ = [
    "VGG16",
    "CNNDecoder",
    "CNNEncoder",
    "DINODiscriminator",
    "EfficientNetLite0",
    "EfficientNetTeacher",
    "Emu3Decoder",
    "Emu3Encoder",
    "FeatureNetwork",
    "FeaturePyramid",
    "FrequencyDecoder",
    "FrequencyEncoder",
    "ImageClassifier",
    "InceptionNetwork",
    "LPIPSNetwork",
    "LatentTokensDecoder",
    "LatentTokensEncoder",
    "MaskGITDecoder",
    "MaskGITEncoder",
    "OpenMAGVIT2Decoder",
    "OpenMAGVIT2Encoder",
    "PatchDiscriminator",
    "StridedCNNDecoder",
    "StridedCNNEncoder",
    "StyleGAN2Discriminator",
    "Teacher",
    "TeacherEncoder",
    "TiTokCodeDecoder",
    "TiTokDecoder",
    "TiTokEncoder",
    "TimmClassifier",
    "TimmEncoder",
    "TimmTeacher",
    "TimmViTFeatures",
    "VQVAEDecoder",
    "VQVAEEncoder",
    "ViTDecoder",
    "ViTEncoder",
    "ViTaminDecoder",
    "ViTaminEncoder",
    "WaveletCNNDecoder",
    "WaveletCNNEncoder",
]
