r"""VQ-KD with 8192 unit codes of 32 on ImageNet, f16, 224 px; the teacher is OpenCLIP ViT-bigG/14.

The teacher sees the images at 196 px, so that each of its patches of 14 px belongs to one token.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2;
          Cherti et al. 2022 (OpenCLIP), https://arxiv.org/abs/2212.07143
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/openclip_bigG_14_8192_imagenet_ddp configs/vqkd/openclip_bigG_14_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights openclip
"""

_base_ = "clip_8192_imagenet_ddp.py"

options = dict(
    teacher="vit_gigantic_patch14_clip_224.laion2b",
    teacher_channels=1280,
    teacher_size=196,
)
