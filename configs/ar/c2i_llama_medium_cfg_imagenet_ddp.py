r"""Class to image with a Llama of 24 layers and width 1024 over 256 tokens, with classifier-free guidance.

Paper:    Touvron et al. 2023, https://arxiv.org/abs/2302.13971
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ar/c2i_llama_medium_cfg_imagenet_ddp configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options \
              ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py \
              it_state_dict::work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp
          (a tokenizer and a decoder that was trained for it: ir_config::DECODER_RUN/vqgan.py
          it_state_dict::TOKENIZER_RUN ir_state_dict::DECODER_RUN)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

from torch.optim import AdamW

from vq.data import CenterCrop, ImageLoader, ImageNet, RandomHorizontalFlip, Resize
from vq.engine import Checkpointer, ProposalEvaluator, ProposalStep, Trainer, WarmupCosine
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.metrics import FIDMetric
from vq.networks import InceptionNetwork
from vq.tokenizers import pretrained_tokenizer

options = dict(
    image_size=256,
    max_steps=260_000,
    ir_config=None,  # the page of the tokenizer; None takes that inside its weight file
    it_state_dict="work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp",
    ir_state_dict=None,  # the weights of a decoder that was trained for it
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
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"], options["ir_state_dict"]) if path],
    config=options["ir_config"],
)
generator = dict(  # its vocabulary_size is the number of codes of the tokenizer
    type=TransformerGenerator,
    transformer=dict(
        type=DecoderTransformer,
        width=1024,
        depth=24,
        num_heads=16,
        hidden=2816,
        style=dict(type=LlamaStyle),
        dropout=0.1,
    ),
    num_classes=1000,
    grid=(image_size // 16, image_size // 16),
    class_dropout=0.1,
)

train_step = dict(
    type=ProposalStep,
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.2, eps=1e-6),
    schedule=dict(type=WarmupCosine, warmup_steps=0),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=50)

evaluator = dict(
    type=ProposalEvaluator,
    every=20_000,
    sampling=dict(guidance=1.75, temperature=1.0, top_k=600, top_p=0.92),
    metrics=[dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference="imagenet_val")],
    num_generated=5000,
)
checkpointer = dict(type=Checkpointer, every=10_000)
