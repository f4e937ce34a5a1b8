"""Parts of a tokenizer that are declared frozen, and tokenizers around a frozen one."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from network_cases import SIDE, TOKENIZERS, features
from torch import Tensor, nn

from vq.engine import AdversarialStep, Adversary, ReconstructionStep
from vq.errors import ConfigError
from vq.losses import HingeObjective, L1Loss
from vq.networks import LatentTokensDecoder, PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import (
    EMACodebook,
    FiniteScalarQuantizer,
    LearnedCodebook,
    NormalInit,
    ResidualQuantizer,
    VectorQuantizer,
)
from vq.tokenizers import (
    FeatureTokenizer,
    ImageTokenizer,
    Tokenizer,
    TokenizerWithDecoder,
    pretrained_tokenizer,
)
from vq.tokenizers.checkpoint import load_tokenizer, save_weights
from vq.tokenizers.feature import NoImageDecoderError

NET: dict[str, Any] = {"widths": (8, 8), "num_blocks": 1}
FRONT = ("encoder", "pre_quant", "quantizer")


def images(count: int = 4) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def small(codebook: type = EMACodebook) -> ImageTokenizer:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook=codebook(size=9, dim=6, init=NormalInit()))
    encoder = nn.Sequential(StridedCNNEncoder(**NET), nn.BatchNorm2d(8))
    encoder.downsample_factor, encoder.out_channels = 4, 8  # type: ignore[assignment]
    return ImageTokenizer(encoder=encoder, quantizer=quantizer, decoder=StridedCNNDecoder(**NET))


def step_of(tokenizer: Tokenizer, **changes: Any) -> ReconstructionStep:
    optimizer = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.5)
    return ReconstructionStep(
        **(
            {
                "tokenizer": tokenizer,
                "losses": {"l1": L1Loss()},
                "weights": {"l1": 1.0, "quantizer": 1.0},
                "optimizer": optimizer,
                "weight_ema": 0.9,
            }
            | changes
        )
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class TestFreeze:
    @pytest.mark.parametrize("codebook", [EMACodebook, LearnedCodebook])
    def test_frozen_parts_do_not_move_in_training(self, codebook: type) -> None:
        """Neither by the optimizer with its weight decay, nor by EMA, nor by the statistics of a batch norm."""
        tokenizer = small(codebook).freeze(FRONT).train()
        before, tokens = state(tokenizer), tokenizer.encode(images())
        step = step_of(tokenizer)
        for number in range(3):
            step([{"image": images()}], number)
        for name, tensor in tokenizer.state_dict().items():
            assert torch.equal(tensor, before[name]) == name.startswith(FRONT), name
        assert torch.equal(tokenizer.encode(images()), tokens)
        assert step.weight_ema is not None
        for name, tensor in step.weight_ema.average.items():
            assert not name.startswith(FRONT) or torch.equal(tensor, before[name]), name

    def test_without_freezing_all_of_them_move(self) -> None:
        """The same step on the same tokenizer: the test above could fail."""
        tokenizer = small().train()
        before = state(tokenizer)
        step_of(tokenizer)([{"image": images()}], 0)
        moved = {n for n, t in tokenizer.state_dict().items() if not torch.equal(t, before[n])}
        assert {"quantizer.codebook.sums", "encoder.1.running_mean", "pre_quant.weight"} <= moved

    def test_train_and_eval_keep_the_mode_of_frozen_parts(self) -> None:
        tokenizer = small().freeze(["quantizer"])
        for module in (tokenizer.train(), nn.Sequential(tokenizer).train()[0]):
            assert module.training
            assert module.encoder.training
            assert not module.quantizer.training
        assert not tokenizer.eval().encoder.training

    def test_a_frozen_part_is_in_no_optimizer(self) -> None:
        tokenizer = small(LearnedCodebook).freeze(FRONT)
        held = {id(p) for p in step_of(tokenizer).updated_parameters()}
        assert held == {id(p) for n, p in tokenizer.named_parameters() if not n.startswith(FRONT)}

    def test_an_unknown_part_is_refused(self) -> None:
        with pytest.raises(ValueError, match="has no part 'quantiser'; did you mean 'quantizer'"):
            small().freeze(["quantiser"])

    def test_an_adversarial_step_moves_the_decoder_alone(self) -> None:
        tokenizer = small().freeze(FRONT).train()
        before = state(tokenizer)
        adam = partial(torch.optim.Adam, lr=1e-3)
        adversary = Adversary(
            discriminator=PatchDiscriminator(base_width=8, depth=1),
            objective=HingeObjective(),
            optimizer=adam,
        )
        step = AdversarialStep(
            tokenizer=tokenizer,
            losses={"l1": L1Loss()},
            weights={"l1": 1.0, "quantizer": 1.0, "adversarial": 0.5},
            adversary=adversary,
            optimizer=adam,
            accumulate=2,
        )
        step([{"image": images()}, {"image": images(3)}], 0)
        for name, tensor in tokenizer.state_dict().items():
            assert torch.equal(tensor, before[name]) == name.startswith(FRONT), name


class TestFeatureTokenizer:
    def test_it_predicts_features_and_has_no_pixels(self) -> None:
        tokenizer = features().eval()
        output = tokenizer(images() / 127.5 - 1)
        assert output.reconstruction.shape == (4, 5, 4, 4)
        assert torch.equal(output.quantize.indices, tokenizer.encode(images()))
        assert torch.equal(tokenizer.codes(output.quantize.indices), output.quantize.quantized)
        with pytest.raises(NoImageDecoderError, match=r"has no image decoder.*configs/decoder/vqgan.py"):
            tokenizer.decode(output.quantize.indices)

    def test_without_a_decoder_it_returns_the_codes(self) -> None:
        output = features(has_decoder=False).eval()(images() / 127.5 - 1)
        assert torch.equal(output.reconstruction.movedim(1, -1), output.quantize.quantized)

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"expected encoder.out_channels to be 3, the quantizer's"):
            features(quantizer=FiniteScalarQuantizer(levels=[4, 4, 4]))


def _codes() -> VectorQuantizer:
    return VectorQuantizer(codebook=EMACodebook(size=9, dim=6, init=NormalInit()))


class TestTokenizerWithDecoder:
    @pytest.mark.parametrize("kind", ["strided", "vit-learned", "features", "residual", "nested"])
    def test_a_decoder_learns_on_the_tokens_of_any_kind(self, kind: str) -> None:
        torch.manual_seed(0)
        inner = {
            "features": features,
            "residual": lambda: features(quantizer=ResidualQuantizer(quantizers=[_codes(), _codes()])),
            "nested": lambda: TokenizerWithDecoder(tokenizer=features(), decoder=StridedCNNDecoder(**NET)),
        }.get(kind, TOKENIZERS.get(kind))
        assert inner is not None
        whole = TokenizerWithDecoder(tokenizer=inner(), decoder=StridedCNNDecoder(**NET)).train()
        before, tokens = state(whole), whole.encode(images())
        assert torch.equal(tokens, whole.tokenizer.encode(images()))
        step = step_of(whole)
        losses = [float(step([{"image": images()}], number)["loss/l1"]) for number in range(20)]
        assert losses[-1] < losses[0]
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, before[name]) == name.startswith("tokenizer."), name
        assert torch.equal(whole.encode(images()), tokens)
        assert whole.eval().decode(tokens).shape == (4, 3, SIDE, SIDE)

    def test_averaged_weights_without_those_of_the_tokenizer(self) -> None:
        """As in a training with `weight_ema` and `stores_tokenizer=False`: stepped, validated and continued."""
        whole = TokenizerWithDecoder(
            tokenizer=features(), decoder=StridedCNNDecoder(**NET), stores_tokenizer=False
        ).train()
        tokens, step = whole.encode(images()), step_of(whole)
        step([{"image": images()}], 0)
        assert step.weight_ema is not None
        assert not any(name.startswith("tokenizer.") for name in step.weight_ema.average)
        own = state(whole)
        with step.weight_ema.applied():
            assert not torch.equal(whole.post_quant.weight, own["post_quant.weight"])
            assert torch.equal(whole.encode(images()), tokens)
        assert torch.equal(whole.post_quant.weight, own["post_quant.weight"])
        with pytest.raises(RuntimeError, match=r"Missing key.*post_quant.weight"):
            whole.load_state_dict({name: t for name, t in own.items() if name != "post_quant.weight"})

    def test_autocast_does_not_change_the_tokens(self) -> None:
        whole = TokenizerWithDecoder(tokenizer=features(), decoder=StridedCNNDecoder(**NET)).train()
        tokens = whole.encode(images())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(whole.encode(images()), tokens)
            assert torch.equal(whole(images() / 127.5 - 1).quantize.indices, tokens)

    @pytest.mark.parametrize(
        ("inner", "decoder", "message"),
        [
            ("two-levels", lambda: StridedCNNDecoder(**NET), "two maps have different sizes"),
            (
                "strided",
                lambda: StridedCNNDecoder(widths=(8, 8, 8)),
                "expected a decoder with upsampling factor 4",
            ),
            ("latent-tokens", lambda: StridedCNNDecoder(**NET), "the encoder produces a sequence of 5"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, inner: str, decoder: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TokenizerWithDecoder(tokenizer=TOKENIZERS[inner](), decoder=decoder())

    def test_a_sequence_of_latents_gets_a_decoder_of_sequences(self) -> None:
        inner = TOKENIZERS["latent-tokens"]()
        assert isinstance(inner, ImageTokenizer)
        assert isinstance(inner.decoder, LatentTokensDecoder)
        whole = TokenizerWithDecoder(tokenizer=inner, decoder=inner.decoder)
        assert whole(images() / 127.5 - 1).reconstruction.shape == (4, 3, SIDE, SIDE)


def description(**frozen: Any) -> dict[str, Any]:
    """A tokenizer as config data, and the same with a decoder of its own around it."""
    net = {"widths": [8, 8], "num_blocks": 1}
    return {
        "type": "vq.tokenizers.ImageTokenizer",
        "encoder": {"type": "vq.networks.StridedCNNEncoder", **net},
        "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 4]},
        "decoder": {"type": "vq.networks.StridedCNNDecoder", **net},
    } | frozen


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        torch.manual_seed(1)
        tokenizer = ImageTokenizer(
            encoder=StridedCNNEncoder(**NET),
            quantizer=FiniteScalarQuantizer(levels=[5, 4]),
            decoder=StridedCNNDecoder(**NET),
        )
        save_weights(tokenizer.state_dict(), tmp_path / "model.safetensors", {"tokenizer": description()})
        return tmp_path / "model.safetensors"

    @pytest.mark.parametrize("is_stored", [True, False])
    def test_a_decoder_run_is_loaded_whole(self, file: Path, is_stored: bool, tmp_path: Path) -> None:
        inner = pretrained_tokenizer(weights=[str(file)])
        assert isinstance(inner, Tokenizer)
        whole = TokenizerWithDecoder(
            tokenizer=inner, decoder=StridedCNNDecoder(**NET), stores_tokenizer=is_stored
        )
        assert any(name.startswith("tokenizer.") for name in whole.state_dict()) == is_stored
        node = {
            "type": "vq.tokenizers.TokenizerWithDecoder",
            "tokenizer": {
                "type": "vq.tokenizers.pretrained_tokenizer",
                "weights": [str(file)],
                "tokenizer": description(),
            },
            "decoder": description()["decoder"],
            "stores_tokenizer": is_stored,
        }
        saved = tmp_path / "decoder.safetensors"
        save_weights(whole.state_dict(), saved, {"tokenizer": node})
        loaded = load_tokenizer(saved)
        tokens = whole.encode(images())
        assert torch.equal(loaded.encode(images()), tokens)
        assert torch.equal(loaded.decode(tokens), whole.eval().decode(tokens))
        file.unlink()
        if is_stored:
            assert torch.equal(load_tokenizer(saved).encode(images()), tokens)
        else:
            with pytest.raises(ConfigError, match=r"tokenizer\.tokenizer: .*there is no such file"):
                load_tokenizer(saved)

    def test_a_part_of_a_trained_tokenizer_can_be_frozen(self, file: Path) -> None:
        tokenizer = pretrained_tokenizer(weights=[str(file)], frozen=FRONT)
        assert isinstance(tokenizer, Tokenizer)
        assert tokenizer.frozen == FRONT
        trained = {n for n, p in tokenizer.named_parameters() if p.requires_grad}
        assert trained == {
            n for n, _ in tokenizer.named_parameters() if n.startswith(("decoder.", "post_quant."))
        }
        whole = pretrained_tokenizer(weights=[str(file)])
        assert not any(p.requires_grad for p in whole.parameters())


def test_a_parameter_that_nobody_updates_or_freezes_is_refused() -> None:
    from vq.engine.steps.checks import check_all_updated

    tokenizer = small()
    tokenizer.pre_quant.requires_grad_(requires_grad=False)
    step = step_of(tokenizer)
    with pytest.raises(
        ValueError, match=r"2 parameters are neither updated nor declared frozen: pre_quant.weight"
    ):
        check_all_updated(tokenizer, step.updated_parameters())
    check_all_updated(tokenizer.freeze(["pre_quant"]), step.updated_parameters())


def test_a_model_without_anything_to_optimize() -> None:
    """Streaming statistics alone: no optimizer is needed, and one that has nothing to do is refused."""
    tokenizer = FeatureTokenizer(
        encoder=features().encoder,
        quantizer=VectorQuantizer(codebook=EMACodebook(size=9, dim=6, init=NormalInit())),
    ).freeze(["encoder"])
    with pytest.raises(ValueError, match="optimizer: expected None, because nothing here learns by gradient"):
        step_of(tokenizer, losses={}, weights={"quantizer": 1.0})
    step = step_of(tokenizer.train(), losses={}, weights={"quantizer": 1.0}, optimizer=None, weight_ema=None)
    before = state(tokenizer)
    step([{"image": images()}], 0)
    moved = {n for n, t in tokenizer.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {f"quantizer.codebook.{name}" for name in ("weight", "usage", "sums")}
    step.load_state_dict(step.state_dict())
