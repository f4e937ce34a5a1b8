"""Time of a step of sampling: one token of each of 4 pictures, with guidance.

    python benchmarks/generate.py [--size B|L] [--tokens 256] [--threads 2] [--repeats 3] [--llamagen DIR] [--out FILE]

Size B is 12 blocks of 768 channels, L 24 of 1024; 16,384 codes, top-k 600, top-p 0.92, float32. The sides are
timed in turn, in one process. With one thread the time is that of the processor, which other programs disturb less:

* `vq`: `TransformerGenerator.generate` at a guidance of 2, which makes 8 rows of 4 pictures.
* `vq, bfloat16`: the same with the weights in bfloat16, where the CPU has instructions for it.
* `vq, int8`: the same after `convert_weights(generator, "int8")`, where the CPU has VNNI.
* `transformers`: `LlamaForCausalLM.generate` of the same shapes over 8 rows, without the arithmetic of guidance
  (its own guidance would take two passes a token).
* `LlamaGen`: its own model and sampler at the same guidance, from a checkout of FoundationVision/LlamaGen in DIR.
* `one read`: the sum of every float32 weight that a step reads.
* `products`: the products of 8 rows with every such matrix and nothing else, as `nn.Linear` makes them.
* `arithmetic`: the products of 1,024 rows, divided by 128. These read each weight once for 1,024 rows, so this is the
  time that the core needs to multiply and add, and no step of 8 rows can take less.
* `packed products`: the same as `products` in the packed layout that sampling uses, in float32 and in bfloat16.

Bars: 4 times as fast as LlamaGen; not slower than `transformers`; within 1.5 times one read of the weights; bfloat16
1.5 times as fast as float32. The first and the third are judged for float32, and printed for every side of ours;
LlamaGen and the read are in float32 always.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from vq.generators import LLAMA_SIZES, DecoderTransformer, TransformerGenerator, convert_weights

PICTURES, VOCABULARY, TOP_K, TOP_P = 4, 16384, 600, 0.92
PEER = "transformers"
MANY = 128  # times the rows of a step, so that reading the weights takes no time
HEADROOM = 1.02  # what two timings of the same thing differ by


def ours(size: str, tokens: int) -> TransformerGenerator:
    torch.manual_seed(0)
    return TransformerGenerator(
        transformer=DecoderTransformer(**LLAMA_SIZES[size]),
        vocabulary_size=VOCABULARY,
        num_classes=1000,
        grid=(tokens,),
    ).eval()


def sample(generator: TransformerGenerator) -> Callable[[], object]:
    label, seeds = torch.arange(PICTURES), torch.arange(PICTURES)
    return lambda: generator.generate(label, seeds=seeds, guidance=2.0, top_k=TOP_K, top_p=TOP_P)


def peer(size: str, tokens: int) -> Callable[[], object]:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LLAMA_SIZES[size]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape["width"],
            intermediate_size=shape["hidden"],
            num_hidden_layers=shape["depth"],
            num_attention_heads=shape["num_heads"],
            max_position_embeddings=tokens + 1,
        )
    ).eval()
    start = torch.arange(2 * PICTURES)[:, None]
    limits = {"min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0, "eos_token_id": None}
    draws = {"do_sample": True, "top_k": TOP_K, "top_p": TOP_P, "attention_mask": torch.ones_like(start)}
    return lambda: model.generate(start, **limits, **draws)


def llamagen(size: str, tokens: int, checkout: Path) -> Callable[[], object]:
    """LlamaGen's sampler; its module uses a context manager of torch that is deprecated."""
    sys.path.insert(0, str(checkout))
    from autoregressive.models import generate, gpt

    torch.manual_seed(0)
    model = gpt.GPT_models[f"GPT-{size}"](vocab_size=VOCABULARY, block_size=256, num_classes=1000).eval()
    label = torch.arange(PICTURES)
    return lambda: generate.generate(model, label, tokens, cfg_scale=2.0, top_k=TOP_K, top_p=TOP_P)


def matrices(generator: TransformerGenerator) -> list[Tensor]:
    return [layer.weight.detach() for layer in generator.modules() if isinstance(layer, nn.Linear)]


def products(weights: list[Tensor], tokens: int) -> Callable[[], object]:
    inputs = {width: torch.randn(2 * PICTURES, width) for width in {w.shape[1] for w in weights}}

    def multiply() -> None:
        for _ in range(tokens):
            for weight in weights:
                nn.functional.linear(inputs[weight.shape[1]], weight)

    return multiply


