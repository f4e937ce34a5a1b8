r"""LlamaGen's tokenizer with 128 unit codes of 8 on ImageNet, f16, 384 px.

Paper:    Sun et al. 2024 (LlamaGen), https://arxiv.org/abs/2406.06525
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              llamagen/vqgan_128x8_384_imagenet_ddp configs/llamagen/vqgan_128x8_384_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan_imagenet_ddp.py"

options = dict(image_size=384, codebook_size=128)
