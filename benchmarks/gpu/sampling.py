"""Sampling of a Llama generator with guidance: 24 blocks of 1024 channels, 256 tokens, 32 pictures."""

import torch

from benchmarks.gpu.timing import Rows, Side
from vq.generators import LLAMA_SIZES, DecoderTransformer, TransformerGenerator

VOCABULARY = 16384


def generator(rows: Rows, size: str, tokens: int, dtype: torch.dtype) -> TransformerGenerator:
    """Makes a generator with random weights."""
    torch.manual_seed(0)
    shape = dict(LLAMA_SIZES[size])
    if rows.is_small:
        shape |= {"depth": 2, "width": 64, "hidden": 128, "num_heads": 4}
    made = TransformerGenerator(
        transformer=DecoderTransformer(**shape),
        vocabulary_size=rows.size(VOCABULARY, 64),
        num_classes=1000,
        grid=(tokens,),
    )
    return made.to(rows.device, dtype).eval()


def sample(made: TransformerGenerator, pictures: int) -> Side:
    """Samples pictures with a guidance of 2."""
    device = next(made.parameters()).device
    label, seeds = torch.arange(pictures, device=device), torch.arange(pictures)
    return lambda: made.generate(
        label, seeds=seeds, guidance=2.0, top_k=min(600, made.vocabulary_size), top_p=0.92
    )


def bytes_per_token(made: TransformerGenerator) -> int:
    """Returns how many bytes of weights a step reads once."""
    return sum(p.numel() * p.element_size() for n, p in made.named_parameters() if "embedding" not in n)


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    tokens, pictures = rows.size(256, 4), rows.size(32, 2)
    for size in ("B", "L"):
        sizes: dict[str, float | str] = {"tokens": tokens, "pictures": pictures}
        sizes["weights read per token, MB"] = (
            bytes_per_token(generator(rows, size, tokens, torch.bfloat16)) / 1e6
        )
        with torch.no_grad():
            rows.measure(
                f"sampling, size {size}, {tokens} tokens, {pictures} pictures, guidance",
                {
                    "vq, bfloat16": lambda size=size: sample(
                        generator(rows, size, tokens, torch.bfloat16), pictures
                    ),
                    "vq, float32": lambda size=size: sample(
                        generator(rows, size, tokens, torch.float32), pictures
                    ),
                },
                rounds=3,
                facts=sizes,
            )


if __name__ == "__main__":
    main()
