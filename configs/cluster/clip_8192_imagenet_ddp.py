r"""Cluster with 8192 codes of 768 on ImageNet, f16, 256 px: clusters of the patch features of CLIP ViT-B/16.

The frozen teacher is the encoder, and only the codes learn: by gradient, and codes that are hardly used move to the
nearest features. Codes are chosen by their direction and keep their length. The tokenizer has no decoder;
configs/decoder/vqgan.py trains one for it.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406;
          Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              cluster/clip_8192_imagenet_ddp configs/cluster/clip_8192_imagenet_ddp.py
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights clip
"""

from torch.optim import Adam

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import Checkpointer, Constant, Evaluator, ReconstructionStep, Trainer
from vq.metrics import CodebookUsage, Perplexity, QuantizationError
from vq.networks import TeacherEncoder, TimmTeacher
from vq.quantizers import ClusteredCodebook, DirectionDistance, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

options = dict(
    image_size=256,
    max_steps=100_000,
    codebook_size=8192,
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size, codebook_size, codebook_dim = options["image_size"], options["codebook_size"], 768

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.8, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=256,  # over all GPUs
    num_workers=10,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=256,
    num_workers=10,
    shuffle=False,
)

tokenizer = dict(
    type=FeatureTokenizer,
    encoder=dict(
        type=TeacherEncoder,
        teacher=dict(type=TimmTeacher, name="vit_base_patch16_clip_quickgelu_224.openai"),
    ),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=ClusteredCodebook, size=codebook_size, dim=codebook_dim, decay=0.99, anchor="closest"
        ),
        commitment_weight=0.0,  # nothing could move towards the codes
        distance=dict(type=DirectionDistance),
    ),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(),
    weights=dict(quantizer=1.0),
    optimizer=dict(type=Adam, lr=5.4e-5, betas=(0.5, 0.9)),
    schedule=dict(type=Constant),
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=10_000,
    metrics=[
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
        dict(type=QuantizationError, codebook_dim=codebook_dim),
    ],
)
checkpointer = dict(type=Checkpointer, every=10_000)
