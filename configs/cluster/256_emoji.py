"""Streaming k-means with 256 codes on features of EfficientNet-Lite0, for 64 px emoji, f8.

Nothing learns by gradient: a code is the mean of all features that have chosen it. The weights of the teacher come
with a package. configs/decoder/emoji.py trains a decoder that turns the tokens into images.

Paper:    Wang et al. 2024 (Cluster), https://arxiv.org/abs/2411.04406;
          Sculley 2010, https://doi.org/10.1145/1772690.1772862
Command:  python -m vq.train cluster/256_emoji configs/cluster/256_emoji.py
Expected: quantization error 2752, 0.584 of the variance; codebook usage 97 %, perplexity 183
          (measured here: 600 steps, seed 3407, 1 thread)
"""

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer
from vq.metrics import CodebookUsage, Perplexity, QuantizationError
from vq.networks import EfficientNetTeacher, TeacherEncoder
from vq.quantizers import KMeansInit, MiniBatchKMeansCodebook, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

options = dict(max_steps=600, codebook_size=256)
codebook_size, codebook_dim = options["codebook_size"], 112

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="train"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=32,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=EmojiDataset, split="val"),
    transforms=[dict(type=Resize, size=64)],
    batch_size=32,
    shuffle=False,
)

tokenizer = dict(
    type=FeatureTokenizer,
    # The teacher is f16 and sees the images at 128 px: 8 x 8 features of 112 channels.
    encoder=dict(type=TeacherEncoder, teacher=dict(type=EfficientNetTeacher), downsample_factor=8),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=MiniBatchKMeansCodebook,
            size=codebook_size,
            dim=codebook_dim,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=0.0,  # nothing could move towards the codes
    ),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(),
    weights=dict(quantizer=1.0),
    optimizer=None,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=300,
    metrics=[
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
        dict(type=QuantizationError, codebook_dim=codebook_dim),
    ],
)
checkpointer = dict(type=Checkpointer, every=300, keep=3)
