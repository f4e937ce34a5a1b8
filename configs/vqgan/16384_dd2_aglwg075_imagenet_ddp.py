r"""VQGAN with 16384 codes in the recipe of the published 16384: discriminator depth 2, adaptive weight gain 0.75.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/16384_dd2_aglwg075_imagenet_ddp configs/vqgan/16384_dd2_aglwg075_imagenet_ddp.py
Expected: not yet run (published weights: rFID 4.98, LPIPS 0.283, PSNR 19.97, codebook usage 5.9 %)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

options = dict(codebook_size=16384)
train_step = dict(
    weights=dict(adversarial=0.75),
    adversary=dict(discriminator=dict(depth=2)),
)
