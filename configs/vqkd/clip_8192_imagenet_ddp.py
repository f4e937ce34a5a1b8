r"""VQ-KD with 8192 unit codes of 32 on ImageNet, f16, 224 px: the tokens describe what CLIP ViT-B/16 sees, not pixels.

The tokenizer has no image decoder; configs/decoder/vqgan.py trains one for it.

Paper:    Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              vqkd/clip_8192_imagenet_ddp configs/vqkd/clip_8192_imagenet_ddp.py
Expected: not yet run (published for the weights of BEiT v2: codebook usage 100 %, perplexity 7694)
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; pip install -e '.[teachers]'; vq weights clip
"""

from torch.optim import AdamW

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, RandomResizedCrop, Resize
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.layers import LearnedPositions, PixelPatches, Transformer
from vq.losses import FeatureAlignment
from vq.metrics import CodebookUsage, Perplexity, QuantizationError, TeacherCosine
from vq.networks import TimmTeacher, ViTDecoder, ViTEncoder
from vq.quantizers import CosineDistance, KMeansInit, SphericalEMACodebook, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

options = dict(
    image_size=224,
    max_steps=250_000,
    codebook_size=8192,
    teacher="vit_base_patch16_clip_quickgelu_224.openai",  # the name that timm has for it
    with_projection=True,  # into the space of CLIP's texts
    teacher_channels=512,
    teacher_size=None,  # the size in pixels at which the teacher sees images; None: theirs
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size, codebook_size, codebook_dim = options["image_size"], options["codebook_size"], 32
positions = dict(type=LearnedPositions, width=768, grid=(14, 14), offset=0.1)
transformer = dict(type=Transformer, width=768, num_heads=12, positions=positions)
teacher = dict(
    type=TimmTeacher,
    name=options["teacher"],
    with_projection=options["with_projection"],
    image_size=options["teacher_size"],
)

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=RandomResizedCrop, size=image_size, scale=(0.08, 1.0)),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=512,  # over all GPUs
    num_workers=10,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=512,
    num_workers=10,
    shuffle=False,
)

tokenizer = dict(
    type=FeatureTokenizer,
    encoder=dict(
        type=ViTEncoder,
        patches=dict(type=PixelPatches, size=16),
        transformer=dict(depth=12, **transformer),
        out_channels=codebook_dim,
        num_extra_tokens=1,
    ),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(
            type=SphericalEMACodebook,
            size=codebook_size,
            dim=codebook_dim,
            decay=0.99,
            init=dict(type=KMeansInit),
        ),
        commitment_weight=1.0,
        distance=dict(type=CosineDistance),
    ),
    decoder=dict(
        type=ViTDecoder,
        patches=dict(type=PixelPatches, size=1, channels=options["teacher_channels"]),
        transformer=dict(depth=1, **transformer),
        in_channels=codebook_dim,
        num_extra_tokens=1,
    ),
)

train_step = dict(
    type=ReconstructionStep,
    losses=dict(cosine=dict(type=FeatureAlignment, teacher=teacher, source="reconstruction")),
    weights=dict(cosine=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=2e-4, betas=(0.9, 0.99), weight_decay=1e-4),
    schedule=dict(type=WarmupCosine, warmup_steps=25_000, final_factor=0.05),
    decay="matrices",
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=Evaluator,
    every=10_000,
    metrics=[
        dict(type=TeacherCosine, teacher=teacher),
        dict(type=CodebookUsage, codebook_size=codebook_size),
        dict(type=Perplexity, codebook_size=codebook_size),
        dict(type=QuantizationError, codebook_dim=codebook_dim),
    ],
)
checkpointer = dict(type=Checkpointer, every=10_000)
