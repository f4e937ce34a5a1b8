r"""VQ-KD with 8192 unit codes of 32 on ImageNet, f16, 224 px; the teacher is MAE ViT-B/16.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2;
          He et al. 2021 (MAE), https://arxiv.org/abs/2111.06377
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/mae_8192_imagenet_ddp configs/vqkd/mae_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights mae
"""

_base_ = "clip_8192_imagenet_ddp.py"

options = dict(
    teacher="vit_base_patch16_224.mae",
    with_projection=False,
    teacher_channels=768,
)
