r"""Cluster with 8192 codes of 768 on ImageNet, f16, 256 px: clusters of the patch features of a ViT-B/16 classifier.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Dosovitskiy et al. 2020 (ViT), https://arxiv.org/abs/2010.11929
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cluster/vit_8192_imagenet_ddp configs/cluster/vit_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights vit
"""

_base_ = "clip_8192_imagenet_ddp.py"

tokenizer = dict(encoder=dict(teacher=dict(name="vit_base_patch16_224")))
