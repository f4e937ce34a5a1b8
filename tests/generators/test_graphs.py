"""A step that is recorded in a CUDA graph samples the same indices as a step that is not."""

from typing import Any

import pytest
import torch

from vq.generators import (
    DecoderTransformer,
    GPT2Style,
    LinearGuidance,
    LlamaStyle,
    TransformerGenerator,
    graphs,
    transformer,
)
from vq.generators.sampling import NotFiniteLogitsError, Sampler, sampler_of

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


def network(**changes: Any) -> DecoderTransformer:
    return DecoderTransformer(**({"width": 32, "depth": 2, "num_heads": 4} | changes))


def generator_of(kind: str) -> TransformerGenerator:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocabulary_size": 40, "num_classes": 3, "grid": (5, 6)}
    parts: dict[str, dict[str, Any]] = {
        "llama": {"transformer": network()},
        "zigzag": {"transformer": network(num_kv_heads=2, style=LlamaStyle(qk_norm=True)), "order": "zigzag"},
        "stacked": {
            "transformer": network(style=GPT2Style()),
            "num_indices": 3,
            "depth_transformer": network(depth=1),
        },
    }
    return TransformerGenerator(**shape, **parts[kind]).eval().double()


def record(monkeypatch: pytest.MonkeyPatch, *, is_recorded: bool) -> None:
    """Chooses the step, which otherwise depends on the device."""
    monkeypatch.setattr(transformer, "can_be_recorded", lambda *_, **__: is_recorded)


SETTINGS: dict[str, dict[str, Any]] = {
    "guided": {"guidance": 2.0, "top_k": 13, "top_p": 0.9},
    "rising": {"guidance": LinearGuidance(3.0, start=0.3), "temperature": 0.7},
    "plain": {},
    "greedy": {"temperature": 0.0},
}


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kind", ["llama", "zigzag", "stacked"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_recorded_step_samples_the_same_indices(
    kind: str, name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: attention over the whole memory sums in another order. On a CPU the step is run, not replayed."""
    generator = generator_of(kind).to(device)
    request = {"label": [0, 1, 2], "seeds": [5, 6, 7], **SETTINGS[name]}
    for given in (0, 7):
        prefix = (
            torch.arange(given * generator.num_indices)
            .view(1, given, generator.num_indices)
            .expand(3, -1, -1)
            % 40
        )
        prefix = prefix if generator.num_indices > 1 else prefix[..., 0]
        record(monkeypatch, is_recorded=False)
        expected = generator.generate(**request, prefix=prefix)
        record(monkeypatch, is_recorded=True)
        assert torch.equal(generator.generate(**request, prefix=prefix), expected)
    assert expected.unique().numel() > 5


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_logits_that_are_not_finite_are_named_after_the_last_step(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generator_of("llama").to(device)
    greedy = generator.generate([1], seeds=[0], temperature=0.0).flatten().tolist()
    # The index that is sampled first breaks the logits of the position after it.
    generator.stem.tables.weight.data[greedy[0]] = torch.nan
    record(monkeypatch, is_recorded=True)
    with pytest.raises(
        NotFiniteLogitsError, match=r"got NaN for image 0 of the batch at position 1, index 0"
    ):
        generator.generate([1], seeds=[0], temperature=0.0)


def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def can(num_steps: int = 256, device: str = "cuda", **settings: Any) -> bool:
        sampler: Sampler = sampler_of(**settings)
        return graphs.can_be_recorded(
            sampler, device=torch.device(device), num_steps=num_steps, vocabulary_size=40
        )

    monkeypatch.setattr("vq.ops.kernels._is_installed", lambda: True)
    monkeypatch.delenv("VQ_KERNELS", raising=False)
    assert can(top_k=5, top_p=0.9)
    assert can(top_p=0.9, temperature=0.0)
    assert not can(top_p=0.9)
    assert not can(top_k=40, top_p=0.9)
    assert not can(top_k=5, top_p=0.9, ranges=((0, 40), (3, 8)))
    assert not can(num_steps=8)
    assert not can(device="cpu")
    monkeypatch.setenv("VQ_KERNELS", "eager")
    assert not can()
