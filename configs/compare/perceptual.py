"""What a perceptual loss buys: LPIPS with weights from 0 to 2, features, logits and Gram matrices, and a discriminator.

The loss is L1 and the term named; the scores are PSNR and LPIPS with both networks, of which `alex` is also trained on.
On 32 px emoji, f4.

Command:  python -m vq.compare configs/compare/perceptual.py
Expected: not yet run
"""

_base_ = "recipes/emoji.py"

from vq.engine import Comparison
from vq.losses import FeatureLoss, GramLoss, L1Loss, LogitsLoss, LPIPSLoss
from vq.networks import EfficientNetLite0

small = dict(type=EfficientNetLite0, size=64)


def with_term(loss, weight):
    """A contestant with one more term in its loss."""
    losses = dict(l1=dict(type=L1Loss), perceptual=loss)
    return dict(train_step=dict(losses=losses, weights=dict(l1=1.0, perceptual=weight)))


lpips = dict(type=LPIPSLoss, network="alex")
contestants = dict(
    none=dict(),
    lpips_0_1=with_term(lpips, 0.1),
    lpips_0_5=with_term(lpips, 0.5),
    lpips_1=with_term(lpips, 1.0),
    lpips_2=with_term(lpips, 2.0),
    features=with_term(dict(type=FeatureLoss, network=small), 0.1),
    logits=with_term(dict(type=LogitsLoss, network=small), 0.1),
    gram=with_term(dict(type=GramLoss, network=small), 0.1),
)
comparison = dict(
    type=Comparison,
    question="What does a perceptual loss buy, and at which weight?",
    baseline="none",
    score="lpips_vgg",
    seeds=(0, 1, 2),
    cpu_hours=2.0,
)
