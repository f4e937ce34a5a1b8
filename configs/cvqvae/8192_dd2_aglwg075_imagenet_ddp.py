r"""CVQ-VAE with 8192 codes on ImageNet: unused codes move to the nearest vectors; cosine distance.

Paper:    Zheng and Vedaldi 2023, https://arxiv.org/abs/2307.15139
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cvqvae/8192_dd2_aglwg075_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)

The reference implementation's config of this name asks for the cosine distance but uses the Euclidean one. This page
uses the cosine distance.
"""

_base_ = "vqgan/8192_imagenet_ddp.py"

from vq.quantizers import ClusteredCodebook, CosineDistance

options = dict(codebook_size=8192)
codebook = dict(type=ClusteredCodebook, size=options["codebook_size"], dim=256, decay=0.99, anchor="closest")
tokenizer = dict(quantizer=dict(codebook=codebook, distance=dict(type=CosineDistance)))
train_step = dict(
    weights=dict(adversarial=0.75),
    adversary=dict(discriminator=dict(depth=2)),
)
