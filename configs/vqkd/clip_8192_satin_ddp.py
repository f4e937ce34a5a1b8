r"""VQ-KD with 8192 unit codes of 32 on SATIN (satellite images), f16, 224 px; the teacher is CLIP ViT-B/16.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/clip_8192_satin_ddp configs/vqkd/clip_8192_satin_ddp.py
Expected: not yet run
Needs:    data/satin/<sub-set>/*.parquet (or option root); pip install -e '.[data,teachers]'; vq weights clip
"""

_base_ = "clip_8192_imagenet_ddp.py"

from vq.data import SATIN

options = dict(root=None)  # the folder of the data
train_data = dict(dataset=dict(type=SATIN, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SATIN, root=options["root"], split="val"))
