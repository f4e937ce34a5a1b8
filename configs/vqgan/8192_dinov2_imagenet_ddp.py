r"""VQGAN with 8192 codes on ImageNet, f16, 256 px, whose codes also predict the features of DINOv2 ViT-B/14.

The teacher sees the images at 224 px, so that each of its patches belongs to one token. A 1x1 convolution from the
quantized vectors to its features is trained too; it is not needed after the training.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841;
          Li et al. 2024 (XQ-GAN), https://arxiv.org/abs/2412.01762, for the weight 0.1 of the features
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_dinov2_imagenet_ddp configs/vqgan/8192_dinov2_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights dinov2 lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.losses import FeatureAlignment
from vq.networks import TimmTeacher

teacher = dict(type=TimmTeacher, name="vit_base_patch14_reg4_dinov2.lvd142m", image_size=224)
train_step = dict(
    losses=dict(dinov2=dict(type=FeatureAlignment, teacher=teacher, source="quantized", channels=256)),
    weights=dict(dinov2=0.1),
)
