r"""FSQ with 8 x 8 x 8 x 5 x 5 x 5 = 64000 codes on ImageNet, f8, 128 px, without a discriminator.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              fsq/64000_128px_imagenet_ddp configs/fsq/64000_128px_imagenet_ddp.py
Expected: not yet run (published: FID 24.81, L1 0.1812, LPIPS 0.1758, usage 0.9987; not comparable with vq.val, for the
          reasons in configs/fsq/240_128px_imagenet_ddp.py)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid configs/fsq/64000_128px_imagenet_ddp.py (the FID's reference)
"""

_base_ = "240_128px_imagenet_ddp.py"

options = dict(levels=[8, 8, 8, 5, 5, 5])
