r"""LFQ with 10 bits (1024 codes) on ImageNet, f8, 128 px, without a discriminator: the LFQ row beside the FSQ pages.

Paper:    Yu et al. 2024 (MAGVIT-v2), https://arxiv.org/abs/2310.05737
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              lfq/1024_128px_imagenet_ddp configs/lfq/1024_128px_imagenet_ddp.py
Expected: not yet run (published, of a run without entropy and commitment terms, which had collapsed: FID 229.38,
          L1 0.6472, LPIPS 0.5462, usage 0.0002; not comparable with vq.val, for the reasons in
          configs/fsq/240_128px_imagenet_ddp.py)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid configs/lfq/1024_128px_imagenet_ddp.py (the FID's reference)
"""

_base_ = "fsq/240_128px_imagenet_ddp.py"

from vq.quantizers import LookupFreeQuantizer

options = dict(levels=[2] * 10)
tokenizer = dict(quantizer=dict(type=LookupFreeQuantizer, bits=len(options["levels"])))
