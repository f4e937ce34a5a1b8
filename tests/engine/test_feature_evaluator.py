"""Evaluation of a tokenizer without an image decoder: scores of codes and vectors, and pictures of index maps."""

import logging

import pytest
import torch
from torch import nn

from vq.data import ImageLoader, ProceduralDataset
from vq.engine import Evaluator
from vq.engine.jobs.score_report import VisualWriter, visual_kinds
from vq.errors import ConfigError
from vq.metrics import PSNR, CodebookUsage, LevelUsage, Perplexity, QuantizationError, TeacherCosine
from vq.networks import CNNDecoder, CNNEncoder
from vq.ops.images import to_signed_unit
from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    LearnedCodebook,
    MiniBatchKMeansCodebook,
    NormalInit,
    ProductQuantizer,
    VectorQuantizer,
)
from vq.tokenizers import FeatureTokenizer, ImageTokenizer


class Patches(nn.Module):
    """A frozen encoder and teacher without weights: the mean colours of patches of 4 x 4 pixels."""

    in_channels = out_channels = 3
    downsample_factor = 4

    def __init__(self, channels_last):
        super().__init__()
        self.register_buffer("one", torch.ones(()))
        self.channels_last = channels_last

    def forward(self, image):
        means = nn.functional.avg_pool2d(image, 4) * self.one
        return means.movedim(1, -1) if self.channels_last else means


def cluster(**kwargs):
    codebook = MiniBatchKMeansCodebook(size=8, dim=3, init=NormalInit(std=0.3))
    return FeatureTokenizer(
        encoder=Patches(channels_last=False), quantizer=VectorQuantizer(codebook=codebook, **kwargs)
    )


@pytest.fixture
def loader():
    dataset = ProceduralDataset(num_images=11, image_size=16, seed=1)
    return ImageLoader(dataset=dataset, batch_size=4, shuffle=False)


def all_images(loader):
    return to_signed_unit(torch.cat([batch["image"] for batch in loader.pass_batches()]))


@pytest.mark.parametrize("distance", [None, CosineDistance()], ids=["euclidean", "cosine"])
def test_the_scores_are_those_of_the_whole_set(loader, distance):
    tokenizer = cluster(distance=distance)
    metrics = [
        CodebookUsage(codebook_size=8),
        Perplexity(codebook_size=8),
        LevelUsage(codebook_sizes={"all": 8}),
        QuantizationError(codebook_dim=3),
        TeacherCosine(teacher=Patches(channels_last=True)),
    ]
    evaluator, seen = Evaluator(metrics=metrics), []
    evaluator.check(tokenizer, loader)
    found = evaluator.evaluate(tokenizer, loader, on_batch=lambda *values: seen.append(values))
    image = all_images(loader)
    indices, z = tokenizer.encode(image), tokenizer.latent(image)
    code = tokenizer.codes(indices)
    placed = z if distance is None else nn.functional.normalize(z, dim=-1)
    cosine = nn.functional.cosine_similarity(code, z, dim=-1)
    assert found.num_images == 11
    assert found.scores["codebook_usage"] == len(indices.unique()) / 8 == found.scores["codebook_usage[all]"]
    error = (placed - code).square().sum(-1).mean().item()
    assert found.scores["quantization_error"] == pytest.approx(error, rel=1e-5)
    assert found.scores["teacher_cosine"] == pytest.approx(1 - cosine.mean().item(), abs=1e-5)
    assert [reconstruction for _, reconstruction, _ in seen] == [None] * 3
    assert torch.equal(torch.cat([some for _, _, some in seen]), indices)


def test_the_picture_shows_index_maps_below_the_images(loader):
    picture = Evaluator(metrics=[], num_grid_images=3).picture(cluster(), loader)
    rows, columns = (side // 16 for side in picture.shape[1:])
    assert (rows, columns) == (2, 3)
    below = picture[:, -16:]
    maps = torch.stack([below[:, :, start : start + 16] for start in (0, picture.shape[2] - 16)])
    patches = maps.unfold(2, 4, 4).unfold(3, 4, 4)
    assert (patches == patches[..., :1, :1]).all()  # one colour per patch of 4 x 4 pixels
    assert len(maps.movedim(1, -1).reshape(-1, 3).unique(dim=0)) > 1


def test_the_maps_of_stacked_quantizers_share_the_width(loader):
    halves = [VectorQuantizer(codebook=LearnedCodebook(size=4, dim=n)) for n in (1, 2)]
    tokenizer = FeatureTokenizer(
        encoder=Patches(channels_last=False), quantizer=ProductQuantizer(quantizers=halves, dim=3)
    )
    picture = Evaluator(metrics=[], num_grid_images=2).picture(tokenizer, loader)
    assert picture.shape[0] == 3
    assert Evaluator(metrics=[CodebookUsage(codebook_size=4, levels=2)]).evaluate(tokenizer, loader).scores


def test_metrics_of_images_are_refused_with_the_cure(loader):
    evaluator = Evaluator(metrics=[CodebookUsage(codebook_size=8), PSNR()])
    with pytest.raises(
        ConfigError,
        match=r"evaluator\.metrics\[1\]: PSNR scores reconstructed images, but FeatureTokenizer has no image decoder; "
        r"leave it out and use .*QuantizationError or TeacherCosine, or train a decoder with configs/decoder/vqgan\.py",
    ):
        evaluator.check(cluster(), loader)


def test_metrics_of_other_codes_are_refused(loader):
    with pytest.raises(
        ConfigError,
        match=r"metrics\[0\]: QuantizationError has codebook_dim 4, the tokenizer 3; set .*_dim to 3",
    ):
        Evaluator(metrics=[QuantizationError(codebook_dim=4)]).check(cluster(), loader)
    with pytest.raises(
        ConfigError,
        match=r"metrics\[0\]: CodebookUsage has codebook_size 9, the tokenizer 8; set .*_size to 8",
    ):
        Evaluator(metrics=[CodebookUsage(codebook_size=9)]).check(cluster(), loader)


def test_a_tokenizer_of_images_has_a_quantization_error_and_no_teacher(loader):
    network = {"base_width": 8, "multipliers": (1, 2), "num_blocks": 1}
    codebook = EMACodebook(size=8, dim=4, init=NormalInit())
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(out_channels=8, **network),
        quantizer=VectorQuantizer(codebook=codebook),
        decoder=CNNDecoder(in_channels=8, **network),
    )
    evaluator = Evaluator(metrics=[PSNR(), QuantizationError(codebook_dim=4)])
    evaluator.check(tokenizer, loader)
    assert evaluator.evaluate(tokenizer, loader).scores["quantization_error"] > 0
    with pytest.raises(
        ConfigError, match=r"metrics\[0\]: .*TeacherCosine: expected a tokenizer that predicts"
    ):
        Evaluator(metrics=[TeacherCosine(teacher=Patches(channels_last=True))]).check(tokenizer, loader)


def test_pictures_of_a_batch_leave_out_the_reconstruction(loader, tmp_path, caplog):
    kinds = visual_kinds(".*", has_reconstructions=False)
    assert kinds == ["image", "indices"]
    assert visual_kinds("reconstruction", has_reconstructions=False) == []
    with caplog.at_level(logging.WARNING):
        writer = VisualWriter(tmp_path, kinds, 8)
        Evaluator(metrics=[CodebookUsage(codebook_size=8)]).evaluate(cluster(), loader, on_batch=writer)
    assert len(list(tmp_path.glob("image_*.png"))) == len(list(tmp_path.glob("indices_*.png"))) == 11
    assert len(list(tmp_path.iterdir())) == 22
