"""Translation of the names and shapes of published files in both directions, and its errors."""

import pytest
import torch
from torch import Tensor

from vq.interop import (
    InteropError,
    convert,
    from_dialect,
    from_diffusers,
    from_llamagen,
    from_taming,
    to_diffusers,
    to_llamagen,
    to_taming,
)
from vq.networks import CNNDecoder, CNNEncoder
from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    EuclideanDistance,
    FiniteScalarQuantizer,
    LearnedCodebook,
    Quantizer,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer

WAYS = {
    "taming": (from_taming, to_taming),
    "llamagen": (from_llamagen, to_llamagen),
    "diffusers": (from_diffusers, to_diffusers),
}


def vector_quantizer(dialect: str, *, size: int = 32, dim: int = 8) -> VectorQuantizer:
    distance = CosineDistance() if dialect == "llamagen" else EuclideanDistance()
    return VectorQuantizer(codebook=LearnedCodebook(size=size, dim=dim), distance=distance)


def tokenizer_of(quantizer: Quantizer, *, out_channels: int = 16, **network: object) -> ImageTokenizer:
    """Makes a tokenizer, on the meta device unless the network is small."""
    return ImageTokenizer(
        encoder=CNNEncoder(out_channels=out_channels, **network),
        quantizer=quantizer,
        decoder=CNNDecoder(in_channels=out_channels, **network),
    )


def small(dialect: str, **network: object) -> ImageTokenizer:
    with torch.device("meta"):
        return tokenizer_of(vector_quantizer(dialect), **({"multipliers": (1, 2), "num_blocks": 1} | network))


@pytest.fixture(params=WAYS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def state(dialect: str) -> dict[str, Tensor]:
    return WAYS[dialect][1](small(dialect).state_dict())


@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1, 2, 2, 4)])
@pytest.mark.parametrize("attention", [True, False])
def test_there_and_back(dialect: str, num_blocks: int, multipliers: tuple[int, ...], attention: bool) -> None:
    read, write = WAYS[dialect]
    tokenizer = small(dialect, num_blocks=num_blocks, multipliers=multipliers, attention=attention)
    own = tokenizer.state_dict()
    theirs = write(own)
    assert len(theirs) == len(own) - 1  # only ours has `initialised`
    back = read(theirs)
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in own.items()}
    assert back["quantizer.codebook.initialised"] == 1
    assert write(back).keys() == theirs.keys()


def test_taming_f16_as_published() -> None:
    with torch.device("meta"):
        published = to_taming(
            tokenizer_of(vector_quantizer("taming", size=1024, dim=256), out_channels=256).state_dict()
        )
    assert len(published) == 343
    assert round(sum(t.numel() for t in published.values()) / 1e6, 2) == 72.14
    wanted = {
        "encoder.down.2.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.4.attn.1.proj_out.weight": (512, 512, 1, 1),
        "encoder.down.3.downsample.conv.weight": (256, 256, 3, 3),
        "decoder.up.4.block.0.conv1.weight": (512, 512, 3, 3),
        "decoder.up.4.attn.2.q.bias": (512,),
        "decoder.up.1.upsample.conv.weight": (128, 128, 3, 3),
        "decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
        "quantize.embedding.weight": (1024, 256),
    }
    assert {n: tuple(published[n].shape) for n in wanted} == wanted


