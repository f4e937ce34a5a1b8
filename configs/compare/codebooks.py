r"""The codebook: its dimension, size, initialization, revival and estimator, and the weight of the commitment.

One factor at a time around 256 codes of 16 numbers, on emoji (32 px), photographs or digits, f4.

Command:  python -m vq.compare configs/compare/codebooks.py
          python -m vq.compare configs/compare/codebooks.py --config-options data::photos --name codebooks_photos \
              --only baseline dim_2 dim_4 dim_8 dim_32 dim_64
          python -m vq.compare configs/compare/codebooks.py --config-options data::digits --name codebooks_digits \
              --only baseline dim_2 dim_4 dim_8 dim_32 dim_64
Expected: emoji 20.6 dB; uniform start without revival -2.2 +- 0.4 dB and 15 % usage, k-means without revival
          -0.4 +- 0.1 dB and 70 %; two dimensions -0.7 +- 0.4 dB on emoji, +0.5 +- 0.5 dB on photographs, and a tie
          on digits; all rows in experiments/codebooks, codebooks_photos and codebooks_digits
          (measured here, 2026-11-28, seeds 0 to 2)
"""

_base_ = "recipes/emoji.py"

from vq.data import DigitsDataset, PhotoDataset
from vq.engine import Comparison
from vq.quantizers import (
    DataMomentsInit,
    EMACodebook,
    KMeansInit,
    LearnedCodebook,
    ReplaceDeadCodes,
    ReplaceUnusedCodes,
    RotationTrick,
    Synchronised,
    UniformInit,
    VectorQuantizer,
)

options = dict(data="emoji")
sets = dict(
    emoji=[dict(), dict()],  # those of the base page
    photos=[dict(dataset=dict(type=PhotoDataset, split=split, crop_size=32)) for split in ("train", "val")],
    digits=[dict(dataset=dict(type=DigitsDataset, split=split)) for split in ("train", "val")],
)
train_data, val_data = sets[options["data"]]
start, revival = dict(type=KMeansInit), dict(type=ReplaceDeadCodes)


def vq(type=LearnedCodebook, size=256, dim=16, init=start, revival=revival, **changes):
    """A contestant with another quantizer."""
    codebook = dict(type=type, size=size, dim=dim, init=init, revival=revival)
    return dict(tokenizer=dict(quantizer=dict(type=VectorQuantizer, codebook=codebook, **changes)))


contestants = dict(
    baseline=vq(),
    dim_2=vq(dim=2),
    dim_4=vq(dim=4),
    dim_8=vq(dim=8),
    dim_32=vq(dim=32),
    dim_64=vq(dim=64),
    size_64=vq(size=64),
    size_1024=vq(size=1024),
    commitment_0=vq(commitment_weight=0.0),
    commitment_1=vq(commitment_weight=1.0),
    ema=vq(type=EMACodebook),
    uniform=vq(init=dict(type=UniformInit)),
    moments=vq(init=dict(type=DataMomentsInit)),
    no_revival=vq(revival=None),
    uniform_no_revival=vq(init=dict(type=UniformInit), revival=None),
    unused_codes=vq(revival=dict(type=ReplaceUnusedCodes)),
    rotation=vq(estimator=dict(type=RotationTrick)),
    synchronised=vq(estimator=dict(type=Synchronised)),
)
comparison = dict(
    type=Comparison,
    question=f"Which dimension, size, initialization, revival and estimator suit {options['data']}?",
    baseline="baseline",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
