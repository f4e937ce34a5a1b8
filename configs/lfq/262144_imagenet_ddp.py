r"""LFQ with 18 bits (262,144 codes) on ImageNet, f16, 256 px.

Paper:    Yu et al. 2024 (MAGVIT-v2), https://arxiv.org/abs/2310.05737
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              lfq/262144_imagenet_ddp configs/lfq/262144_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import LookupFreeQuantizer

options = dict(codebook_size=262144)
tokenizer = dict(quantizer=dict(type=LookupFreeQuantizer, bits=18))
