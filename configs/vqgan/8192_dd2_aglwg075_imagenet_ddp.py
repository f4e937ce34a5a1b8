r"""VQGAN with 8192 codes in the recipe of the published 16384: discriminator depth 2, adaptive weight gain 0.75.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqgan/8192_dd2_aglwg075_imagenet_ddp configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "8192_imagenet_ddp.py"

train_step = dict(
    weights=dict(adversarial=0.75),
    adversary=dict(discriminator=dict(depth=2)),
)
