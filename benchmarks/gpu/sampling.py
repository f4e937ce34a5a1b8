"""Sampling of a Llama generator with guidance, 256 tokens: sizes L (24 blocks of 1024 channels) and B, 32 pictures.

A step cannot take less time than one read of the weights and of the key-value cache, at the bandwidth that a copy of
1 GiB reaches on this device; `x one read` says how many times as long it takes. The steps of `vq` are replays of a CUDA
graph; `vq, bfloat16, eager` launches each kernel (`VQ_KERNELS=eager`); `vq, int8` and
`vq, float8` have 8-bit weights in their linear layers.
"""

import os
import sys
from collections.abc import Callable
from unittest import mock

import torch

from benchmarks.gpu.timing import Facts, NotInstalledError, Rows, Side
from vq.generators import LLAMA_SIZES, DecoderTransformer, TransformerGenerator, convert_weights
from vq.ops.kernels import VARIABLE

VOCABULARY = 16384
TOP_K, TOP_P, GUIDANCE = 600, 0.92, 2.0
COPIES = 2
"""Rows per picture, with and without the class."""


def shape_of(rows: Rows, size: str) -> dict[str, int]:
    """The transformer's shape."""
    shape = dict(LLAMA_SIZES[size])
    return shape | {"depth": 2, "width": 64, "hidden": 128, "num_heads": 4} if rows.is_small else shape


def generator(rows: Rows, size: str, tokens: int, dtype: torch.dtype) -> TransformerGenerator:
    """Makes a generator with random weights."""
    torch.manual_seed(0)
    made = TransformerGenerator(
        transformer=DecoderTransformer(**shape_of(rows, size)),
        vocabulary_size=rows.size(VOCABULARY, 64),
        num_classes=1000,
        grid=(tokens,),
    )
    return made.to(rows.device, dtype).eval()


def sample(made: TransformerGenerator, pictures: int) -> Side:
    """Samples pictures with guidance."""
    device = next(made.parameters()).device
    label, seeds = torch.arange(pictures, device=device), torch.arange(pictures)
    top_k = min(TOP_K, made.vocabulary_size)

    def run() -> None:
        with torch.no_grad():
            made.generate(label, seeds=seeds, guidance=GUIDANCE, top_k=top_k, top_p=TOP_P)

    return run


def converted(rows: Rows, size: str, tokens: int, dtype: str) -> TransformerGenerator:
    """Makes a generator with 8-bit weights; what is not converted is in bfloat16."""
    made = generator(rows, size, tokens, torch.bfloat16)
    convert_weights(made, dtype)
    return made


def sample_eagerly(made: TransformerGenerator, pictures: int) -> Side:
    """Samples pictures with guidance, without a CUDA graph."""
    run = sample(made, pictures)

    def run_eagerly() -> None:
        with mock.patch.dict(os.environ, {VARIABLE: "eager"}):
            run()

    return run_eagerly


def llamagen(rows: Rows, size: str, tokens: int, pictures: int) -> Side:
    """LlamaGen's own model and sampler in bfloat16, from a checkout."""
    if rows.llamagen is None:
        raise NotInstalledError("give --llamagen DIR")
    sys.path.insert(0, str(rows.llamagen))
    from autoregressive.models import generate, gpt

    torch.manual_seed(0)
    made = gpt.GPT_models[f"GPT-{size}"](vocab_size=VOCABULARY, block_size=tokens, num_classes=1000)
    made = made.to(rows.device, torch.bfloat16).eval()
    label = torch.arange(pictures, device=rows.device)

    def run() -> None:
        with torch.no_grad():
            generate.generate(made, label, tokens, cfg_scale=GUIDANCE, top_k=TOP_K, top_p=TOP_P)

    return run


def transformers(rows: Rows, size: str, tokens: int, pictures: int) -> Side:
    """`LlamaForCausalLM.generate` of the same shapes in bfloat16 over as many rows, without the sum of guidance."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shape_of(rows, size)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows.size(VOCABULARY, 64),
            hidden_size=shape["width"],
            intermediate_size=shape["hidden"],
            num_hidden_layers=shape["depth"],
            num_attention_heads=shape["num_heads"],
            max_position_embeddings=tokens + 1,
        )
    )
    model = model.to(rows.device, torch.bfloat16).eval()
    start = torch.zeros(COPIES * pictures, 1, dtype=torch.int64, device=rows.device)
    limits = {"min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0, "eos_token_id": None}
    draws = {"do_sample": True, "top_k": TOP_K, "top_p": TOP_P, "attention_mask": torch.ones_like(start)}

    def run() -> None:
        with torch.no_grad():
            model.generate(start, **limits, **draws)

    return run


def bandwidth(rows: Rows) -> float:
    """Bytes per second, read and written, of a copy."""
    source = torch.randn(rows.size(2**28, 2**20), device=rows.device)
    target = torch.empty_like(source)
    times = [rows.milliseconds(lambda: target.copy_(source)) for _ in range(5)]
    return 2 * source.numel() * source.element_size() / (min(times[1:]) / 1e3)


def bytes_per_token(rows: Rows, size: str, tokens: int, pictures: int) -> int:
    """How many bytes of bfloat16 weights and, on average, of the key-value cache a step reads at least once."""
    made, shape = generator(rows, size, tokens, torch.bfloat16), shape_of(rows, size)
    weights = sum(p.numel() for name, p in made.named_parameters() if not name.startswith("stem."))
    cache = COPIES * pictures * 2 * shape["depth"] * shape["width"] * tokens // 2
    return 2 * (weights + cache)


def figures(tokens: int, pictures: int, read_ms: float) -> Callable[[float], Facts]:
    """What the time of a whole sampling means for a token."""
    return lambda ms: {
        "ms a step": ms / tokens,
        "pictures/s": 1e3 * pictures / ms,
        "x one read": ms / tokens / read_ms,
    }


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    tokens, pictures = rows.size(256, 4), rows.size(32, 2)
    for size in ("L", "B"):
        read = bytes_per_token(rows, size, tokens, pictures)
        read_ms = 1e3 * read / bandwidth(rows)
        shape = (rows, size, tokens, pictures)

        def ours(dtype: torch.dtype, size: str = size, how: Callable[..., Side] = sample) -> Side:
            return how(generator(rows, size, tokens, dtype), pictures)

        rows.measure(
            f"sampling, size {size}, {tokens} tokens, {pictures} pictures, guidance",
            {
                "vq, bfloat16": lambda ours=ours: ours(torch.bfloat16),
                "vq, bfloat16, eager": lambda ours=ours: ours(torch.bfloat16, how=sample_eagerly),
                "vq, float32": lambda ours=ours: ours(torch.float32),
                "vq, int8": lambda size=size: sample(converted(rows, size, tokens, "int8"), pictures),
                "vq, float8": lambda size=size: sample(converted(rows, size, tokens, "float8"), pictures),
                "LlamaGen, bfloat16": lambda shape=shape: llamagen(*shape),
                "transformers, bfloat16": lambda shape=shape: transformers(*shape),
            },
            bars={"LlamaGen, bfloat16": 3.0, "vq, bfloat16, eager": 5.0},
            rounds=3,
            warm_up=1,
            facts={
                "tokens": tokens,
                "pictures": pictures,
                "MB read a step": read / 1e6,
                "ms of one read": read_ms,
            },
            derive=figures(tokens, pictures, read_ms),
        )


if __name__ == "__main__":
    main()
