"""A config for the test of the converter: the narrowest networks with the published number of groups."""

from torch.optim import Adam

from vq.data import ImageLoader, ProceduralDataset
from vq.engine import ReconstructionStep, Trainer, WarmupCosine
from vq.losses import L1Loss
from vq.networks import CNNDecoder, CNNEncoder
from vq.quantizers import LearnedCodebook, VectorQuantizer
from vq.tokenizers import ImageTokenizer

network = dict(base_width=128, multipliers=(1, 1), num_blocks=1, attention=False)

train_data = dict(
    type=ImageLoader, dataset=dict(type=ProceduralDataset, num_images=8, image_size=16), batch_size=4
)
tokenizer = dict(
    type=ImageTokenizer,
    encoder=dict(type=CNNEncoder, out_channels=4, **network),
    quantizer=dict(type=VectorQuantizer, codebook=dict(type=LearnedCodebook, size=16, dim=4)),
    decoder=dict(type=CNNDecoder, in_channels=4, **network),
)
train_step = dict(
    type=ReconstructionStep,
    losses=dict(l1=dict(type=L1Loss)),
    weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=Adam, lr=1e-4),
    schedule=dict(type=WarmupCosine, warmup_steps=2),
)
trainer = dict(type=Trainer, max_steps=4)
