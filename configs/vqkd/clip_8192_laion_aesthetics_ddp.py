r"""VQ-KD with 8192 unit codes of 32 on LAION-Aesthetics, f16, 224 px; the teacher is CLIP ViT-B/16.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/clip_8192_laion_aesthetics_ddp configs/vqkd/clip_8192_laion_aesthetics_ddp.py
Expected: not yet run
Needs:    data/laion_aesthetics/, the output of img2dataset (or option root);
          pip install -e '.[teachers]'; vq weights clip
"""

_base_ = "clip_8192_imagenet_ddp.py"

from vq.data import LAIONAesthetics

options = dict(root=None)  # the folder of the data
train_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=LAIONAesthetics, root=options["root"], split="val"))
