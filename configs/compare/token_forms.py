"""In which form a generator is given the same codes: as integers, as vectors, or as a stack of small integers.

The three tokenizers are one function; they differ in how they number the 256 codes of a place: as one integer, as two
of 16 values, or as four of 4 values. A place costs 8 bits in each. A stack is predicted by a second transformer, one
integer after the other. `vectors` has the four numbers of each code as its input, not an embedding of the integer. The
score is the validation loss per place in nats, which is the likelihood of the same codes in every form. `integers_deep`
has one more block, as the stacks have.

Command:  python -m vq.train fsq/256_digits configs/fsq/256_digits.py
          python -m vq.tokenize fsq/256_digits --train
          python -m vq.tokenize fsq/256_digits
          python -m vq.train fsq/256_digits_2 configs/fsq/256_digits.py --config-options groups:2
          python -m vq.tokenize fsq/256_digits_2 --train
          python -m vq.tokenize fsq/256_digits_2
          python -m vq.train fsq/256_digits_4 configs/fsq/256_digits.py --config-options groups:4
          python -m vq.tokenize fsq/256_digits_4 --train
          python -m vq.tokenize fsq/256_digits_4
          python -m vq.compare configs/compare/token_forms.py
Expected: integers 1.88 nats per place, integers_deep -0.04 +- 0.03, stack_2 -0.03 +- 0.03, stack_4 +0.01 +- 0.05,
          vectors +0.11 +- 0.05; all rows in experiments/token_forms (measured here, 2026-11-28, seeds 0 to 2)
Needs:    a clone of the project, and its root as the working directory
"""

_base_ = "ar/llama_digits.py"

from benchmarks.code_vectors import CodeVectorGenerator
from vq.engine import Comparison
from vq.generators import DecoderTransformer, LlamaStyle
from vq.quantizers import FiniteScalarQuantizer

options = dict(max_steps=600, it_state_dict="work_dirs/fsq/256_digits")
generator = dict(vocabulary_size=256, transformer=dict(width=64, depth=3))


def stack(count, depth=1):
    """A contestant with `count` integers per place, predicted by a transformer of `depth` blocks."""
    run = f"{options['it_state_dict']}_{count}"
    head = dict(type=DecoderTransformer, width=64, depth=depth, num_heads=4, style=dict(type=LlamaStyle))
    return {
        "generator": dict(vocabulary_size=4 ** (4 // count), num_indices=count, depth_transformer=head),
        ".train_data.dataset.root": f"{run}/tokens/train",
        ".val_data.dataset.root": f"{run}/tokens/val",
        ".tokenizer.weights[0]": run,
    }


# A dict with a type replaces the generator, so that these repeat what the base page says.
transformer = dict(
    type=DecoderTransformer, width=64, depth=3, num_heads=4, style=dict(type=LlamaStyle), dropout=0.1
)
sizes = dict(transformer=transformer, vocabulary_size=256, num_classes=10, grid=(7, 7), class_dropout=0.1)
fsq = dict(type=FiniteScalarQuantizer, levels=[4, 4, 4, 4])
contestants = dict(
    integers=dict(),
    integers_deep=dict(generator=dict(transformer=dict(depth=4))),
    vectors=dict(generator=dict(type=CodeVectorGenerator, quantizer=fsq, **sizes)),
    stack_2=stack(2),
    stack_4=stack(4),
)
comparison = dict(
    type=Comparison,
    question="In which form should a generator be given the same codes?",
    baseline="integers",
    score="loss_per_position",
    seeds=(0, 1, 2),
    cpu_hours=1.0,
)
