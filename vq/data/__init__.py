"""Data sets of images and of tokens, transforms, and the loaders that make batches of them."""

from vq.data.adm import ADMCenterCrop, ADMRandomCrop
from vq.data.base import DataError, ImageDataset, UndecodableImage, UndecodableSetError
from vq.data.decode import read_image
from vq.data.loader import ImageLoader
from vq.data.sample import Batch, Sample, collate
from vq.data.sets.combined import Concatenation
from vq.data.sets.embedded.digits import DigitsDataset
from vq.data.sets.embedded.emoji import EmojiDataset
from vq.data.sets.embedded.photos import PhotoDataset
from vq.data.sets.embedded.procedural import ProceduralDataset
from vq.data.sets.hash_split import HashSplit
from vq.data.sets.image_folder import ImageFolder
from vq.data.sets.published.coco import COCO
from vq.data.sets.published.faces import FFHQ, CelebA, CelebAHQ
from vq.data.sets.published.imagenet import ImageNet
from vq.data.sets.published.laion import LAIONAesthetics
from vq.data.sets.published.sa_med2d import SAMed2D
from vq.data.sets.published.satin import SATIN
from vq.data.sets.published.torchvision_sets import TorchvisionDataset
from vq.data.sets.sharded.hugging_face import HuggingFaceDataset
from vq.data.sets.sharded.parquet import ParquetImages
from vq.data.sets.sharded.webdataset import WebDataset
from vq.data.stores.feature_store import FeatureStore
from vq.data.stores.features import FeatureBatch, FeatureDataset, FeatureLoader
from vq.data.stores.token_store import TokenStore, TokenStoreError
from vq.data.stores.tokens import TokenBatch, TokenDataset, TokenLoader
from vq.data.transforms import (
    Augmentation,
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Transform,
)

__all__ = [
    "COCO",
    "FFHQ",
    "SATIN",
    "ADMCenterCrop",
    "ADMRandomCrop",
    "Augmentation",
    "Batch",
    "CelebA",
    "CelebAHQ",
    "CenterCrop",
    "Concatenation",
    "DataError",
    "DigitsDataset",
    "EmojiDataset",
    "FeatureBatch",
    "FeatureDataset",
    "FeatureLoader",
    "FeatureStore",
    "HashSplit",
    "HuggingFaceDataset",
    "ImageDataset",
    "ImageFolder",
    "ImageLoader",
    "ImageNet",
    "LAIONAesthetics",
    "ParquetImages",
    "PhotoDataset",
    "ProceduralDataset",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "SAMed2D",
    "Sample",
    "TokenBatch",
    "TokenDataset",
    "TokenLoader",
    "TokenStore",
    "TokenStoreError",
    "TorchvisionDataset",
    "Transform",
    "UndecodableImage",
    "UndecodableSetError",
    "WebDataset",
    "collate",
    "read_image",
]
