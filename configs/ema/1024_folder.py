"""Vector quantization with 1024 EMA codes on your own folder of images, f8, 64 px; docs/own_pictures.md.

Images of any size are resized and cropped; a tenth of them is set aside for validation, unless there is a folder `val`.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1
Command:  vq train mine ema/1024_folder --config-options root::my_pictures
          (the page is configs/ema/1024_folder.py)
Expected: PSNR 20.67 dB, SSIM 0.688, LPIPS-vgg 0.329, codebook usage 64 %
          (measured here: 2,000 steps, seed 3407, 1 thread, on the 200 emoji and photographs of docs/own_pictures.md, of
           which 24 are for validation; 6 minutes of CPU time)
Needs:    a folder of images
"""

from torch.optim import AdamW

from vq.data import CenterCrop, ImageFolder, ImageLoader, RandomCrop, RandomHorizontalFlip, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss, LPIPSLoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import EMACodebook, KMeansInit, ReplaceDeadCodes, VectorQuantizer
from vq.tokenizers import ImageTokenizer

options = dict(
    root="my_pictures",
    image_size=64,  # a multiple of 8
    channels=3,  # 1: grey, 3: RGB, 4: with transparency; any other number for arrays and TIFF files
    value_range=None,  # the values in the files that become black and white, if they have more than 8 bits
    val_fraction=0.1,  # of the images, if `root` has no folder `val`
    max_undecodable=0.2,  # broken images are counted and left out, up to this fraction
    num_workers=2,  # processes that read images
    batch_size=32,
    max_steps=2000,
    codebook_size=1024,
)
image_size, channels, codebook_size = options["image_size"], options["channels"], options["codebook_size"]
rgb = {1: (0, 0, 0), 2: (0, 1, 1), 3: None}.get(channels, (0, 1, 2))  # the channels that LPIPS sees
images = dict(
    type=ImageFolder,
    root=options["root"],
    val_fraction=options["val_fraction"],
    channels=channels,
    value_range=options["value_range"],
)
reading = dict(
    batch_size=options["batch_size"],
    num_workers=options["num_workers"],
    max_undecodable=options["max_undecodable"],
)
network = dict(
    widths=(32, 64, 128), num_blocks=1, image_channels=channels
)  # three halvings: 64 px, 8 x 8 indices

train_data = dict(
    type=ImageLoader,
    dataset=dict(split="train", **images),
    transforms=[
        dict(type=Resize, size=image_size * 5 // 4),
        dict(type=RandomCrop, size=image_size),
        dict(type=RandomHorizontalFlip),
    ],
    **reading,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(split="val", **images),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    shuffle=False,
    **reading,
)

tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=StridedCNNEncoder, **network),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=EMACodebook,
            size=codebook_size,
            dim=16,
            init=dict(type=KMeansInit),
            revival=dict(type=ReplaceDeadCodes),
        ),
        commitment_weight=0.25,
    ),
    decoder=dict(type=StridedCNNDecoder, **network),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss), lpips=dict(type=LPIPSLoss, network="alex", rgb=rgb)),
    weights=dict(l1=1.0, lpips=0.1, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=options["max_steps"] // 20, final_factor=0.02),
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
        dict(type=LPIPSMetric, network="vgg", rgb=rgb),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
    ],
)
checkpointer = dict(type=Checkpointer, every=500, keep=3)
