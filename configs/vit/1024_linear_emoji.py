"""A transformer with linear attention over patches of 8 pixels, 1024 codes, on 64 px emoji, f8.

Paper:    Yu et al. 2021, https://arxiv.org/abs/2110.04627, section 3.1;
          Qin et al. 2022, https://arxiv.org/abs/2210.10340
Command:  python -m vq.train vit/1024_linear_emoji configs/vit/1024_linear_emoji.py
Expected: not yet run at its full length
"""

_base_ = "1024_emoji.py"

from vq.layers import LinearAttention

linear = dict(transformer=dict(attention=dict(type=LinearAttention)))
tokenizer = dict(encoder=linear, decoder=linear)
