r"""Gumbel quantization with 8192 codes on ImageNet, f16, 256 px; the temperature falls as in DALL-E.

Paper:    Ramesh et al. 2021, https://arxiv.org/abs/2102.12092, appendix A.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              gumbel/8192_imagenet_ddp configs/gumbel/8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import CosineAnnealing, GumbelQuantizer

options = dict(codebook_size=8192)
tokenizer = dict(quantizer=dict(type=GumbelQuantizer, size=options["codebook_size"], dim=256))
train_step = dict(
    annealing=dict(temperature=dict(type=CosineAnnealing, first=1.0, last=0.0625, steps=150_000)),
)
