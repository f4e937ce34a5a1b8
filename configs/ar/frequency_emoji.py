"""Category to emoji, frequency after frequency: a small GPT-2 over the 64 tokens of configs/frequency/1024_emoji.py.

The tokenizer's encoder lays its frequencies out in zigzag order, row by row from low to high; so the order "raster" of
the generator is the zigzag order over frequencies, and "zigzag" would be neither. (It is for tokenizers whose grid is
the spectrum itself.) Places in a row are no neighbours, hence learned positions instead of rotary ones.

Paper:    development log of vector_quants (FreqTransformer); Radford et al. 2019 (GPT-2)
Command:  python -m vq.train frequency/1024_emoji configs/frequency/1024_emoji.py
          python -m vq.tokenize frequency/1024_emoji --train
          python -m vq.tokenize frequency/1024_emoji
          python -m vq.train ar/frequency_emoji configs/ar/frequency_emoji.py
          python -m vq.generate ar/frequency_emoji --num-per-class 10
Expected: not yet run
"""

from torch.optim import AdamW

from vq.data import TokenDataset, TokenLoader
from vq.engine import Checkpointer, ProposalEvaluator, ProposalStep, Trainer, WarmupCosine
from vq.generators import DecoderTransformer, GPT2Style, TransformerGenerator
from vq.tokenizers import pretrained_tokenizer

options = dict(max_steps=3000, it_state_dict="work_dirs/frequency/1024_emoji")
tokens = options["it_state_dict"] + "/tokens"

train_data = dict(
    type=TokenLoader,
    dataset=dict(type=TokenDataset, root=tokens + "/train"),
    batch_size=64,
    balance_classes=True,
)
val_data = dict(
    type=TokenLoader, dataset=dict(type=TokenDataset, root=tokens + "/val"), batch_size=64, shuffle=False
)

tokenizer = dict(type=pretrained_tokenizer, weights=[options["it_state_dict"]])
generator = dict(
    type=TransformerGenerator,
    transformer=dict(
        type=DecoderTransformer, width=192, depth=6, num_heads=6, style=dict(type=GPT2Style), dropout=0.1
    ),
    vocabulary_size=1024,
    num_classes=10,
    grid=(8, 8),
    order="raster",  # from low to high frequency: see above
    class_dropout=0.1,
)

train_step = dict(
    type=ProposalStep,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
    schedule=dict(type=WarmupCosine, warmup_steps=100, final_factor=0.02),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(type=ProposalEvaluator, every=500, sampling=dict(guidance=2.0, top_k=100))
checkpointer = dict(type=Checkpointer, every=500, keep=2)
