r"""A ViT-B/16 as image decoder for the indices of a frozen tokenizer, trained as in VQGAN, on ImageNet, 256 px.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, for the network
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              decoder/vqkd/vqkd_clip_8192_imagenet_ddp configs/decoder/vqkd.py --config-options \
              it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
              it_state_dict::work_dirs/vqkd/clip_8192_imagenet_ddp
          (or --load-model-from work_dirs/vqkd/clip_8192_imagenet_ddp in place of it_state_dict)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan.py"

from vq.layers import LearnedPositions, PixelPatches, Transformer
from vq.networks import ViTDecoder

positions = dict(type=LearnedPositions, width=768, grid=(14, 14), offset=0.1)
tokenizer = dict(
    decoder=dict(
        type=ViTDecoder,
        patches=dict(type=PixelPatches, size=16),
        transformer=dict(type=Transformer, width=768, depth=12, num_heads=12, positions=positions),
        in_channels=32,
        num_extra_tokens=1,
    ),
)
