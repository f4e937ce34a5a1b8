"""A training step over two micro-batches has the scalars and the weights of one over the whole batch."""

import pytest
import torch
from commands import TINY
from gpu.devices import CPU_AND_CUDA

from vq import config
from vq.engine import TrainStep, assembly


def made_step(device: str, accumulate: int) -> TrainStep:
    tree = config.load(TINY).to_dict()
    tree["train_step"] |= {"accumulate": accumulate, "optimizer": {"type": "torch.optim.SGD", "lr": 0.01}}
    tree["tokenizer"]["quantizer"]["codebook"]["init"] = {"type": "NormalInit"}
    model = assembly.make_tokenizer(tree, seed=1).double().to(device).train()
    return assembly.make_step(tree, model)


@pytest.mark.parametrize("device", CPU_AND_CUDA)
def test_two_micro_batches_equal_one_large_batch(device: str) -> None:
    image = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    whole, parts = (made_step(device, accumulate) for accumulate in (1, 2))
    wanted = whole([{"image": image}], 3)
    found = parts([{"image": image[:3]}, {"image": image[3:]}], 3)
    for name in ("loss/total", "loss/l1", "loss/quantizer", "gradient_norm"):
        torch.testing.assert_close(found[name], wanted[name], atol=1e-8, rtol=1e-8, msg=name)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, atol=1e-8, rtol=1e-8, msg=name)
