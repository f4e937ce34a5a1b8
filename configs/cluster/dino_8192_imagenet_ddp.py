r"""Cluster with 8192 codes of 768 on ImageNet, f16, 256 px: clusters of the patch features of DINO ViT-B/16.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Caron et al. 2021 (DINO), https://arxiv.org/abs/2104.14294
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cluster/dino_8192_imagenet_ddp configs/cluster/dino_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights dino
"""

_base_ = "clip_8192_imagenet_ddp.py"

tokenizer = dict(encoder=dict(teacher=dict(name="vit_base_patch16_224.dino")))
