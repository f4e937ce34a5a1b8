"""IBQ's tokenizer gives the recorded indices and images, from the averaged weights."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, convert, from_dialect, recognise
from vq.registry import build


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("ibq")
    found = convert(state, "ibq")
    tokenizer = build(found.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(found.tensors))
    latent = tokenizer.latent(pixels(16))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent.movedim(-1, 1), wanted["latent"], rtol=0, atol=1e-4)
    assert torch.equal(tokenizer.encode(pixels(16)), wanted["indices"])
    assert len(wanted["indices"].unique()) > 5
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], rtol=0, atol=1e-4)


def test_without_averages_the_last_weights_are_taken() -> None:
    state, _ = recorded("ibq")
    averaged = convert(state, "ibq").tensors
    last = convert({n: t for n, t in state.items() if not n.startswith("model_ema.")}, "ibq").tensors
    assert last.keys() == averaged.keys()
    assert not torch.equal(last["quantizer.codes"], averaged["quantizer.codes"])


def test_what_is_not_the_tokenizer_is_left_out() -> None:
    state, _ = recorded("ibq")
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(3)}
    others = {
        "loss.discriminator.main.0.weight": torch.zeros(1),
        "model_ema.lossdiscriminatormain0weight": torch.zeros(1),
    }
    assert set(convert(state | counters | others, "ibq").ignored) == {*counters, *others}


def test_an_average_without_its_weight_is_refused() -> None:
    state, _ = recorded("ibq")
    with pytest.raises(
        InteropError, match=r"expected an average of each weight, got 1 .* \(encoderconv_inbias\)"
    ):
        convert({n: t for n, t in state.items() if n != "encoder.conv_in.bias"}, "ibq")


def test_the_names_are_those_of_a_vqgan_too() -> None:
    state, _ = recorded("ibq")
    with pytest.raises(InteropError, match="that taming and ibq share; say which it is"):
        recognise(state)
    with torch.device("meta"):
        vqgan = build(
            {"type": "ImageTokenizer"}
            | {
                part: {
                    "type": f"vq.networks.CNN{part.title()}",
                    key: 16,
                    "multipliers": [1, 2],
                    "num_blocks": 4,
                }
                for part, key in (("encoder", "out_channels"), ("decoder", "in_channels"))
            }
            | {
                "quantizer": {
                    "type": "vq.quantizers.VectorQuantizer",
                    "codebook": {"type": "vq.quantizers.LearnedCodebook", "size": 32, "dim": 8},
                }
            },
            path="tokenizer",
        )
    with pytest.raises(
        InteropError, match="expected a tokenizer with an IndexBackpropagationQuantizer, got VectorQ"
    ):
        from_dialect(vqgan, state, "ibq")