@pytest.mark.parametrize(("multipliers", "count"), [((1, 1, 2, 2, 4), 344), ((1, 2, 2, 4), 300)])
def test_llamagen_as_published(multipliers: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        tokenizer = tokenizer_of(
            vector_quantizer("llamagen", size=16384), out_channels=256, multipliers=multipliers
        )
    published = to_llamagen(tokenizer.state_dict())
    assert len(published) == count - 1  # and the buffer codebook_used
    assert published["decoder.conv_blocks.0.attn.2.q.weight"].shape == (512, 512, 1, 1)
    assert published["quant_conv.weight"].shape == (8, 256, 1, 1)
    statistic = {"quantize.codebook_used": torch.zeros(65536)}
    assert from_llamagen(published | statistic).keys() == tokenizer.state_dict().keys()


def test_diffusers_attention_is_linear() -> None:
    theirs = to_diffusers(small("diffusers").state_dict())
    assert theirs["decoder.up_blocks.0.attentions.1.to_out.0.weight"].shape == (256, 256)
    assert theirs["quant_conv.weight"].shape == (8, 16, 1, 1)


def test_old_diffusers_names() -> None:
    theirs = to_diffusers(small("diffusers").state_dict())
    old = theirs
    for new_name, old_name in (
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ):
        old = {n.replace(f".{new_name}.", f".{old_name}."): t for n, t in old.items()}
    assert old.keys() != theirs.keys()
    assert to_diffusers(from_diffusers(old)).keys() == theirs.keys()


def test_taming_leaves_the_losses_and_the_transformer_out() -> None:
    theirs = to_taming(small("taming").state_dict())
    extra = {"loss.discriminator.main.0.weight": torch.zeros(1)}
    assert from_taming(theirs | extra).keys() == from_taming(theirs).keys()
    nested = {f"first_stage_model.{n}": t for n, t in (theirs | extra).items()}
    assert (
        from_taming(nested | {"transformer.head.weight": torch.zeros(1)}).keys() == from_taming(theirs).keys()
    )


def test_a_name_without_counterpart(dialect: str, state: dict[str, Tensor]) -> None:
    read, write = WAYS[dialect]
    message = rf"{dialect} weights: .* 1 with no counterpart \(quantize.proj.weight\); check which project"
    with pytest.raises(InteropError, match=message):
        read(state | {"quantize.proj.weight": torch.zeros(1)})
    with torch.device("meta"):
        other = tokenizer_of(
            VectorQuantizer(codebook=EMACodebook(size=8, dim=8)), multipliers=(1,), num_blocks=1
        )
    with pytest.raises(InteropError, match=rf"a tokenizer for {dialect}: .* \(quantizer.codebook.usage, "):
        write(other.state_dict())


def test_a_tensor_that_is_missing(dialect: str, state: dict[str, Tensor]) -> None:
    del state["quant_conv.bias"]
    message = rf"{dialect} weights: .* got 1 missing: pre_quant.bias; use the config"
    with pytest.raises(InteropError, match=message):
        from_dialect(small(dialect), state, dialect)


def test_another_architecture(dialect: str, state: dict[str, Tensor]) -> None:
    with pytest.raises(
        InteropError, match=r"56 missing: encoder.levels.0.1.norm1.weight, .*, \.\.\.; use the"
    ):
        from_dialect(small(dialect, num_blocks=2), state, dialect)
    with pytest.raises(InteropError, match=r"left over: .*encoder.levels.1"):
        from_dialect(small(dialect, multipliers=(1,)), state, dialect)
    with pytest.raises(
        InteropError, match=r"2 of another shape: encoder.head.weight \(16, .* for \(4.*"
    ) as caught:
        from_dialect(small(dialect, out_channels=4), _without_latents(state), dialect)
    assert "pre_quant" not in str(caught.value)


def _without_latents(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state with other shapes for the tensors next to the latents."""
    return state | {
        "quant_conv.weight": torch.zeros(8, 4, 1, 1),
        "post_quant_conv.weight": torch.zeros(4, 8, 1, 1),
        "post_quant_conv.bias": torch.zeros(4),
        "decoder.conv_in.weight": torch.zeros(256, 4, 3, 3),
    }


def test_another_geometry_is_refused(dialect: str, state: dict[str, Tensor]) -> None:
    other = "taming" if dialect == "llamagen" else "llamagen"
    with pytest.raises(
        InteropError, match=r"expected a quantizer with \w+Distance, got .* learned with the former"
    ):
        from_dialect(small(other), state, dialect)


def test_another_quantizer_is_refused(dialect: str, state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        fsq = tokenizer_of(FiniteScalarQuantizer(levels=[4, 4]), multipliers=(1,), num_blocks=1)
    with pytest.raises(InteropError, match="expected a tokenizer with a VectorQuantizer, got FiniteScalar"):
        from_dialect(fsq, state, dialect)


def test_norms_of_fewer_groups_are_refused(dialect: str, state: dict[str, Tensor]) -> None:
    message = r"expected 32 groups in every norm, got 4 in encoder.levels.0.0.norm1 of 16 channels"
    with pytest.raises(InteropError, match=message):
        from_dialect(small(dialect, base_width=16), state, dialect)


def test_an_unknown_dialect() -> None:
    with pytest.raises(InteropError, match=r"dialect: expected one of taming, .*beitv2.*, got 'jax'"):
        from_dialect(small("taming"), {}, "jax")


def test_nothing_is_copied(dialect: str) -> None:
    read, write = WAYS[dialect]
    tokenizer = tokenizer_of(
        VectorQuantizer(codebook=LearnedCodebook(size=4, dim=2), distance=CosineDistance()),
        multipliers=(1,),
        num_blocks=1,
        base_width=8,
    )
    own = tokenizer.state_dict()
    back = read(write(own))
    assert all(back[n].data_ptr() == t.data_ptr() for n, t in own.items() if not n.endswith("initialised"))
    assert all(torch.equal(back[n], t) for n, t in own.items())


def test_networks_for_other_pixel_values_are_refused(dialect: str, state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        network = {"multipliers": (1, 2), "num_blocks": 1}
        other = ImageTokenizer(
            encoder=CNNEncoder(out_channels=16, **network),
            quantizer=vector_quantizer(dialect),
            decoder=CNNDecoder(in_channels=16, **network),
            value_range=(0, 1),
        )
    with pytest.raises(
        InteropError, match=rf"{dialect} weights: expected a tokenizer with value_range \(-1.0, 1.0\)"
    ):
        from_dialect(other, state, dialect)


def test_options_beside_a_config_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(InteropError, match=r"expected no options beside a config, .* got with_decoder"):
        convert(state, "beitv2", options={"with_decoder": True}, config={"tokenizer": {}})
