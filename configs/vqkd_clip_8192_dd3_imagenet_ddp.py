r"""VQ-KD with 8192 unit codes of 32 on ImageNet and a decoder of 3 blocks; the teacher is CLIP ViT-B/16.

BEiT v2 has published such a tokenizer (vqkd_encoder_base_decoder_3x768x12_clip). In the names of other pages, `dd` is
the depth of the discriminator; VQ-KD has none, so here it is that of the decoder. A checkpoint of
`vqkd/clip_8192_imagenet_ddp`, whose decoder has 1 block, does not fit this page.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd_clip_8192_dd3_imagenet_ddp configs/vqkd_clip_8192_dd3_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights clip
"""

_base_ = "vqkd/clip_8192_imagenet_ddp.py"

tokenizer = dict(decoder=dict(transformer=dict(depth=3)))
