"""A decoder that turns the tokens of VQ-KD (or Cluster) into 64 px emoji, f8; the tokenizer is frozen.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406
Command:  python -m vq.train vqkd/256_emoji configs/vqkd/256_emoji.py
          python -m vq.train decoder/emoji configs/decoder/emoji.py
          (Cluster: --config-options it_state_dict::work_dirs/cluster/256_emoji)
Expected: PSNR 15.33 dB, SSIM 0.504, LPIPS-vgg 0.476, frechet[efficientnet_lite0-64] 3370; codebook usage 100 %
          (measured here over VQ-KD: 1,000 steps, seed 3407, 1 thread)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import EfficientNetLite0, StridedCNNDecoder
from vq.tokenizers import TokenizerWithDecoder, pretrained_tokenizer

options = dict(
    max_steps=1000,
    it_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict="work_dirs/vqkd/256_emoji",
    codebook_size=256,  # the tokenizer's, for the scores
)

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
    type=TokenizerWithDecoder,
    tokenizer=dict(
        type=pretrained_tokenizer, weights=[options["it_state_dict"]], config=options["it_config"]
    ),
    decoder=dict(type=StridedCNNDecoder, widths=(32, 64, 128), num_blocks=2),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="alex")),
    weights=dict(l1=1.0, lpips=0.5, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=50, final_factor=0.02),
    max_gradient_norm=1.0,
    weight_ema=0.99,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=500,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=FIDMetric, network=dict(type=EfficientNetLite0, size=64)),  # frechet[efficientnet_lite0-64]
        dict(type=CodebookUsage, codebook_size=options["codebook_size"]),
        dict(type=Perplexity, codebook_size=options["codebook_size"]),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
