r"""IBQ with 16,384 codes of 256 on ImageNet, f16, 256 px.

Paper:    Shi et al. 2024, https://arxiv.org/abs/2412.02692
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ibq/16384_imagenet_ddp configs/ibq/16384_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import IndexBackpropagationQuantizer

options = dict(codebook_size=16384)
tokenizer = dict(
    quantizer=dict(type=IndexBackpropagationQuantizer, size=options["codebook_size"], dim=256),
)