def arithmetic(weights: list[Tensor]) -> Callable[[], object]:
    inputs = {width: torch.randn(MANY * 2 * PICTURES, width) for width in {w.shape[1] for w in weights}}
    return lambda: [nn.functional.linear(inputs[weight.shape[1]], weight) for weight in weights]


def packed_products(weights: list[Tensor], tokens: int, dtype: torch.dtype) -> Callable[[], object]:
    ops = torch.ops.mkldnn
    packed = [(w.shape[1], ops._reorder_linear_weight(w.to(dtype), 2 * PICTURES)) for w in weights]
    inputs = {width: torch.randn(2 * PICTURES, width, dtype=dtype) for width, _ in packed}

    def multiply() -> None:
        for _ in range(tokens):
            for width, weight in packed:
                ops._linear_pointwise(inputs[width], weight, None, "none", [], "")

    return multiply


def reads(weights: list[Tensor], tokens: int) -> Callable[[], object]:
    return lambda: [weight.sum() for _ in range(tokens) for weight in weights]


def missed(medians: dict[str, float]) -> list[str]:
    problems = []
    if "LlamaGen" in medians and medians["LlamaGen"] < 4 * medians["vq"]:
        problems.append(f"{medians['LlamaGen'] / medians['vq']:.2f} times as fast as LlamaGen (bar 4)")
    if PEER in medians and medians["vq"] > HEADROOM * medians[PEER]:
        problems.append(f"{medians['vq'] / medians[PEER]:.2f} times the time of transformers (bar 1)")
    if medians["vq"] > 1.5 * medians["one read"]:
        problems.append(f"{medians['vq'] / medians['one read']:.2f} times one read of the weights (bar 1.5)")
    if "vq, bfloat16" in medians and medians["vq"] < 1.5 * medians["vq, bfloat16"]:
        gain = medians["vq"] / medians["vq, bfloat16"]
        problems.append(f"bfloat16 is {gain:.2f} times as fast (bar 1.5)")
    return problems


def ratios(medians: dict[str, float]) -> list[str]:
    """How each side of ours compares with LlamaGen and with one read of the float32 weights."""
    lines = []
    for name, seconds in medians.items():
        if name.startswith("vq"):
            line = f"{name}: {seconds / medians['one read']:.2f} times one read"
            if "LlamaGen" in medians:
                line += f", {medians['LlamaGen'] / seconds:.2f} times as fast as LlamaGen"
            lines.append(line)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=["B", "L"], default="B")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--llamagen", type=Path, metavar="DIR", help="a checkout of FoundationVision/LlamaGen"
    )
    parser.add_argument("--no-transformers", action="store_true", help="leave this side out")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = ours(arguments.size, arguments.tokens)
    weights = matrices(generator)
    few = min(arguments.tokens, 8)  # a read and a product take the same time at every token
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "vq": (sample(generator), arguments.tokens),
        "one read": (reads(weights, few), few),
        "products": (products(weights, few), few),
        "arithmetic": (arithmetic(weights), MANY),
        "packed products": (packed_products(weights, few, torch.float32), few),
    }
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        half = ours(arguments.size, arguments.tokens).bfloat16()
        sides["vq, bfloat16"] = (sample(half), arguments.tokens)
        sides["packed products, bfloat16"] = (packed_products(weights, few, torch.bfloat16), few)
    if torch.cpu._is_vnni_supported():
        integers = ours(arguments.size, arguments.tokens)
        convert_weights(integers, "int8")
        sides["vq, int8"] = (sample(integers), arguments.tokens)
    if importlib.util.find_spec(PEER) is not None and not arguments.no_transformers:
        sides[PEER] = (peer(arguments.size, arguments.tokens), arguments.tokens)
    if arguments.llamagen is not None:
        sides["LlamaGen"] = (llamagen(arguments.size, arguments.tokens, arguments.llamagen), arguments.tokens)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.no_grad():
        for _ in range(arguments.repeats):
            for name, (run, steps) in sides.items():
                start = clock()
                run()
                times[name].append((clock() - start) / steps)
    medians = {name: statistics.median(found) for name, found in times.items()}
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, {arguments.threads} threads, load {load:.1f}, {arguments.tokens} tokens"
    )
    for name, seconds in medians.items():
        print(f"{name:26} {1e3 * seconds:8.1f} ms a step {PICTURES / seconds:8.1f} tokens/s")
    print("\n".join(ratios(medians)))
    problems = missed(medians)
    if arguments.out:
        record = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}",
            "load_of_the_machine_at_the_end": round(load, 1),
            "pictures": PICTURES,
            "ms_a_step": {name: [round(1e3 * t, 2) for t in found] for name, found in times.items()},
            "missed": problems,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(f"missed: {problem}" for problem in problems) or "every bar is met")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
