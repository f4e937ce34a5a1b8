"""Keyed randomness: equal keys give equal numbers everywhere, different keys different ones."""

import subprocess
import sys

import pytest
import torch

from vq.ops.keyed import generator, stable_hash


def test_the_hash_never_changes():
    # Recorded values. If they change, resumed runs and the split of the emoji change too.
    assert stable_hash("sample", 0, 7) == 3407133261395394202


def test_another_process_draws_the_same_numbers():
    program = (
        "import torch; from vq.ops.keyed import generator;"
        "print(torch.rand(3, generator=generator('a', 1)).tolist())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(torch.rand(3, generator=generator("a", 1)).tolist())


@pytest.mark.parametrize(
    "other", [("a", 1), ("a", 12, 3), ("a1", 23), ("a", "1", 23), (1, 23, "a"), ("a", 23, 1), ("a", -1, 23)]
)
def test_different_keys_are_different(other):
    key = ("a", 1, 23)
    assert stable_hash(*key) != stable_hash(*other)
    assert not torch.equal(
        torch.rand(8, generator=generator(*key)), torch.rand(8, generator=generator(*other))
    )


def test_neighbouring_keys_are_independent():
    draws = torch.stack([torch.rand(4, generator=generator("x", i)) for i in range(2000)])
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(torch.stack([draws[:-1].flatten(), draws[1:].flatten()]))[0, 1].abs() < 0.03


def test_a_boolean_is_no_key():
    with pytest.raises(TypeError, match="key: expected int and str parts, got True; convert it first"):
        stable_hash("a", True)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=generator("a"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_made_on_the_cpu_even_below_another_default_device():
    with torch.device("meta"):
        assert generator("a").device.type == "cpu"
