"""A linear probe as a user has it: trained on a frozen tokenizer, validated, killed, continued, loaded."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands import TINY, accepted, refused, run_and_kill
from safetensors.torch import load_file
from test_resume import flat, timeless

import vq
from vq import config
from vq.engine import assembly
from vq.errors import UserError
from vq.ops.images import save_png

PAGE = '''"""A probe that trains in a second, over the tokenizer of tests/tiny_page.py."""

from vq.data import ImageLoader, ProceduralDataset, TokenDataset, TokenLoader
from vq.engine import Checkpointer, ProbeEvaluator, ProbeStep, Trainer, WarmupCosine
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledCodes
from vq.tokenizers import pretrained_tokenizer

options = dict(it_state_dict="work_dirs/run", from_tokens=False, max_steps=24)
pictures = dict(type=ProceduralDataset, num_images=64, image_size=16)
tokens = "work_dirs/run/tokens/train"
train_data = (
    dict(type=TokenLoader, dataset=dict(type=TokenDataset, root=tokens), batch_size=8)
    if options["from_tokens"]
    else dict(type=ImageLoader, dataset=pictures, batch_size=8)
)
val_data = dict(type=ImageLoader, dataset=pictures | dict(num_images=13, seed=1), batch_size=4, shuffle=False)
tokenizer = dict(type=pretrained_tokenizer, weights=[options["it_state_dict"]])
probe = dict(type=LinearProbe, features=dict(type=PooledCodes), num_classes=4)
train_step = dict(
    type=ProbeStep, optimizer=dict(type=LARS, lr=1.6), schedule=dict(type=WarmupCosine), weight_ema=0.9
)
trainer = dict(type=Trainer, max_steps=options["max_steps"], log_every=2)
evaluator = dict(type=ProbeEvaluator, every=12, top=[1, 2], num_grid_images=2)
checkpointer = dict(type=Checkpointer, every=4)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    (folder / "page.py").write_text(PAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "run", TINY, "--config-options", "max_steps:4")
        accepted("train", "probe", "page.py")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def scores(file: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(Path(file).read_text())["scores"]
    return found


def test_it_is_validated_by_val_and_test_and_loaded_in_python() -> None:
    accepted("val", "probe", "--load-from", "iter_24")
    accepted("test", "probe", "--load-model-from", "work_dirs/probe/checkpoints/iter_24")
    found = scores("work_dirs/probe/val/iter_24/metrics.json")
    assert set(found) == {"loss", "top1", "top2", "class_mean_top1"}
    assert found == scores("work_dirs/probe/test/metrics.json")
    rows = [json.loads(line) for line in Path("work_dirs/probe/metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["split"] == "val"][-1]
    assert {name: last[name] for name in found} == pytest.approx(found, abs=1e-6)

    probe = vq.load_probe("work_dirs/probe")
    loader = assembly.make_loader(config.load("page.py").to_dict(), "val_data")
    right = [probe.classify(b["image"]).argmax(dim=1) == b["label"] for b in loader.pass_batches()]
    assert torch.cat(right).double().mean().item() == pytest.approx(found["top1"])
    with pytest.raises(UserError, match=r"got those of a probe; use vq\.load_probe"):
        vq.load("work_dirs/probe")
    with pytest.raises(UserError, match="expected the weights of a probe"):
        vq.load_probe("work_dirs/run")
    save_png(torch.zeros(3, 16, 16, dtype=torch.uint8), Path("a.png"))
    assert "holds a probe, not a tokenizer" in refused("inference", "work_dirs/probe", "a.png")


def test_a_store_is_probed_like_its_images() -> None:
    accepted("tokenize", "run", TINY, "--train")
    accepted("train", "stored", "page.py", "--config-options", "from_tokens:True")
    mine, theirs = (
        load_file(f"work_dirs/{name}/checkpoints/iter_24/model.safetensors") for name in ("stored", "probe")
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor)
    accepted("train", "other", TINY, "--config-options", "max_steps:4", "--seed", "1")
    options = ["--config-options", "from_tokens:True", "it_state_dict::work_dirs/other"]
    assert "was made by a tokenizer with the checksum" in refused("train", "x", "page.py", *options)


def test_killed_and_resumed_equals_unbroken_bit_for_bit(folder: Path) -> None:
    reached = folder / "work_dirs/killed/checkpoints/iter_8"
    run_and_kill("train", ["killed", "page.py"], cwd=folder, ranks=1, when=reached.exists, delay=0.0)
    assert not reached.with_name("iter_24").exists(), "killed too late to show anything"
    accepted("train", "killed", "page.py", "--auto-resume")
    ends = [Path(f"work_dirs/{name}/checkpoints/iter_24") for name in ("killed", "probe")]
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, expected = (load_file(end / name) for end in ends)
        assert ours.keys() == expected.keys()
        assert not [k for k in ours if not torch.equal(ours[k], expected[k])], name
    states = [torch.load(end / "train_state.pt", weights_only=True) for end in ends]
    assert flat(states[0]) == flat(states[1])
    rows = [
        [
            timeless(json.loads(line))
            for line in Path(f"work_dirs/{name}/metrics.jsonl").read_text().splitlines()
        ]
        for name in ("killed", "probe")
    ]
    assert rows[0] == rows[1]


def test_what_cannot_be_probed_is_refused_before_training() -> None:
    for words, expected in (
        (["--config-options", "it_state_dict::work_dirs/nowhere"], "work_dirs/nowhere"),
        (
            ["--override", ".probe.num_classes:3"],
            "train_data: has 4 classes, the probe 3; set probe.num_classes",
        ),
        (["--override", ".evaluator.top:[1, 5]"], "evaluator.top: expected numbers below the 4 classes"),
        (
            ["--override", ".probe.features:dict(type='PooledPixels', patch_size=5)"],
            "the tokenizer scales down by 5",
        ),
        (["--override", ".probe.features.nope:1"], "probe.features has no key 'nope'"),
    ):
        assert expected in refused("train", "x", "page.py", *words)
    page = Path("bare.py")
    page.write_text(re.sub("^tokenizer = .*\n", "", PAGE, flags=re.M))
    assert "give the page a section tokenizer" in refused("train", "x", page)
    for option in ("--tokenize", "--visual image"):
        assert "the page trains a probe" in refused("val", "probe", *option.split())
    assert not Path("work_dirs/x").exists() or not list(Path("work_dirs/x").glob("checkpoints/iter_*"))
