"""Records what test_adversarial_run.py compares with: `python tests/golden/record_adversarial_run.py`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOSSES = HERE / "adversarial_run_losses.json"
TINY = HERE.parent / "tiny_page.py"
ADVERSARY = {
    "type": "Adversary",
    "discriminator": {"type": "PatchDiscriminator", "base_width": 8, "depth": 1},
    "objective": {"type": "HingeObjective"},
    "optimizer": {"type": "torch.optim.Adam", "lr": 1e-3, "betas": [0.5, 0.9]},
    "penalties": {"r1": {"type": "R1Penalty", "every": 2}, "lecam": {"type": "LeCAMPenalty"}},
    "weights": {"objective": 1.0, "r1": 0.1, "lecam": 0.01},
    "start_step": 1,
}


def losses_of_five_steps() -> list[dict[str, float]]:
    from vq import config
    from vq.engine import assembly
    from vq.engine.loop.step_runner import StepRunner

    tree = config.load(TINY).to_dict()
    tree["train_step"] |= {
        "type": "AdversarialStep",
        "adversary": ADVERSARY,
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
    }
    step = assembly.make_step(tree, assembly.make_tokenizer(tree, seed=7).double().train(), seed=7)
    for module in (step.adversary.discriminator, *step.adversary.penalties.values()):
        module.double()
    runner = StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=7)
    kept = ("loss/", "discriminator/", "adversarial_weight")
    return [
        {name: float(value) for name, value in result.scalars.items() if name.startswith(kept)}
        for result in runner.run(stop=5)
    ]


def main() -> None:
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    LOSSES.write_text(json.dumps(losses_of_five_steps(), indent=1) + "\n")


if __name__ == "__main__":
    main()
