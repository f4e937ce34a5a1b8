r"""VQ-KD with 16384 unit codes of 32 on ImageNet, f16, 224 px; the teacher is a ViT-B/16 classifier.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2;
          Dosovitskiy et al. 2020 (ViT), https://arxiv.org/abs/2010.11929
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/vit_16384_imagenet_ddp configs/vqkd/vit_16384_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights vit
"""

_base_ = "clip_8192_imagenet_ddp.py"

options = dict(
    codebook_size=16_384,
    teacher="vit_base_patch16_224",
    with_projection=False,
    teacher_channels=768,
)
