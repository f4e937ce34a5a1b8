"""Class to image for a tokenizer of your own folder of images: a small Llama over its tokens; docs/own_pictures.md.

The classes are the subfolders of the images; without any there is one class. Their number, the grid of indices and the
number of codes are those of the token store and its tokenizer.

Paper:    Touvron et al. 2023, https://arxiv.org/abs/2302.13971; sizes and guidance as in https://arxiv.org/abs/2406.06525
Command:  vq tokenize mine --train
          vq tokenize mine
          vq train mine_llama ar/llama_folder --config-options tokenizer::work_dirs/mine
          vq generate mine_llama --num 16
          (the page is configs/ar/llama_folder.py)
Expected: training loss 0.064, accuracy 98 %; validation loss 10.6: it memorises its 171 images
          (measured here: 1,000 steps, 1 thread, on the set of docs/own_pictures.md; 4 minutes of CPU time)
Needs:    a tokenizer that was trained on a folder of images, in the run `mine`
"""

from torch.optim import AdamW

from vq.data import TokenDataset, TokenLoader
from vq.engine import Checkpointer, ProposalEvaluator, ProposalStep, Trainer, WarmupCosine
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.tokenizers import pretrained_tokenizer

options = dict(
    tokenizer="work_dirs/mine",
    num_classes=None,  # None: as many as the token store has
    batch_size=32,
    max_steps=1000,
)
tokens = options["tokenizer"] + "/tokens"

train_data = dict(
    type=TokenLoader,
    dataset=dict(type=TokenDataset, root=tokens + "/train"),
    batch_size=options["batch_size"],
)
val_data = dict(
    type=TokenLoader,
    dataset=dict(type=TokenDataset, root=tokens + "/val"),
    batch_size=options["batch_size"],
    shuffle=False,
)

tokenizer = dict(type=pretrained_tokenizer, weights=[options["tokenizer"]])
generator = dict(
    type=TransformerGenerator,
    transformer=dict(
        type=DecoderTransformer, width=128, depth=4, num_heads=4, style=dict(type=LlamaStyle), dropout=0.1
    ),
    num_classes=options["num_classes"],
    class_dropout=0.1,
)

train_step = dict(
    type=ProposalStep,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
    schedule=dict(type=WarmupCosine, warmup_steps=options["max_steps"] // 20, final_factor=0.02),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(type=ProposalEvaluator, every=500, sampling=dict(guidance=1.5, top_k=100))
checkpointer = dict(type=Checkpointer, every=500, keep=2)
