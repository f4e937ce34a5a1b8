r"""LlamaGen's tokenizer with 128 unit codes of 16 on ImageNet, f8, 256 px.

Paper:    Sun et al. 2024 (LlamaGen), https://arxiv.org/abs/2406.06525
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              llamagen/vqgan_f8_128x16_imagenet_ddp configs/llamagen/vqgan_f8_128x16_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan_imagenet_ddp.py"

options = dict(codebook_size=128)
f8 = dict(multipliers=(1, 2, 2, 4))
tokenizer = dict(encoder=f8, decoder=f8, quantizer=dict(codebook=dict(dim=16)))
