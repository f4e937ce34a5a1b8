r"""VQ with 1024 EMA codes on ImageNet, f8, 128 px, without a discriminator: the EMA row beside the FSQ pages.

It has k-means initialization and revival of dead codes, without which `configs/compare/collapse.py` shows how it fails.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ema/1024_128px_imagenet_ddp configs/ema/1024_128px_imagenet_ddp.py
Expected: not yet run (published, of a run that had collapsed: FID 88.68, L1 0.3528, LPIPS 0.3592, usage 0.0006; not
          comparable with vq.val, for the reasons in configs/fsq/240_128px_imagenet_ddp.py)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid configs/ema/1024_128px_imagenet_ddp.py (the FID's reference)
"""

_base_ = "fsq/240_128px_imagenet_ddp.py"

from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, VectorQuantizer

options = dict(levels=[1024])  # the codes are not a product of levels
codebook = dict(
    type=EMACodebook,
    size=options["levels"][0],
    dim=64,
    init=dict(type=KMeansInit),
    revival=dict(type=ReplaceDeadCodes),
)
tokenizer = dict(quantizer=dict(type=VectorQuantizer, codebook=codebook))
