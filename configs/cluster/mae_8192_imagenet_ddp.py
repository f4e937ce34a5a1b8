r"""Cluster with 8192 codes of 768 on ImageNet, f16, 256 px: clusters of the patch features of MAE ViT-B/16.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          He et al. 2021 (MAE), https://arxiv.org/abs/2111.06377
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cluster/mae_8192_imagenet_ddp configs/cluster/mae_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights mae
"""

_base_ = "clip_8192_imagenet_ddp.py"

tokenizer = dict(encoder=dict(teacher=dict(name="vit_base_patch16_224.mae")))
