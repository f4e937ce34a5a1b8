r"""Cluster with 8192 codes of 768 on ImageNet, f16, 256 px, by streaming k-means on features of CLIP ViT-B/16.

Nothing learns by gradient: a code is the mean of all features that have chosen it.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Sculley 2010, https://doi.org/10.1145/1772690.1772862
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cluster/clip_8192_kmeans_imagenet_ddp configs/cluster/clip_8192_kmeans_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights clip
"""

_base_ = "clip_8192_imagenet_ddp.py"

from vq.quantizers import EuclideanDistance, KMeansInit, MiniBatchKMeansCodebook, ReplaceDeadCodes

options = dict(max_steps=20_000, codebook_size=8192)
tokenizer = dict(
    quantizer=dict(
        codebook=dict(
            type=MiniBatchKMeansCodebook,
            size=options["codebook_size"],
            dim=768,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        distance=dict(type=EuclideanDistance),
    ),
)
train_step = dict(optimizer=None)
