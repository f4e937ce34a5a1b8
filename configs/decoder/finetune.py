r"""Fine-tunes the decoder of a trained tokenizer on ImageNet, 256 px; no index changes.

The encoder and the codebook are frozen. The decoder continues from its weights, against a fresh discriminator.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              decoder/finetune/8192_imagenet_ddp configs/decoder/finetune.py --config-options \
              it_state_dict::work_dirs/vqgan/8192_imagenet_ddp
          (a decoder that was trained for a frozen tokenizer: add 'frozen:["tokenizer"]')
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan.py"

from vq.tokenizers import pretrained_tokenizer

options = dict(
    max_steps=100_000,
    it_config=None,
    it_state_dict=None,
    frozen=["encoder", "pre_quant", "quantizer"],
)
tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"],) if path],
    config=options["it_config"],
    frozen=options["frozen"],
)
