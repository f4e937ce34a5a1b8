"""Records what test_other_steps.py compares with: `python tests/golden/record_other_steps.py`.

Five steps of an alternating run, and of a run of each kind of generator and of a probe.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
LOSSES = HERE / "other_steps_losses.json"
TINY = HERE.parent / "tiny_page.py"
SIZES = {"vocabulary_size": 16, "num_classes": 4, "grid": [8, 8]}
TRANSFORMER = {
    "type": "DecoderTransformer",
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "style": {"type": "vq.generators.LlamaStyle"},
    "dropout": 0.0,  # a draw of PyTorch's that depends on the processor's libraries
}
GENERATORS = {
    "autoregressive": {"type": "TransformerGenerator", "transformer": TRANSFORMER, **SIZES},
    "masked": {"type": "MaskedGenerator", "transformer": TRANSFORMER, **SIZES},
    "pixelcnn": {"type": "PixelCNNGenerator", "width": 16, "depth": 2, **SIZES},
}
CASES = ("alternating", "probe", *GENERATORS)


def tree_of(case: str) -> dict[str, Any]:
    from vq import config

    tree: dict[str, Any] = config.load(TINY).to_dict()
    adam = {"type": "torch.optim.AdamW", "lr": 1e-3}
    if case == "alternating":
        normal = {"type": "vq.quantizers.NormalInit"}
        tree["tokenizer"]["quantizer"]["codebook"] = {
            "type": "LearnedCodebook", "size": 16, "dim": 4, "init": normal
        }  # fmt: skip
        around = {"type": "AlternatingStep", "num_codebook_steps": 2, "optimizer": adam}
        tree["train_step"] = around | {"step": tree["train_step"]}
    elif case == "probe":
        tree["probe"] = {"type": "LinearProbe", "features": {"type": "PooledCodes"}, "num_classes": 4}
        tree["train_step"] = {"type": "ProbeStep", "optimizer": adam, "accumulate": 2}
    else:
        tree["generator"] = GENERATORS[case]
        tree["train_step"] = {"type": "ProposalStep", "optimizer": adam, "accumulate": 2}
    return tree


def losses_of_five_steps(case: str) -> list[dict[str, float]]:
    from vq.engine import assembly
    from vq.engine.loop.step_runner import StepRunner

    tree = tree_of(case)
    frozen = assembly.make_tokenizer(tree, seed=7).eval() if {"generator", "probe"} & set(tree) else None
    if frozen is not None:  # codes that tell the images apart, as those of a trained tokenizer do
        loader = assembly.make_loader(tree, "train_data")
        images = next(loader.train_batches(seed=7))["image"] / 127.5 - 1
        torch.manual_seed(7)
        frozen.train()(images)
        frozen.eval()
    model = assembly.make_model(tree, seed=7, frozen_tokenizer=frozen).double().train()
    step = assembly.make_step(tree, model, frozen_tokenizer=frozen)
    runner = StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=7)
    return [
        {name: float(value) for name, value in result.scalars.items() if name.startswith("loss/")}
        for result in runner.run(stop=5)
    ]


def main() -> None:
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    recorded = {case: losses_of_five_steps(case) for case in CASES}
    LOSSES.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
