r"""VQ-KD with 8192 unit codes of 32 on ImageNet, f16, 224 px; the teacher is ConvNeXt-B.

ConvNeXt has a feature for every 32 pixels. The 7 x 7 features are interpolated to the 14 x 14 tokens.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2;
          Liu et al. 2022 (ConvNeXt), https://arxiv.org/abs/2201.03545
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/convnext_8192_imagenet_ddp configs/vqkd/convnext_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights convnext
"""

_base_ = "clip_8192_imagenet_ddp.py"

options = dict(
    teacher="convnext_base",
    with_projection=False,
    teacher_channels=1024,
)
