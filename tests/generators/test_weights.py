"""A generator with converted weights computes nearly the same logits, and samples by every path."""

from typing import Any

import pytest
import torch
from torch import nn

from vq.generate import arguments
from vq.generators import (
    DecoderTransformer,
    Generator,
    GPT2Style,
    MaskedGenerator,
    PixelCNNGenerator,
    TransformerGenerator,
    convert_weights,
    transformer,
)
from vq.generators.packed import packed_weights
from vq.generators.weights import WEIGHT_DTYPES
from vq.layers.scaled_linear import ScaledLinear

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
SHAPE: dict[str, Any] = {"vocabulary_size": 40, "num_classes": 3, "grid": (5, 8)}


def network(**changes: Any) -> DecoderTransformer:
    return DecoderTransformer(**({"width": 32, "depth": 2, "num_heads": 4} | changes))


def generator_of(kind: str) -> Generator:
    torch.manual_seed(0)
    made: Generator
    if kind == "masked":
        made = MaskedGenerator(transformer=network(), **SHAPE)
    elif kind == "stacked":
        parts: dict[str, Any] = {
            "transformer": network(style=GPT2Style()),
            "depth_transformer": network(depth=1),
        }
        made = TransformerGenerator(**parts, num_indices=2, **SHAPE)
    else:
        made = TransformerGenerator(transformer=network(), **SHAPE)
    for weight in made.parameters():  # logits that differ clearly, and biases that are not zero
        nn.init.normal_(weight, std=0.2)
    return made.eval()


def test_a_weight_is_off_by_at_most_half_a_step_of_its_row() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(30, 7)
    layer.weight.data *= torch.logspace(-20, 20, 7)[:, None]
    layer.weight.data[3] = 0
    made = ScaledLinear(layer, torch.int8)
    off = (made.weight * made.scale[:, None] - layer.weight).abs()
    assert bool((off <= 0.5001 * layer.weight.abs().amax(1, keepdim=True) / 127).all())
    assert made.weight.abs().amax(1).tolist() == [127, 127, 127, 0, 127, 127, 127]
    eight = ScaledLinear(layer, torch.float8_e4m3fn)
    off = (eight.weight.float() * eight.scale[:, None] - layer.weight).abs()
    assert bool((off <= layer.weight.abs() / 16 + layer.weight.abs().amax(1, keepdim=True) * 1e-5).all())


@torch.no_grad()
@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["llama", "stacked", "masked"])
def test_logits_and_samples(kind: str, dtype: str, device: str) -> None:
    exact, given = generator_of(kind).to(device), generator_of(kind).to(device)
    indices = torch.randint(40, (4, 40) if kind != "stacked" else (4, 40, 2), device=device)
    label = torch.tensor([0, 1, 2, 3], device=device)
    wanted = exact(indices, label)
    assert convert_weights(given, dtype) > 20_000
    found = given(indices, label)
    assert abs(float(found.loss) - float(wanted.loss)) < 0.02 * float(wanted.loss)
    settings: dict[str, Any] = {"seeds": range(4), "guidance": 2.0, "top_k": 9, "top_p": 0.95}
    drawn = given.generate(label, **settings)
    assert 0 <= int(drawn.min()) < int(drawn.max()) < 40
    assert torch.equal(given.generate(label, **settings), drawn)


@torch.no_grad()
@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs a CPU with VNNI")
@pytest.mark.parametrize("bias", [True, False])
def test_integer_products_of_a_cpu_round_each_row_by_itself(bias: bool) -> None:
    torch.manual_seed(0)
    made = ScaledLinear(nn.Linear(96, 50, bias=bias), torch.int8)
    x = torch.randn(5, 3, 96) * torch.logspace(-6, 6, 5)[:, None, None]
    x[0, 0] = 0
    x[2, 1, 7] = torch.nan
    exact = made(x)
    with packed_weights(made, rows=15):
        found = made(x)
        assert torch.equal(made(x[3:4, 1:2]), found[3:4, 1:2])
        assert bool(found[2, 1].isnan().all())
    made.weight.neg_()  # what was packed before is not used again
    with packed_weights(made, rows=15):
        bias_twice = 0 if made.bias is None else 2 * made.bias
        torch.testing.assert_close(made(x[3]), bias_twice - found[3])
    made.weight.neg_()
    off = (found - exact).abs().nan_to_num()
    # Half a step of 1/127 of the largest input, times the sum of the row's weights.
    step = x.abs().amax(-1, keepdim=True).nan_to_num() / 254
    assert bool((off <= 1.01 * step * (made.weight * made.scale[:, None]).abs().sum(1) + 1e-6).all())
    assert float(off.max()) > 0  # the packed product was used


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_recorded_step_samples_as_the_others_do(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = generator_of("llama").to(device)
    convert_weights(given, "int8")
    if device == "cpu":
        given.double()  # attention over the whole memory sums in another order
    request: dict[str, Any] = {"seeds": range(3), "guidance": 2.0, "top_k": 9, "temperature": 0.5}
    drawn = []
    for is_recorded in (False, True):
        monkeypatch.setattr(transformer, "can_be_recorded", lambda *_, x=is_recorded, **__: x)
        drawn.append(given.generate([0, 1, 2], **request))
    assert torch.equal(*drawn)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_its_transformer_compiles_to_one_graph(device: str) -> None:
    torch.manual_seed(0)
    given = TransformerGenerator(transformer=network(depth=1), **SHAPE).to(device)
    convert_weights(given, "int8")
    x = torch.randn(2, 5, 32, device=device, dtype=next(given.parameters()).dtype)
    compiled = torch.compile(
        given.transformer, fullgraph=True, backend="aot_eager" if device == "cpu" else "inductor"
    )
    torch.testing.assert_close(
        compiled(x), given.transformer(x), atol=1e-5 if device == "cpu" else 0.1, rtol=0
    )


def test_what_cannot_be_converted_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of bfloat16, int8, float8, got 'int4'"):
        convert_weights(generator_of("llama"), "int4")
    with pytest.raises(
        ValueError, match=r"float8: expected a CUDA device of compute capability 8\.9 or later"
    ):
        convert_weights(generator_of("llama"), "float8")
    pixels = PixelCNNGenerator(width=8, depth=1, **SHAPE)
    with pytest.raises(
        ValueError, match=r"int8: expected a generator whose matrices are nn\.Linear, got PixelCNN"
    ):
        convert_weights(pixels, "int8")
    broken = generator_of("llama")
    broken.get_submodule("transformer.blocks.1.out").get_parameter("weight").data[0, 0] = torch.inf
    with pytest.raises(ValueError, match="expected finite weights, got 1 values"):
        convert_weights(broken, "int8")


def test_the_command_knows_the_same_types() -> None:
    choices = {action.dest: action.choices for action in arguments()._actions}["weight_dtype"]
    assert choices == list(WEIGHT_DTYPES)
