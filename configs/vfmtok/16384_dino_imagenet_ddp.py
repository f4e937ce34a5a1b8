r"""DINO ViT-B/16 as encoder, moved at a tenth of the learning rate, 16384 codes of 12, on ImageNet, f16, 256 px.

As configs/vfmtok/16384_dinov2_imagenet_ddp.py, but the encoder is trained too, and its own features as they were
before the training are what the codes have to give besides the pixels.

Paper:    Zheng et al. 2025 (VFMTok), https://arxiv.org/abs/2507.08441, section 3;
          Caron et al. 2021 (DINO), https://arxiv.org/abs/2104.14294
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vfmtok/16384_dino_imagenet_ddp configs/vfmtok/16384_dino_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights dino lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "llamagen/vqgan_imagenet_ddp.py"

from vq.losses import FeatureAlignment
from vq.networks import TimmEncoder, TimmTeacher
from vq.quantizers import KMeansInit, LearnedCodebook

dino = "vit_base_patch16_224.dino"
tokenizer = dict(
    encoder=dict(type=TimmEncoder, name=dino),
    quantizer=dict(
        codebook=dict(type=LearnedCodebook, size=16384, dim=12, init=dict(type=KMeansInit)),
    ),
)
train_step = dict(
    losses=dict(
        dino=dict(
            type=FeatureAlignment,
            teacher=dict(type=TimmTeacher, name=dino),
            source="quantized",
            channels=12,
        ),
    ),
    weights=dict(dino=1.0),
    rates=dict(encoder=0.1),
)
