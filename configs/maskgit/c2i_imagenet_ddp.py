r"""Class to image by filling in masked indices in 8 passes (MaskGIT), 24 layers of width 768.

Paper:    Chang et al. 2022, https://arxiv.org/abs/2202.04200
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              maskgit/c2i_imagenet_ddp configs/maskgit/c2i_imagenet_ddp.py --config-options \
              ir_config::configs/vqgan/1024_imagenet_ddp.py \
              it_state_dict::work_dirs/vqgan/1024_imagenet_ddp
          (a tokenizer and a decoder trained for it: it_state_dict::TOKENIZER ir_state_dict::DECODER)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

from torch.optim import AdamW

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, Resize
from vq.engine import Checkpointer, ProposalEvaluator, ProposalStep, Trainer, WarmupCosine
from vq.generators import DecoderTransformer, GPT2Style, MaskedGenerator
from vq.metrics import FIDMetric
from vq.networks import InceptionNetwork
from vq.tokenizers import pretrained_tokenizer

options = dict(
    image_size=256,
    max_steps=260_000,
    ir_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict="work_dirs/vqgan/1024_imagenet_ddp",
    ir_state_dict=None,  # weights over the first ones, such as a decoder's
    root=None,  # the folder of ImageNet; None: $VQ_DATA/imagenet, or data/imagenet
)
image_size = options["image_size"]

train_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="train"),
    transforms=[
        dict(type=Resize, size=image_size),
        dict(type=CenterCrop, size=image_size),
        dict(type=RandomHorizontalFlip),
    ],
    batch_size=256,  # over all GPUs
    num_workers=5,
)
val_data = dict(
    type=ImageLoader,
    dataset=dict(type=ImageNet, root=options["root"], split="val"),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    batch_size=256,
    num_workers=5,
    shuffle=False,
)

tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"], options["ir_state_dict"]) if path],
    config=options["ir_config"],
)
generator = dict(
    type=MaskedGenerator,
    transformer=dict(
        type=DecoderTransformer, width=768, depth=24, num_heads=16, style=dict(type=GPT2Style), dropout=0.1
    ),
    vocabulary_size=1024,
    num_classes=1000,
    grid=(image_size // 16, image_size // 16),
    num_steps=8,
    choice_temperature=4.5,
    class_dropout=0.1,
)

train_step = dict(
    type=ProposalStep,
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.96), weight_decay=0.045),
    schedule=dict(type=WarmupCosine, warmup_steps=5000),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=ProposalEvaluator,
    every=20_000,
    sampling=dict(guidance=1.0),
    metrics=[dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference="imagenet_val")],
    num_generated=5000,
)
checkpointer = dict(type=Checkpointer, every=10_000)
