r"""LlamaGen-B: class to image over 256 tokens of its own tokenizer.

Paper:    Sun et al. 2024, https://arxiv.org/abs/2406.06525, table 1
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              llamagen/c2i_B_imagenet_ddp configs/llamagen/c2i_B_imagenet_ddp.py --config-options \
              ir_config::configs/llamagen/vqgan_imagenet_ddp.py \
              it_state_dict::work_dirs/llamagen/vqgan_imagenet_ddp
          (a tokenizer and a decoder trained for it: it_state_dict::TOKENIZER ir_state_dict::DECODER)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

from torch.optim import AdamW

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, Resize
from vq.engine import Checkpointer, Constant, ProposalEvaluator, ProposalStep, Trainer
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.metrics import FIDMetric
from vq.networks import InceptionNetwork
from vq.tokenizers import pretrained_tokenizer

options = dict(
    image_size=256,
    max_steps=1_500_000,
    ir_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict="work_dirs/llamagen/vqgan_imagenet_ddp",
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
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"], options["ir_state_dict"]) if path],
    config=options["ir_config"],
)
generator = dict(
    type=TransformerGenerator,
    transformer=dict(
        type=DecoderTransformer,
        width=768,
        depth=12,
        num_heads=12,
        hidden=2048,
        style=dict(type=LlamaStyle, class_key=False),
        dropout=0.1,
    ),
    vocabulary_size=16384,
    num_classes=1000,
    grid=(image_size // 16, image_size // 16),
    class_dropout=0.1,
)

train_step = dict(
    type=ProposalStep,
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05),
    schedule=dict(type=Constant),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=ProposalEvaluator,
    every=20_000,
    sampling=dict(guidance=1.75, temperature=1.0),
    metrics=[dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference="imagenet_val")],
    num_generated=5000,
)
checkpointer = dict(type=Checkpointer, every=10_000)
