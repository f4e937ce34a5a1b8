r"""Simple FSQ with 8 x 8 x 8 x 5 x 5 x 5 = 64000 codes in [0, 1] on ImageNet, f8, 128 px.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              sfsq/64000_128px_imagenet_ddp configs/sfsq/64000_128px_imagenet_ddp.py
Expected: not yet run (published: FID 25.51, L1 0.1834, LPIPS 0.1796, usage 0.9992; not comparable with vq.val, for the
          reasons in configs/fsq/240_128px_imagenet_ddp.py)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid configs/sfsq/64000_128px_imagenet_ddp.py (the FID's reference)
"""

_base_ = "fsq/240_128px_imagenet_ddp.py"

from vq.quantizers import SimpleFiniteScalarQuantizer

options = dict(levels=[8, 8, 8, 5, 5, 5])
tokenizer = dict(quantizer=dict(type=SimpleFiniteScalarQuantizer, levels=options["levels"]))
