"""Linear probe: the category of an emoji, from the mean of the code vectors of its 64 tokens.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406; He et al. 2022, https://arxiv.org/abs/2111.06377
          (the probe); You et al. 2017, https://arxiv.org/abs/1708.03888 (LARS)
Command:  python -m vq.train fsq/1000_emoji configs/fsq/1000_emoji.py
          python -m vq.train probe/emoji configs/probe/emoji.py
          (another tokenizer: --config-options it_state_dict::RUN_OR_FILE; from the stores of python -m vq.tokenize
          fsq/1000_emoji [--train], which is faster: tokens::work_dirs/fsq/1000_emoji/tokens)
Expected: top-1 62.4 %, class_mean_top1 19.4 % (measured here: 500 steps, seed 3407, 2026-11-28, 2 min on 1 thread of
          a CPU that other programs use too); ema/256_emoji of 500 steps reaches 63.7 % and 20.5 %, and pixels reach
          67.0 % and 24.4 % (500 steps, seeds 0 to 2, benchmarks/results/2026-11-27_2cores_probe_emoji.json)
"""

from vq.data import EmojiDataset, ImageLoader, Resize, TokenDataset, TokenLoader
from vq.engine import Checkpointer, ProbeEvaluator, ProbeStep, Trainer, WarmupCosine
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledCodes
from vq.tokenizers import pretrained_tokenizer

options = dict(
    max_steps=500,
    it_state_dict="work_dirs/fsq/1000_emoji",
    it_config=None,  # the page of the tokenizer; None takes that inside its weight file
    tokens=None,  # a folder with the token stores train and val; None reads images
)
tokens = options["tokens"]

if tokens:
    train_data = dict(
        type=TokenLoader, dataset=dict(type=TokenDataset, root=tokens + "/train"), batch_size=256
    )
    val_data = dict(
        type=TokenLoader, dataset=dict(type=TokenDataset, root=tokens + "/val"), batch_size=256, shuffle=False
    )
else:
    train_data = dict(
        type=ImageLoader,
        dataset=dict(type=EmojiDataset, split="train"),
        transforms=[dict(type=Resize, size=64)],
        batch_size=256,
    )
    val_data = dict(
        type=ImageLoader,
        dataset=dict(type=EmojiDataset, split="val"),
        transforms=[dict(type=Resize, size=64)],
        batch_size=256,
        shuffle=False,
    )

tokenizer = dict(type=pretrained_tokenizer, weights=[options["it_state_dict"]], config=options["it_config"])
probe = dict(type=LinearProbe, features=dict(type=PooledCodes), num_classes=10)

train_step = dict(type=ProbeStep, optimizer=dict(type=LARS, lr=1.6), schedule=dict(type=WarmupCosine))
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(type=ProbeEvaluator, every=250)
checkpointer = dict(type=Checkpointer, every=250, keep=2)
