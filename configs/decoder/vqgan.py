r"""A convolutional image decoder for the indices of a frozen tokenizer, trained as in VQGAN, on ImageNet, 256 px.

The tokenizer may be any with a factor of 16: VQ-KD and Cluster have no image decoder of their own.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841; Wang et al. 2024, https://arxiv.org/abs/2411.04406
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              decoder/vqgan/vqkd_clip_8192_imagenet_ddp configs/decoder/vqgan.py --config-options \
              it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
              it_state_dict::work_dirs/vqkd/clip_8192_imagenet_ddp
          (or --load-model-from work_dirs/vqkd/clip_8192_imagenet_ddp in place of it_state_dict)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

from torch.optim import Adam

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import AdversarialStep, Adversary, Checkpointer, Constant, Evaluator, Trainer
from vq.losses import HingeObjective, L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import CNNDecoder, InceptionNetwork, PatchDiscriminator
from vq.tokenizers import TokenizerWithDecoder, pretrained_tokenizer

options = dict(
    image_size=256,
    max_steps=260_000,
    it_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict=None,  # its weights; None takes those of --load-model-from
    codebook_size=8192,  # the tokenizer's, for the scores
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size, codebook_size = options["image_size"], options["codebook_size"]

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=96,  # over all GPUs
    num_workers=5,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=96,
    num_workers=5,
    shuffle=False,
)

tokenizer = dict(
    type=TokenizerWithDecoder,
    tokenizer=dict(
        type=pretrained_tokenizer,
        weights=[path for path in (options["it_state_dict"],) if path],
        config=options["it_config"],
    ),
    decoder=dict(type=CNNDecoder, in_channels=256, base_width=128, multipliers=(1, 1, 2, 2, 4), num_blocks=2),
)

train_step = dict(
    type=AdversarialStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="vgg")),
    weights=dict(l1=1.0, lpips=1.0, quantizer=1.0, adversarial=0.75),
    optimizer=dict(type=Adam, lr=5.4e-5, betas=(0.5, 0.9)),
    schedule=dict(type=Constant),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, depth=2),
        objective=dict(type=HingeObjective),
        optimizer=dict(type=Adam, lr=4.32e-4, betas=(0.5, 0.9)),
        schedule=dict(type=Constant),
    ),
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=10_000,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference="imagenet_val"),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=10_000)
