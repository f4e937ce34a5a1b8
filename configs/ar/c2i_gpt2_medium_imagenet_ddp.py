r"""Class to image with a GPT-2 of 24 layers and width 1024 over 256 tokens.

Paper:    Radford et al. 2019 (GPT-2)
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ar/c2i_gpt2_medium_imagenet_ddp configs/ar/c2i_gpt2_medium_imagenet_ddp.py --config-options \
              ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py \
              it_state_dict::work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp
          (a tokenizer and a decoder that was trained for it: ir_config::DECODER_RUN/vqgan.py
          it_state_dict::TOKENIZER_RUN ir_state_dict::DECODER_RUN)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

_base_ = "c2i_llama_medium_cfg_imagenet_ddp.py"

from vq.generators import DecoderTransformer, GPT2Style

transformer = dict(
    type=DecoderTransformer, width=1024, depth=24, num_heads=16, style=dict(type=GPT2Style), dropout=0.1
)
# Without dropped classes there is no unconditional prediction, hence no guidance.
generator = dict(transformer=transformer, class_dropout=0.0)
evaluator = dict(sampling=dict(guidance=1.0))
