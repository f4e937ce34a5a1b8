r"""VQGAN with 8192 codes and the discriminator of StyleGAN2, f16, 256 px.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841;
          Karras et al. 2020, https://arxiv.org/abs/1912.04958
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_stylegan2_imagenet_ddp configs/vqgan/8192_stylegan2_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

from vq.networks import StyleGAN2Discriminator

options = dict(image_size=256)
train_step = dict(
    adversary=dict(discriminator=dict(type=StyleGAN2Discriminator, image_size=options["image_size"])),
)
