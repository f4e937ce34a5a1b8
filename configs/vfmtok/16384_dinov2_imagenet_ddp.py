r"""A frozen DINOv2 ViT-B/14 as encoder, 16384 codes of 12, on ImageNet, f16, 256 px, in the manner of VFMTok.

Only a 1x1 convolution, the codebook and the decoder are trained. The codes have to give the pixels as well as the
features of the encoder. VFMTok itself gathers the features of several layers in regions of learned shape, at 336 px.

Paper:    Zheng et al. 2025 (VFMTok), https://arxiv.org/abs/2507.08441, section 3
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vfmtok/16384_dinov2_imagenet_ddp configs/vfmtok/16384_dinov2_imagenet_ddp.py
Expected: not yet run (published for VFMTok, which is larger: rFID 0.89)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights dinov2 lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "llamagen/vqgan_imagenet_ddp.py"

from vq.losses import FeatureAlignment
from vq.networks import TeacherEncoder, TimmTeacher
from vq.quantizers import KMeansInit, LearnedCodebook

dinov2 = dict(type=TimmTeacher, name="vit_base_patch14_reg4_dinov2.lvd142m")
tokenizer = dict(
    encoder=dict(
        type=TeacherEncoder, teacher=dinov2, downsample_factor=16
    ),  # which shows it the images at 224 px
    quantizer=dict(
        codebook=dict(type=LearnedCodebook, size=16384, dim=12, init=dict(type=KMeansInit)),
    ),
)
train_step = dict(
    losses=dict(
        dinov2=dict(
            type=FeatureAlignment, teacher=dict(image_size=224, **dinov2), source="quantized", channels=12
        ),
    ),
    weights=dict(dinov2=1.0),
)
