r"""VQ-KD with 8192 unit codes of 32 on SA-Med2D-20M (medical images), f16, 224 px; the teacher is CLIP ViT-B/16.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/clip_8192_sa_med2d_20m_ddp configs/vqkd/clip_8192_sa_med2d_20m_ddp.py
Expected: not yet run
Needs:    data/sa_med2d_20m/SAMed2Dv1/, the unpacked archive (or option root);
          pip install -e '.[teachers]'; vq weights clip
"""

_base_ = "clip_8192_imagenet_ddp.py"

from vq.data import SAMed2D

options = dict(root=None)  # the folder of the data
train_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="train"))
val_data = dict(dataset=dict(type=SAMed2D, root=options["root"], split="val"))
