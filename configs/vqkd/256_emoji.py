"""VQ-KD with 256 codes on 64 px emoji, f8: the tokens describe what EfficientNet-Lite0 sees, not pixels.

A small transformer encodes the image, and one more block predicts the teacher's features from the codes. The weights
of the teacher come with a package. configs/decoder/emoji.py trains a decoder that turns the tokens into images.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  python -m vq.train vqkd/256_emoji configs/vqkd/256_emoji.py
Expected: the cosine loss falls from 0.98 to 0.32; validation: cosine loss 0.333, codebook usage 100 %, perplexity 173
          (measured here: 600 steps, seed 3407, 1 thread; about 6 minutes of one core)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.losses import FeatureAlignment
from vq.metrics import CodebookUsage, Perplexity, QuantizationError, TeacherCosine
from vq.networks import EfficientNetTeacher, ViTDecoder, ViTEncoder
from vq.quantizers import CosineDistance, KMeansInit, ReplaceDeadCodes, SphericalEMACodebook, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

options = dict(max_steps=600, codebook_size=256, teacher_size=128)
codebook_size, codebook_dim = options["codebook_size"], 16
teacher = dict(type=EfficientNetTeacher, image_size=options["teacher_size"])  # f16: 8 x 8 features
transformer = dict(type=Transformer, width=128, num_heads=4, positions=dict(type=RotaryPositions))

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
    encoder=dict(
        type=ViTEncoder,
        patches=dict(type=PixelPatches, size=8),  # 64 x 64 pixels become 8 x 8 indices
        transformer=dict(depth=4, **transformer),
        out_channels=codebook_dim,
    ),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=SphericalEMACodebook,
            size=codebook_size,
            dim=codebook_dim,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=1.0,
        distance=dict(type=CosineDistance),
    ),
    decoder=dict(
        type=ViTDecoder,
        patches=dict(type=PixelPatches, size=1, channels=112),
        transformer=dict(depth=1, **transformer),
        in_channels=codebook_dim,
    ),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(cosine=dict(type=FeatureAlignment, teacher=teacher, source="reconstruction")),
    weights=dict(cosine=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
    decay="matrices",
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=300,
    metrics=[
        dict(type=TeacherCosine, teacher=teacher),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
        dict(type=QuantizationError, codebook_dim=codebook_dim),
    ],
)
checkpointer = dict(type=Checkpointer, every=300, keep=3)
