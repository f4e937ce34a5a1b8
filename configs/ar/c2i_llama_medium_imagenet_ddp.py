r"""Class to image with a Llama of 24 layers and width 1024 over 256 tokens.

Paper:    Touvron et al. 2023, https://arxiv.org/abs/2302.13971
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              ar/c2i_llama_medium_imagenet_ddp configs/ar/c2i_llama_medium_imagenet_ddp.py --config-options \
              ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py \
              it_state_dict::work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp
          (a tokenizer and a decoder that was trained for it: ir_config::DECODER_RUN/vqgan.py
          it_state_dict::TOKENIZER_RUN ir_state_dict::DECODER_RUN)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

_base_ = "c2i_llama_medium_cfg_imagenet_ddp.py"

# Without dropped classes there is no unconditional prediction, hence no guidance.
generator = dict(class_dropout=0.0)
evaluator = dict(sampling=dict(guidance=1.0))
