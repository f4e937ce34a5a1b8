"""Fine-tunes the decoder of configs/ema/1024_emoji.py for the perceptual distance; no index changes.

The encoder and the codebook are frozen. The weight of LPIPS is 1 here, and was 0.1 before.

Paper:    van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1
Command:  python -m vq.train ema/1024_emoji configs/ema/1024_emoji.py
          python -m vq.train decoder/finetune_emoji configs/decoder/finetune_emoji.py
Expected: over configs/ema/1024_emoji.py with 256 codes and 500 steps, LPIPS-vgg falls from 0.386 to 0.370 in 700 steps
          (measured here: seed 3407, benchmarks/results/2026-11-27_semantic.json)
"""

_base_ = "emoji.py"

from vq.tokenizers import pretrained_tokenizer

options = dict(max_steps=500, it_config=None, it_state_dict="work_dirs/ema/1024_emoji", codebook_size=1024)
tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[options["it_state_dict"]],
    config=options["it_config"],
    frozen=["encoder", "pre_quant", "quantizer"],
)
train_step = dict(weights=dict(lpips=1.0), optimizer=dict(lr=1e-3))
