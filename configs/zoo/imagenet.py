r"""Scores a published tokenizer on ImageNet, or fine-tunes its decoder there. No index changes.

`vq test zoo:NAME` uses this page. In training, the encoder and the codebook are frozen, and the decoder continues from
its published weights, against a fresh discriminator.

Paper:    Esser et al. 2021, https://arxiv.org/abs/2012.09841
Command:  torchrun --standalone --nproc-per-node=auto -m vq.train \
              zoo/vq_ds16_c2i configs/zoo/imagenet.py --config-options \
              it_state_dict::zoo:llamagen/vq_ds16_c2i codebook_size:16384
Expected: not yet run
Needs:    data/imagenet/{train,val}/<wnid>/*.JPEG; the published weights; vq weights lpips inception;
          python -m vq.fid imagenet (the FID's reference)
"""

_base_ = "decoder/vqgan.py"

from vq.data import ADMCenterCrop
from vq.metrics import PSNR, SSIM, CodebookUsage, FIDMetric, L1Metric, LPIPSMetric, MSEMetric, Perplexity
from vq.networks import InceptionNetwork
from vq.tokenizers import pretrained_tokenizer

options = dict(
    image_size=256,
    it_state_dict="zoo:llamagen/vq_ds16_c2i",  # a name that `vq list pretrained` shows, or a run
    codebook_size=16384,  # the tokenizer's, for the scores
    max_steps=100_000,
    crop="centre",  # "adm" as LlamaGen and VAR crop; its reference is made by vq fid imagenet_adm
)
reference = {"centre": "imagenet_val", "adm": "imagenet_adm_val"}[options["crop"]]
if options["crop"] == "adm":
    val_data = dict(transforms=[dict(type=ADMCenterCrop, size=options["image_size"])])
tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[options["it_state_dict"]],
    frozen=["encoder", "pre_quant", "quantizer"],
)
evaluator = dict(
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=SSIM, window="uniform"),  # as most projects publish it
        dict(type=LPIPSMetric, network="vgg"),
        dict(type=FIDMetric, network=dict(type=InceptionNetwork), reference=reference),
        dict(type=CodebookUsage, codebook_size=options["codebook_size"]),
        dict(type=Perplexity, codebook_size=options["codebook_size"]),
    ]
)
