"""Gumbel-softmax: hard and soft choices, falling temperatures, KL and diversity terms, on 32 px emoji, f4.

`benchmarks/gumbel_terms.py` holds the two terms that are not in the library: the divergence with a minus, and the
cross-entropy of the logits with the code that was drawn.

Command:  python -m vq.compare configs/compare/gumbel.py
Expected: hard 17.4 dB and 10 % usage, annealed with diversity -0.7 +- 0.6 dB and 90 %, softmax_straight_through
          +2.2 +- 0.5 dB and 43 %, softmax_diverse +2.4 +- 0.4 dB and 99 %; all rows in experiments/gumbel
          (measured here, 2026-11-28, seeds 0 to 2)
Needs:    a clone of the project, and its root as the working directory
"""

_base_ = "recipes/emoji.py"

from benchmarks.gumbel_terms import GumbelWithCrossEntropy, GumbelWithMinus
from vq.engine import Comparison
from vq.quantizers import CosineAnnealing, GumbelQuantizer, LinearAnnealing, SoftmaxQuantizer

options = dict(max_steps=500)
codes = dict(size=256, dim=16)
steps = options["max_steps"]
falling = dict(temperature=dict(type=CosineAnnealing, first=1.0, last=0.0625, steps=steps * 4 // 5))
growing = dict(kl_weight=dict(type=LinearAnnealing, first=0.0, last=5e-3, steps=steps // 5))


def gumbel(annealing=None, type=GumbelQuantizer, **changes):
    """A contestant: the quantizer with these changes, and what the step changes while it trains."""
    quantizer = dict(type=type, **codes, **changes)
    return dict(tokenizer=dict(quantizer=quantizer), train_step=dict(annealing=annealing or {}))


contestants = dict(
    hard=gumbel(),
    hard_annealed=gumbel(annealing=falling),
    hard_annealed_kl=gumbel(annealing=falling | growing),
    hard_without_kl=gumbel(kl_weight=0.0),
    hard_strong_kl=gumbel(kl_weight=0.05),
    hard_minus_kl=gumbel(type=GumbelWithMinus, minus_kl_weight=5e-3),
    hard_cross_entropy=gumbel(type=GumbelWithCrossEntropy, cross_entropy_weight=5e-3),
    hard_diverse=gumbel(diversity_weight=0.1),
    hard_annealed_diverse=gumbel(annealing=falling, diversity_weight=0.1),
    hard_annealed_more_diverse=gumbel(annealing=falling, diversity_weight=0.3),
    soft=gumbel(is_hard=False),
    soft_annealed=gumbel(annealing=falling, is_hard=False),
    softmax=dict(tokenizer=dict(quantizer=dict(type=SoftmaxQuantizer, is_straight_through=False, **codes))),
    softmax_straight_through=dict(tokenizer=dict(quantizer=dict(type=SoftmaxQuantizer, **codes))),
    softmax_diverse=gumbel(type=SoftmaxQuantizer, diversity_weight=0.1),
)
comparison = dict(
    type=Comparison,
    question="Must Gumbel choices be hard in training, and what do annealing and KL buy?",
    baseline="hard",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
