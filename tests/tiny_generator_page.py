"""A generator that trains in a second, over the tokens of tests/tiny_page.py."""

from torch.optim import AdamW

from vq.data import TokenDataset, TokenLoader
from vq.engine import Checkpointer, ProposalEvaluator, ProposalStep, Trainer, WarmupCosine
from vq.generators import DecoderTransformer, TransformerGenerator
from vq.tokenizers import pretrained_tokenizer

options = dict(it_state_dict="work_dirs/run", ir_state_dict=None, ir_config=None)
train_data = dict(
    type=TokenLoader, dataset=dict(type=TokenDataset, root="work_dirs/run/tokens/train"), batch_size=8
)
val_data = dict(
    type=TokenLoader, dataset=dict(type=TokenDataset, root="work_dirs/run/tokens/val"), batch_size=4
)
tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"], options["ir_state_dict"]) if path],
    config=options["ir_config"],
)
generator = dict(
    type=TransformerGenerator,
    transformer=dict(type=DecoderTransformer, width=16, depth=1, num_heads=2),
    vocabulary_size=16,
    num_classes=4,
    grid=(8, 8),
)
train_step = dict(type=ProposalStep, optimizer=dict(type=AdamW, lr=1e-2), schedule=dict(type=WarmupCosine))
trainer = dict(type=Trainer, max_steps=4, log_every=2)
evaluator = dict(type=ProposalEvaluator, every=4, num_grid_images=2, sampling=dict(guidance=1.5, top_k=8))
checkpointer = dict(type=Checkpointer, every=2)
