"""The league: every quantizer with the same networks, data, losses, budget and seeds.

Command:  python -m vq.compare configs/compare/league.py [--only NAME ...]
          python -m vq.compare configs/compare/league.py --config-options data::photos --name league_photos
Expected: docs/quantizers.md (measured here, 1.2 CPU hours; photographs 0.5 for 23 of the contestants)
"""

from torch.optim import AdamW

from vq.data import EmojiDataset, ImageLoader, PhotoDataset, Resize
from vq.engine import Checkpointer, Comparison, Evaluator, ReconstructionStep, Trainer, WarmupCosine
from vq.losses import MSELoss
from vq.metrics import PSNR, SSIM, CodebookUsage, L1Metric, MSEMetric, Perplexity
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import (
    AffineCodebook,
    BinarySphericalQuantizer,
    BottleneckQuantizer,
    BridgedCodebook,
    CarryQuantizer,
    ClusteredCodebook,
    CosineDistance,
    DataMomentsInit,
    DirectionalReparameterisation,
    DirectionDistance,
    EMACodebook,
    EntropyRegulariser,
    FiniteScalarQuantizer,
    FrozenCodebook,
    GumbelQuantizer,
    IdentityQuantizer,
    ImplicitResidualQuantizer,
    IndexBackpropagationQuantizer,
    KMeansInit,
    LatticeInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    MultiScaleResidualQuantizer,
    NormalInit,
    NormPreservingQuantizer,
    ProductQuantizer,
    ProjectedCodebook,
    RadialQuantizer,
    ReplaceDeadCodes,
    ReplaceUnusedCodes,
    ResidualCoefficientQuantizer,
    ResidualFiniteScalarQuantizer,
    ResidualQuantizer,
    RotationTrick,
    ScalarPerturbationQuantizer,
    SimpleFiniteScalarQuantizer,
    SoftmaxQuantizer,
    Synchronised,
    UniformInit,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer

# Four times as long, at f8: image_size:64 widths:"[32,64,128]" max_steps:400
options = dict(data="emoji", image_size=32, widths=(24, 48), max_steps=600)
sets = dict(
    emoji=[dict(type=EmojiDataset, split=split) for split in ("train", "val")],
    photos=[
        dict(type=PhotoDataset, split=split, crop_size=options["image_size"]) for split in ("train", "val")
    ],
)
train_set, val_set = sets[options["data"]]
network = dict(widths=options["widths"], num_blocks=1)  # f4: 32 x 32 pixels become 8 x 8 tokens
resize = dict(type=Resize, size=options["image_size"])
codes = dict(size=256, dim=16)
learned = dict(type=LearnedCodebook, init=dict(type=KMeansInit), **codes)
averaged = dict(type=EMACodebook, **codes)
revival = dict(type=ReplaceDeadCodes)

quantizers = dict(
    vq_uniform=dict(type=VectorQuantizer, codebook=dict(learned, init=dict(type=UniformInit))),
    vq_moments=dict(type=VectorQuantizer, codebook=dict(learned, init=dict(type=DataMomentsInit))),
    vq_kmeans=dict(type=VectorQuantizer, codebook=learned),
    vq_revival=dict(type=VectorQuantizer, codebook=dict(learned, revival=revival)),
    vq_entropy=dict(type=VectorQuantizer, codebook=learned, regularisers=[dict(type=EntropyRegulariser)]),
    vq_rotation=dict(
        type=VectorQuantizer, codebook=dict(learned, revival=revival), estimator=dict(type=RotationTrick)
    ),
    vq_countdown=dict(type=VectorQuantizer, codebook=dict(learned, revival=dict(type=ReplaceUnusedCodes))),
    vq_directional=dict(  # DiVeQ; contestants["vq_directional"] leaves the quantizer's loss out
        type=VectorQuantizer,
        codebook=dict(learned, revival=revival),
        estimator=dict(type=DirectionalReparameterisation),
    ),
    vq_bridge=dict(type=VectorQuantizer, codebook=dict(learned, type=BridgedCodebook, groups=32)),
    vq_e8=dict(  # the form of L24-SQ in 8 dimensions
        type=VectorQuantizer,
        codebook=dict(type=FrozenCodebook, size=240, dim=8, init=dict(type=LatticeInit)),
        distance=dict(type=CosineDistance),
        commitment_weight=0.0,
    ),
    vq_sync=dict(
        type=VectorQuantizer, codebook=dict(learned, revival=revival), estimator=dict(type=Synchronised)
    ),
    vq_affine=dict(type=VectorQuantizer, codebook=dict(type=AffineCodebook, codebook=learned)),
    vq_frozen=dict(
        type=VectorQuantizer, codebook=dict(type=FrozenCodebook, init=dict(type=KMeansInit), **codes)
    ),
    simvq=dict(
        type=VectorQuantizer, codebook=dict(type=ProjectedCodebook, init=dict(type=KMeansInit), **codes)
    ),
    vq_bottleneck=dict(
        type=BottleneckQuantizer,
        quantizer=dict(
            type=VectorQuantizer, codebook=dict(learned, dim=8), distance=dict(type=CosineDistance)
        ),
        dim=16,
    ),
    vq_direction=dict(type=VectorQuantizer, codebook=learned, distance=dict(type=DirectionDistance)),
    vq_cosine=dict(type=VectorQuantizer, codebook=learned, distance=dict(type=CosineDistance)),
    cosine_norm=dict(  # also stores the length of every vector
        type=NormPreservingQuantizer,
        quantizer=dict(
            type=VectorQuantizer, codebook=dict(averaged, revival=revival), distance=dict(type=CosineDistance)
        ),
    ),
    ema=dict(type=VectorQuantizer, codebook=averaged),
    ema_revival=dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival)),
    ema_cosine_revival=dict(
        type=VectorQuantizer, codebook=dict(averaged, revival=revival), distance=dict(type=CosineDistance)
    ),
    cvq_closest=dict(type=VectorQuantizer, codebook=dict(type=ClusteredCodebook, anchor="closest", **codes)),
    cvq_probrandom=dict(
        type=VectorQuantizer, codebook=dict(type=ClusteredCodebook, anchor="probrandom", **codes)
    ),
    cvq_random=dict(type=VectorQuantizer, codebook=dict(type=ClusteredCodebook, anchor="random", **codes)),
    ibq=dict(type=IndexBackpropagationQuantizer, init=dict(type=NormalInit), **codes),
    gumbel=dict(type=GumbelQuantizer, **codes),
    gumbel_diversity=dict(type=GumbelQuantizer, diversity_weight=0.1, **codes),
    softmax=dict(type=SoftmaxQuantizer, is_straight_through=False, **codes),  # known not to work
    softmax_st=dict(type=SoftmaxQuantizer, **codes),
    fsq=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5)),
    fsq_noise=dict(type=FiniteScalarQuantizer, levels=(8, 6, 5), noise_rate=0.5),
    sfsq=dict(type=SimpleFiniteScalarQuantizer, levels=(8, 6, 5)),
    fsp=dict(type=ScalarPerturbationQuantizer, levels=(8, 6, 5)),
    radial=dict(type=RadialQuantizer, levels=(4, 4, 4, 4)),
    lfq=dict(type=LookupFreeQuantizer, bits=8),
    lfq_no_entropy=dict(type=LookupFreeQuantizer, bits=8, entropy_weight=0.0),
    bsq=dict(type=BinarySphericalQuantizer, bits=8),
    rvq4=dict(
        type=ResidualQuantizer,
        quantizers=[dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival))],
        depth=4,  # one codebook, shared by the stages
    ),
    rvq4_separate=dict(
        type=ResidualQuantizer,
        quantizers=[dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival))] * 4,
    ),
    rvq4_beam=dict(
        type=ResidualQuantizer,
        quantizers=[dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival))] * 4,
        beam_width=4,
    ),
    qinco4=dict(
        type=ImplicitResidualQuantizer,
        codebooks=[dict(learned, revival=revival)] * 4,
        hidden_dim=32,
        num_blocks=1,
    ),
    rfsq4=dict(type=ResidualFiniteScalarQuantizer, levels=(8, 6, 5), depth=4),
    rlfq4=dict(
        type=ResidualQuantizer,
        quantizers=[dict(type=LookupFreeQuantizer, bits=8)],
        depth=4,
        scales=(1.0, 0.5, 0.25, 0.125),
    ),
    gvq4=dict(
        type=ProductQuantizer,
        quantizers=[dict(type=VectorQuantizer, codebook=dict(averaged, dim=4, revival=revival))],
        groups=4,
    ),
    gsvq4=dict(
        type=ProductQuantizer,
        quantizers=[dict(type=VectorQuantizer, codebook=dict(averaged, dim=4, revival=revival))] * 4,
    ),
    hvq=dict(  # the same 8 bits as the single codebooks
        type=ProductQuantizer,
        quantizers=[
            dict(type=VectorQuantizer, codebook=dict(averaged, size=size, dim=8, revival=revival))
            for size in (32, 8)
        ],
        is_packed=True,
    ),
    multi_scale=dict(
        type=MultiScaleResidualQuantizer,
        quantizer=dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival)),
        scales=(1, 2, 4, 8),
    ),
    rcq=dict(
        type=ResidualCoefficientQuantizer,
        quantizer=dict(type=VectorQuantizer, codebook=dict(averaged, revival=revival)),
        grid=(8, 8),
        depth=16,
    ),
    identity=dict(type=IdentityQuantizer, dim=16),
    carry=dict(
        type=CarryQuantizer,
        quantizer=dict(type=VectorQuantizer, codebook=dict(averaged, size=4, dim=4, revival=revival)),
        digits=4,
    ),
)
contestants = {name: dict(tokenizer=dict(quantizer=quantizer)) for name, quantizer in quantizers.items()}
contestants["vq_directional"]["train_step"] = dict(weights=dict(quantizer=0.0))
comparison = dict(type=Comparison, seeds=(0, 1, 2), baseline="ema_revival", cpu_hours=1.5)
comparison["question"] = f"Which quantizer is best in one network ({options['data']})?"

train_data = dict(type=ImageLoader, dataset=train_set, transforms=[resize], batch_size=32)
val_data = dict(type=ImageLoader, dataset=val_set, transforms=[resize], batch_size=32, shuffle=False)
tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=StridedCNNEncoder, **network),
    quantizer=quantizers["ema_revival"],
    decoder=dict(type=StridedCNNDecoder, **network),
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(mse=dict(type=MSELoss)),
    weights=dict(mse=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0),
    schedule=dict(type=WarmupCosine, warmup_steps=20, final_factor=0.02),
    max_gradient_norm=1.0,
)
trainer = dict(type=Trainer, max_steps=options["max_steps"])
evaluator = dict(
    type=Evaluator,
    metrics=[
        dict(type=L1Metric),
        dict(type=MSEMetric),
        dict(type=PSNR),
        dict(type=SSIM),
        dict(type=CodebookUsage, codebook_size=256),  # vq.compare sets the size of each contestant
        dict(type=Perplexity, codebook_size=256),
    ],
)
checkpointer = dict(type=Checkpointer, every=200)
