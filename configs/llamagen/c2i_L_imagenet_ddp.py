r"""LlamaGen-L: class to image over 256 tokens of its own tokenizer.

Paper:    Sun et al. 2024, https://arxiv.org/abs/2406.06525, table 1
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              llamagen/c2i_L_imagenet_ddp configs/llamagen/c2i_L_imagenet_ddp.py --config-options \
              ir_config::configs/llamagen/vqgan_imagenet_ddp.py \
              it_state_dict::work_dirs/llamagen/vqgan_imagenet_ddp
          (a tokenizer and a decoder trained for it: it_state_dict::TOKENIZER ir_state_dict::DECODER)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights inception;
          python -m vq.fid imagenet (the gFID's reference)
"""

_base_ = "c2i_B_imagenet_ddp.py"

generator = dict(transformer=dict(width=1024, depth=24, num_heads=16, hidden=2816))
