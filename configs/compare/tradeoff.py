"""Tokens against bits: one network family at f4, f8, f16 and f32, at equal bits per image and at equal bits per token.

All quantizers are FSQ, which uses its codes whatever their number, so that the tokenizers differ only in how they
divide the bits: 2.6 bits in each of 256 tokens, 10 in 64, 40 in 16, or 160 in 4; then 10 bits in each token. Two
transformers are added, whose one-dimensional tokens each see the whole image.

Command:  python -m vq.compare configs/compare/tradeoff.py
          python -m vq.compare configs/compare/tradeoff.py --config-options data::emoji --name tradeoff_emoji
Expected: docs/training.md (measured here: photographs with three seeds, emoji with one)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, PhotoDataset, Resize
from vq.engine import Checkpointer, Comparison, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.losses import MSELoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.networks import LatentTokensDecoder, LatentTokensEncoder, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer, ProductQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(data="photos", image_size=64, max_steps=600)
sets = dict(
    emoji=[dict(type=EmojiDataset, split=split) for split in ("train", "val")],
    photos=[
        dict(type=PhotoDataset, split=split, crop_size=options["image_size"]) for split in ("train", "val")
    ],
)
train_set, val_set = sets[options["data"]]
resize = dict(type=Resize, size=options["image_size"])
widths = dict(f4=(64, 128), f8=(32, 64, 128), f16=(32, 64, 128, 128), f32=(32, 64, 128, 128, 128))
encoders = {f: dict(type=StridedCNNEncoder, widths=w, num_blocks=1) for f, w in widths.items()}
decoders = {f: dict(type=StridedCNNDecoder, widths=w, num_blocks=1) for f, w in widths.items()}
ten_bits = dict(type=FiniteScalarQuantizer, levels=(8, 5, 5, 5))
quantizers = dict(
    f4_661_bits=("f4", dict(type=FiniteScalarQuantizer, levels=(6,))),
    f8_638_bits=("f8", ten_bits),
    f16_638_bits=("f16", dict(type=ProductQuantizer, quantizers=[ten_bits] * 4)),
    f32_638_bits=("f32", dict(type=ProductQuantizer, quantizers=[ten_bits] * 16)),
    f4_2551_bits=("f4", ten_bits),
    f16_159_bits=("f16", ten_bits),
    f32_40_bits=("f32", ten_bits),
)
tokenizers = {
    name: dict(type=ImageTokenizer, encoder=encoders[f], quantizer=quantizer, decoder=decoders[f])
    for name, (f, quantizer) in quantizers.items()
}
patches = dict(type=PixelPatches, size=8)
transformer = dict(type=Transformer, width=128, depth=4, num_heads=4, positions=dict(type=RotaryPositions))
sequence = dict(patches=patches, transformer=transformer)
for name, num_latents in dict(latent_638_bits=64, latent_159_bits=16).items():
    tokenizers[name] = dict(
        type=ImageTokenizer,
        encoder=dict(type=LatentTokensEncoder, num_latents=num_latents, **sequence),
        quantizer=ten_bits,
        decoder=dict(
            type=LatentTokensDecoder, num_latents=num_latents, image_size=options["image_size"], **sequence
        ),
    )

train_data = dict(type=ImageLoader, dataset=train_set, transforms=[resize], batch_size=32)
val_data = dict(type=ImageLoader, dataset=val_set, transforms=[resize], batch_size=32, shuffle=False)
tokenizer = tokenizers["f8_638_bits"]
contestants = {name: dict(tokenizer=tokenizer) for name, tokenizer in tokenizers.items()}
comparison = dict(
    type=Comparison,
    seeds=(0, 1, 2),
    baseline="f8_638_bits",
    question=f"How many tokens for how many bits ({options['data']})?",
    cpu_hours=3.0,
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss)),
    weights=dict(mse=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=20, final_factor=0.02),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"])
evaluator = dict(
    type=Evaluator,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=CodebookUsage, codebook_size=1000),  # vq.compare sets the size of each contestant
        dict(type=Perplexity, codebook_size=1000),
    ],
)
checkpointer = dict(type=Checkpointer, every=200)
