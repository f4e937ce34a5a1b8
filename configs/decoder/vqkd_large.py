r"""A transformer of 32 blocks and width 1280 as image decoder for the indices of a frozen tokenizer, 256 px.

It is trained as in VQGAN.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, for the network
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              decoder/vqkd_large/vqkd_clip_8192_imagenet_ddp configs/decoder/vqkd_large.py --config-options \
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

positions = dict(type=LearnedPositions, width=1280, grid=(14, 14), offset=0.1)
tokenizer = dict(
    decoder=dict(
        type=ViTDecoder,
        patches=dict(type=PixelPatches, size=16),
        transformer=dict(type=Transformer, width=1280, depth=32, num_heads=16, positions=positions),
        in_channels=32,
        num_extra_tokens=1,
    ),
)
