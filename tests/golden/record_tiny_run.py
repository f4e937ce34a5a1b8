"""Records what test_tiny_run.py compares with: `python tests/golden/record_tiny_run.py`."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
LOSSES = HERE / "tiny_run_losses.json"
CHECKPOINT = HERE / "tiny_checkpoint_0.1.safetensors"
TINY = HERE.parent / "tiny_page.py"


def five_steps() -> tuple[list[dict[str, float]], torch.nn.Module, dict]:
    from vq import config
    from vq.engine import assembly
    from vq.engine.loop.step_runner import StepRunner

    tree = config.load(TINY).to_dict()
    step = assembly.make_step(tree, assembly.make_tokenizer(tree, seed=7).double().train())
    runner = StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=7)
    rows = [
        {name: float(value) for name, value in result.scalars.items() if name.startswith("loss/")}
        for result in runner.run(stop=5)
    ]
    return rows, step.tokenizer, tree


def losses_of_five_steps() -> list[dict[str, float]]:
    return five_steps()[0]


def picture() -> Tensor:
    ramp = torch.linspace(-1, 1, 16)
    return torch.stack([ramp.expand(16, 16), ramp[:, None].expand(16, 16), torch.zeros(16, 16)])[None]


def main() -> None:
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    from vq.tokenizers.checkpoint import save_weights

    rows, tokenizer, tree = five_steps()
    LOSSES.write_text(json.dumps(rows, indent=1) + "\n")
    if CHECKPOINT.exists():  # what version 0.1 wrote must stay readable: it is not written again
        return
    save_weights(tokenizer.float().state_dict(), CHECKPOINT, tree)
    indices = tokenizer.eval().encode(picture())
    stored = {"indices": indices.flatten().tolist(), "mean": tokenizer.decode(indices).mean().item()}
    CHECKPOINT.with_suffix(".json").write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
