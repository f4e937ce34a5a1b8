r"""FSQ with 8 x 8 x 8 x 5 x 5 x 5 = 64000 codes on ImageNet, f16, 256 px.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              fsq/64000_imagenet_ddp configs/fsq/64000_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import FiniteScalarQuantizer

options = dict(codebook_size=64000)
tokenizer = dict(quantizer=dict(type=FiniteScalarQuantizer, levels=[8, 8, 8, 5, 5, 5]))
