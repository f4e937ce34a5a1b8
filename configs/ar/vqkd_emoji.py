"""Category to emoji: the small Llama of configs/ar/llama_emoji.py over the 64 tokens of configs/vqkd/256_emoji.py.

The tokens stand for features, so the decoder of configs/decoder/emoji.py turns them into images.

Paper:    Wang et al. 2024, https://arxiv.org/abs/2411.04406
Command:  python -m vq.train vqkd/256_emoji configs/vqkd/256_emoji.py
          python -m vq.train decoder/emoji configs/decoder/emoji.py
          python -m vq.tokenize decoder/emoji --train
          python -m vq.tokenize decoder/emoji
          python -m vq.train ar/vqkd_emoji configs/ar/vqkd_emoji.py
          python -m vq.generate ar/vqkd_emoji --num-per-class 10
Expected: with width 128, 4 blocks and 500 steps, validation loss 3.26, accuracy 23 % (measured here: seed 3407;
          docs/semantic_tokenizers.md shows the images)
"""

_base_ = "llama_emoji.py"

options = dict(it_state_dict="work_dirs/decoder/emoji")
generator = dict(vocabulary_size=256)
