r"""VQ-KD with 8192 unit codes of 32 on ImageNet, f16, 224 px; the teacher is DINO ViT-B/16.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2;
          Caron et al. 2021 (DINO), https://arxiv.org/abs/2104.14294
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/dino_8192_imagenet_ddp configs/vqkd/dino_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights dino
"""

_base_ = "clip_8192_imagenet_ddp.py"

options = dict(
    teacher="vit_base_patch16_224.dino",
    with_projection=False,
    teacher_channels=768,
)
