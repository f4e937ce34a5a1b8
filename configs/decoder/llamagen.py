r"""A convolutional image decoder for the indices of a frozen tokenizer, trained as in LlamaGen, on ImageNet, 256 px.

Paper:    Sun et al. 2024 (LlamaGen), https://arxiv.org/abs/2406.06525;
          Wang et al. 2024, https://arxiv.org/abs/2411.04406
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              decoder/llamagen/vqkd_clip_8192_imagenet_ddp configs/decoder/llamagen.py --config-options \
              it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
              it_state_dict::work_dirs/vqkd/clip_8192_imagenet_ddp
          (or --load-model-from work_dirs/vqkd/clip_8192_imagenet_ddp in place of it_state_dict)
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; a trained tokenizer; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "vqgan.py"

from torch.optim import Adam

from vq.engine import AdversarialStep, Adversary, Constant
from vq.losses import HingeObjective, LPIPSLoss, MSELoss
from vq.networks import PatchDiscriminator

options = dict(max_steps=400_000)
adam = dict(type=Adam, lr=1e-4, betas=(0.9, 0.95))
train_data = dict(batch_size=128, num_workers=10)
val_data = dict(batch_size=128, num_workers=10)
train_step = dict(
    type=AdversarialStep,
    losses=dict(mse=dict(type=MSELoss), lpips=dict(type=LPIPSLoss, network="vgg")),
    weights=dict(mse=1.0, lpips=1.0, quantizer=1.0, adversarial=0.5),
    is_adaptive=False,
    optimizer=adam,
    schedule=dict(type=Constant),
    adversary=dict(
        type=Adversary,
        discriminator=dict(type=PatchDiscriminator, depth=3),
        objective=dict(type=HingeObjective),
        weights=dict(objective=0.5),
        optimizer=adam,
        schedule=dict(type=Constant),
        start_step=20_000,
    ),
)
