r"""Scores a published tokenizer on the photographs inside Python packages, or fine-tunes its decoder on them.

`vq test zoo:NAME --data photos` uses this page. It needs no data set, so it shows that a model works; its scores say
nothing about ImageNet. In training, the encoder and the codebook are frozen.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  python -m vq.train zoo/photos configs/zoo/photos.py --config-options it_state_dict::zoo:llamagen/vq_ds16_c2i \
              codebook_size:16384
Expected: not yet run
Needs:    the published weights; vq weights lpips
"""

from torch.optim import AdamW

from vq.data import ImageLoader, PhotoDataset, RandomHorizontalFlip
from vq.engine import Checkpointer, Constant, Evaluator, ReconstructionStep, Trainer
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.tokenizers import pretrained_tokenizer

options = dict(
    it_state_dict="zoo:llamagen/vq_ds16_c2i",  # a name that `vq list pretrained` shows, or a run
    codebook_size=16384,  # the model's, for the scores
    image_size=128,
    max_steps=1000,
)
image_size, codebook_size = options["image_size"], options["codebook_size"]

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=PhotoDataset, split="train", crop_size=image_size),
    transforms=[dict(type=RandomHorizontalFlip)],
    batch_size=8,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=PhotoDataset, split="val", crop_size=image_size),
    transforms=[],
    batch_size=8,
    shuffle=False,
)

tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[options["it_state_dict"]],
    frozen=["encoder", "pre_quant", "quantizer"],
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="vgg")),
    weights=dict(l1=1.0, lpips=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-4),
    schedule=dict(type=Constant),
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
        dict(type=SSIM, window="uniform"),  # as most projects publish it
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=500)
