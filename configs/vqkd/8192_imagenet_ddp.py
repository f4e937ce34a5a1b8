r"""VQ-KD with 8192 unit codes of 32 on ImageNet: `vqkd/clip_8192_imagenet_ddp` under a shorter name.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/8192_imagenet_ddp configs/vqkd/8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights clip
"""

_base_ = "clip_8192_imagenet_ddp.py"
