"""Data are data: whatever a file holds, each command and tool ends in one message, and nothing of the file runs.

Every hostile input names code in one of the ways that a reader could fall for, and that code would leave a proof file.
"""

import importlib
import json
import os
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY, accepted
from PIL import Image
from safetensors.torch import save_file

import vq
from vq import failures
from vq.data.stores.token_manifest import manifest_sha256
from vq.data.stores.token_shards import ShardFiles
from vq.engine.loop.checkpoint_files import write_manifest
from vq.errors import UserError
from vq.pretrained import PUBLISHED

PRETRAINED = "vq.tokenizers.pretrained_tokenizer"
PROOF = "proof"


class Touch:
    """Makes the proof file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path(PROOF),))


def page_of_code() -> str:
    """A page that leaves the proof, and a JSON that names a function which does."""
    Path("evil.py").write_text(
        f"import pathlib\npathlib.Path({PROOF!r}).touch()\ntokenizer = dict(type='x.y')\n"
    )
    Path("evil_page.json").write_text(json.dumps({"tokenizer": {"type": "os.mkdir", "path": PROOF}}))
    return "evil.py"


def payloads() -> dict[str, Any]:
    """What stands in the place of a part, by what it tries."""
    named = {"type": PRETRAINED, "weights": ["run"]}
    return {
        "function": {"type": "os.mkdir", "path": PROOF},
        "builtin": {"type": "builtins.exec", "source": f"import os; os.mkdir({PROOF!r})"},
        "method": {"type": "pathlib.Path.touch", "self": PROOF},
        "module": {"type": "evil.anything"},
        "page": {**named, "config": page_of_code()},
        "json": {**named, "config": "evil_page.json"},
        "pickle": {"type": PRETRAINED, "weights": ["evil.pth"], "tokenizer": {"type": "os.mkdir", "path": PROOF}},
        "itself": {"type": PRETRAINED, "weights": ["evil.safetensors"]},
        "unhashable": {"type": ["os", "system"]},
        "callback": {"type": "vq.engine.ImageGrid", "directory": PROOF},
    }  # fmt: skip


PAYLOADS = [
    "function",
    "builtin",
    "method",
    "module",
    "page",
    "json",
    "pickle",
    "itself",
    "unhashable",
    "callback",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run, its tokens and a picture."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "run", TINY, "--config-options", "max_steps:2")
        accepted("tokenize", "run")
        Image.new("RGB", (16, 16), (200, 30, 90)).save("picture.png")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    shutil.copytree(trained, here, symlinks=True)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(
        str(here)
    )  # a module beside the user's files can be imported, and must not be
    return here


def ends_in_one_message(main: str, *arguments: object) -> str:
    """Runs a command or tool in this process; the message with which a user sees it end with exit code 2."""
    try:
        importlib.import_module(main).main([str(a) for a in arguments])
    except Exception as error:
        message = failures.user_message(error)
        if message is None:  # a defect: show where
            raise
        assert not Path(PROOF).exists(), f"{main} {arguments} ran code of its input"
        assert 0 < len(message) < 4000
        return message
    pytest.fail(f"{main} {arguments} was not refused")


def own_config() -> dict[str, Any]:
    return json.loads(Path("work_dirs/run/config.json").read_text())  # type: ignore[no-any-return]


def hostile_config(payload: str, section: str = "tokenizer") -> Path:
    """A config.json of a run with the payload in a place."""
    tree = own_config()
    node = payloads()[payload]
    if section == "generator":
        tree[section] = node
    elif "." in section:
        parent, _, key = section.partition(".")
        tree[parent][key] = node
    else:
        tree[section] = node
    file = Path("evil.json")
    file.write_text(json.dumps(tree))
    return file


def hostile_weights(payload: str) -> Path:
    """A weight file with the payload in its metadata, and a pickle that leaves the proof."""
    torch.save({"state_dict": Touch()}, "evil.pth")
    text = json.dumps({**own_config(), "tokenizer": payloads()[payload]})
    save_file({"x": torch.zeros(1)}, "evil.safetensors", metadata={"format": "vq-1", "config": text})
    return Path("evil.safetensors")


def hostile_run(payload: str) -> Path:
    """The run with the payload in its config and in its checkpoints, whose manifests agree."""
    hostile_weights(payload)
    run = Path("work_dirs/run")
    shutil.copy(hostile_config(payload), run / "config.json")
    for checkpoint in (run / "checkpoints").glob("iter_*"):
        for name in ("model.safetensors", "model_ema.safetensors"):
            shutil.copy("evil.safetensors", checkpoint / name)
        shutil.copy("evil.json", checkpoint / "config.json")
        torch.save({"step": 2, "train_step": Touch()}, checkpoint / "train_state.pt")
        (checkpoint / "MANIFEST.json").unlink()
        write_manifest(checkpoint, int(checkpoint.name.removeprefix("iter_")))
    return run


CONFIG_COMMANDS: dict[str, tuple[str, list[str]]] = {
    "train": ("vq.train", ["new", "evil.json"]),
    "dry-run": ("vq.train", ["new", "evil.json", "--dry-run"]),
    "val": ("vq.val", ["run", "evil.json", "--as-given"]),
    "test": ("vq.test", ["new", "evil.json", "--as-given", "--load-model-from", "work_dirs/run"]),
    "tokenize": ("vq.tokenize", ["run", "evil.json", "--as-given"]),
    "generate": ("vq.generate", ["run", "evil.json", "--as-given"]),
    "inference": ("vq.inference", ["evil.json", "picture.png", "--as-given", "--load-model-from", "work_dirs/run"]),
    "fid": ("vq.fid", ["evil.json"]),
    "compare": ("vq.compare", ["evil.json", "--steps", "1"]),
    "convert": ("tools.convert_checkpoints", ["taming", "evil.pth", "--config", "evil.json", "--out", "o.safetensors"]),
    "fidelity": ("tools.fidelity", ["evil.json", "."]),
    "atlas": ("tools.visualize_patches", ["evil.json", "work_dirs/run/tokens/val"]),
    "llamagen": ("tools.llamagen", ["run", "evil.json", "--as-given"]),
}  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("command", CONFIG_COMMANDS)
def test_a_config_in_json(folder: Path, command: str, payload: str) -> None:
    hostile_weights(payload)
    section = {"generate": "generator", "fid": "val_data.dataset", "fidelity": "val_data.dataset",
               "atlas": "val_data.dataset"}.get(command, "tokenizer")  # fmt: skip
    hostile_config(payload, section)
    if command == "compare":
        tree = own_config() | {"contestants": {"evil": {"tokenizer": {"quantizer": payloads()[payload]}}}}
        Path("evil.json").write_text(json.dumps(tree))
    main, arguments = CONFIG_COMMANDS[command]
    ends_in_one_message(main, *arguments)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("how", ["file", "pickle", "run", "checkpoint"])
@pytest.mark.parametrize("command", ["train", "test", "inference", "inference page", "load", "generate"])
def test_weights(folder: Path, command: str, how: str, payload: str) -> None:
    hostile_weights(payload)
    run = hostile_run(payload)
    weights = {"file": Path("evil.safetensors"), "pickle": Path("evil.pth"), "run": run,
               "checkpoint": run / "checkpoints" / "iter_2"}[how]  # fmt: skip
    match command:
        case "train":
            ends_in_one_message("vq.train", "new", TINY, "--load-model-from", weights)
        case "test":
            ends_in_one_message("vq.test", "new", TINY, "--as-given", "--load-model-from", weights)
            ends_in_one_message("vq.test", "new", "--load-model-from", weights)
        case "inference":
            ends_in_one_message("vq.inference", weights, "picture.png")
        case "inference page":
            ends_in_one_message(
                "vq.inference", TINY, "picture.png", "--as-given", "--load-model-from", weights
            )
        case "load":
            with pytest.raises(UserError):
                vq.load(weights)
        case "generate":
            ends_in_one_message("vq.generate", "run", "--load-from", "iter_2")
    assert not Path(PROOF).exists()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_run_folder(folder: Path, payload: str) -> None:
    run = hostile_run(payload)
    checkpoint = run / "checkpoints" / "iter_2"
    for given in (["run", TINY], ["run", "work_dirs/run/config.json"]):
        ends_in_one_message("vq.train", *given, "--auto-resume")
    ends_in_one_message("vq.train", "new", TINY, "--load-from", checkpoint)
    for command in ("val", "tokenize", "generate"):
        ends_in_one_message(f"vq.{command}", "run")
    ends_in_one_message("vq.val", "run", TINY, "--as-given")
    ends_in_one_message("vq.tokenize", "run", TINY, "--as-given")
    ends_in_one_message("vq.inference", "run", "picture.png")
    ends_in_one_message("tools.llamagen", "run")


STATES: dict[str, Any] = {
    "list": [],
    "no step": {"train_step": {}},
    "step is text": {"step": "2", "train_step": {}},
    "empty": {},
    "numbers": {"step": 2, "train_step": 3},
    "strange": {"step": 2, "train_step": {"optimizer": 1, "scheduler": [], "x": torch.zeros(1)}},
    "pickle": {"step": 2, "train_step": Touch()},
}


@pytest.mark.parametrize("state", STATES)
def test_a_training_state(folder: Path, state: str) -> None:
    checkpoint = Path("work_dirs/run/checkpoints/iter_2")
    torch.save(STATES[state], checkpoint / "train_state.pt")
    (checkpoint / "MANIFEST.json").unlink()
    write_manifest(checkpoint, 2)
    more = ["--config-options", "max_steps:4"]
    ends_in_one_message("vq.train", "new", TINY, "--load-from", checkpoint, *more)


def test_json_files_of_a_run_that_are_nested_without_end(folder: Path) -> None:
    deep = "[" * 100_000
    run = Path("work_dirs/run")
    checkpoint = run / "checkpoints/iter_2"
    (checkpoint / "arguments.json").write_text(deep)
    (checkpoint / "MANIFEST.json").unlink()
    write_manifest(checkpoint, 2)
    ends_in_one_message("vq.train", "new", TINY, "--load-from", checkpoint)
    # What is read to save work only is passed over.
    accepted("val", "run")
    (run / "val/iter_2/metrics.json").write_text(deep)
    accepted("val", "run")
    (run / "metrics.jsonl").write_text(deep + "\n")
    for file in (run / "tokens").rglob("settings*.json"):
        file.write_text(deep)
    (run / "config.json").write_text(deep)
    for command in ("val", "tokenize", "generate"):
        ends_in_one_message(f"vq.{command}", "run")


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


FEATURES = np.zeros(8), np.eye(8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.array([Touch()], dtype=object), "sigma": FEATURES[1]},
        {"mu": FEATURES[0], "sigma": FEATURES[1], "stamp": np.array(Touch(), dtype=object)},
        {"mu": FEATURES[0], "sigma": FEATURES[1], "stamp": "[" * 100_000},
        {"mu": FEATURES[0], "sigma": FEATURES[1], "stamp": json.dumps({"extractor": "os.mkdir"})},
        {
            "mu": FEATURES[0],
            "sigma": FEATURES[1],
            "stamp": json.dumps({"extractor": "[/x]<img>\n", "protocol": "y"}),
        },
        {"mu": FEATURES[0], "sigma": FEATURES[1]},
        {},
    ],
)
def test_a_cache_of_fid(folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any]) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(folder / "pretrained"))
    cache = npz(folder / "evil.npz", **arrays)
    ends_in_one_message("tools.fid", cache, ".", "--device", "cpu")
    metric = ".evaluator.metrics:[dict(type='vq.metrics.FrechetDistance', reference='evil.npz')]"
    ends_in_one_message("vq.val", "run", "--override", metric)
    ends_in_one_message("vq.train", "new", TINY, "--override", metric)


def test_a_weight_file_of_a_feature_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_PRETRAINED", str(folder / "pretrained"))
    for name in PUBLISHED:
        (folder / "pretrained" / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"x": Touch()}, folder / "pretrained" / name)
    cache = npz(folder / "imagenet_val.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    ends_in_one_message("tools.fid", cache, ".", "--device", "cpu")
    ends_in_one_message("tools.fidelity", TINY, ".", "--device", "cpu")
    ends_in_one_message("vq.fid", TINY)


STORES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "deep": lambda _: "[" * 100_000,
    "no object": lambda _: [],
    "path": lambda m: m | {"shards": [{**m["shards"][0], "file": "../../../etc/passwd"}]},
    "huge": lambda m: m | {"axes": [2**31, 2**31]},
    "class name": lambda m: m | {"class_names": [{"type": "os.mkdir"}]},
    "tokenizer": lambda m: m | {"tokenizer": {"type": "os.mkdir", "path": PROOF}, "tokenizer_sha256": 3},
    "views": lambda m: m | {"views": 10**9},
}


@pytest.mark.parametrize("change", STORES)
def test_a_token_store(folder: Path, change: str) -> None:
    store = Path("work_dirs/run/tokens/val")
    manifest = STORES[change](json.loads((store / "manifest.json").read_text()))
    if isinstance(manifest, dict):
        manifest["manifest_sha256"] = manifest_sha256(manifest)
    (store / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    use_each_reader_of(store)


@pytest.mark.parametrize(
    "content", [b"", b"x", zlib.compress(b"[" * 100_000), zlib.compress(b"\0" * 50_000_000)]
)
def test_the_notes_of_a_token_store(folder: Path, content: bytes) -> None:
    store = Path("work_dirs/run/tokens/val")
    for tokens in store.glob("shard_*.bin"):
        ShardFiles(directory=store, number=int(tokens.stem[-5:])).notes.write_bytes(content)
    use_each_reader_of(store)


def use_each_reader_of(store: Path) -> None:
    for to in ("parquet", "webdataset", "llamagen"):
        ends_in_one_message("vq.tokens", "export", store, "--to", to, "--out", "out")
    ends_in_one_message("tools.visualize_patches", TINY, store)
    dataset = f"dict(type='vq.data.TokenDataset', root='{store}')"
    loader = f"dict(type='vq.data.TokenLoader', dataset={dataset}, batch_size=2)"
    Path("page.py").write_text(GENERATOR.format(loader=loader))
    ends_in_one_message("vq.train", "writer", "page.py")


GENERATOR = """
train_data = val_data = {loader}
tokenizer = dict(type="vq.tokenizers.pretrained_tokenizer", weights=["work_dirs/run"])
generator = dict(
    type="vq.generators.TransformerGenerator",
    transformer=dict(type="vq.generators.DecoderTransformer", width=16, depth=1, num_heads=2),
    vocabulary_size=16, num_classes=4, grid=(8, 8),
)
train_step = dict(type="vq.engine.ProposalStep", optimizer=dict(type="torch.optim.AdamW", lr=1e-2),
    schedule=dict(type="vq.engine.WarmupCosine"))
trainer = dict(type="vq.engine.Trainer", max_steps=2)
evaluator = dict(type="vq.engine.ProposalEvaluator", every=2, num_grid_images=2, sampling=dict(guidance=1.5, top_k=8))
checkpointer = dict(type="vq.engine.Checkpointer", every=2)
"""


CODES: dict[str, Any] = {
    "objects": np.array([Touch()], dtype=object),
    "another size": np.zeros((1, 1, 63), np.int64),
    "text": np.array("text"),
    "negative": np.full((1, 1, 64), -1),
    "claims much": b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1, 99999999999), }"
    + b" " * 40
    + b"\n",
    "empty": b"",
    "pipe": "pipe",
}


@pytest.mark.parametrize("kind", CODES)
def test_files_of_llamagen(folder: Path, kind: str) -> None:
    content = CODES[kind]
    for name, values in (("codes", content), ("labels", np.zeros(1, np.int64))):
        (folder / "theirs" / f"x_{name}").mkdir(parents=True)
        file = folder / "theirs" / f"x_{name}" / "0.npy"
        if isinstance(values, str):
            os.mkfifo(file)
        elif isinstance(values, bytes):
            file.write_bytes(values)
        else:
            np.save(file, values, allow_pickle=True)
    ends_in_one_message(
        "vq.tokens", "import", "theirs", "--from", "llamagen", "--out", "store", "--vocabulary-size", 16
    )


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", '{"axes": 1}', '{"axes": ["x"]}', '{"vocabulary_size": []}',
                                  '{"class_names": 3}', '{"axes": [1e400]}', "\ud800"])  # fmt: skip
def test_notes_beside_files_of_llamagen(folder: Path, text: str) -> None:
    for name, values in (("codes", np.zeros((1, 1, 63), np.int64)), ("labels", np.zeros(1, np.int64))):
        (folder / "theirs" / f"x_{name}").mkdir(parents=True)
        np.save(folder / "theirs" / f"x_{name}" / "0.npy", values)
    (folder / "theirs/tokens.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    ends_in_one_message("vq.tokens", "import", "theirs", "--from", "llamagen", "--out", "store")


CONVERTED: dict[str, Callable[[Path], None]] = {
    "pickle": lambda file: torch.save({"state_dict": Touch()}, file),
    "bare pickle": lambda file: file.write_bytes(pickle.dumps(Touch())) and None,
    "keys": lambda file: torch.save({3: torch.zeros(1)}, file),
    "nested": lambda file: torch.save({"state_dict": {"model": {"x": 1}}}, file),
    "list": lambda file: torch.save([torch.zeros(1)], file),
    "empty": lambda file: file.write_bytes(b"") and None,
}


@pytest.mark.parametrize("dialect", ["taming", "llamagen", "diffusers", "beitv2"])
@pytest.mark.parametrize("kind", CONVERTED)
def test_what_the_converter_reads(folder: Path, dialect: str, kind: str) -> None:
    CONVERTED[kind](folder / "theirs.pth")
    page = Path(__file__).parents[1] / "interop" / "page_taming.py"
    ends_in_one_message(
        "tools.convert_checkpoints", dialect, "theirs.pth", "--config", page, "--out", "o.safetensors"
    )
    metadata = {"format": "vq-1", "config": json.dumps({"tokenizer": {"type": "os.mkdir", "path": PROOF}})}
    save_file({"x": torch.zeros(1)}, "theirs.safetensors", metadata=metadata)
    ends_in_one_message(
        "tools.convert_checkpoints", dialect, "theirs.safetensors", "--config", page, "--out", "o.safetensors"
    )
    assert not Path("o.safetensors").exists()


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_the_converter_reads_without_a_page(folder: Path, kind: str) -> None:
    CONVERTED[kind](folder / "theirs.pth")
    for options in ([], ["--options", "with_decoder:True"]):
        ends_in_one_message("tools.convert_checkpoints", "beitv2", "theirs.pth", *options)
    assert not Path("theirs.pth.converted").exists()


def test_files_that_are_prepared(folder: Path) -> None:
    torch.save({"x": Touch()}, "evil.pth")
    for group in ("inception", "lpips", "efficientnet_lite0", "torchvision"):
        ends_in_one_message("vq.weights", group, "--root", "pretrained", "--from", "evil.pth")


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "{}", '{"samples": 3}', '{"samples": [3]}',
    '{"samples": [{"file": "../../picture.png", "class": 0}]}', '{"samples": [{"file": "x.png"}]}',
    '{"samples": [{"file": "picture.png", "class": "os.mkdir"}]}', '{"samples": []}'])  # fmt: skip
def test_the_notes_of_generated_digits(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from tools import judge_digits

    monkeypatch.setattr(
        judge_digits, "train_classifier", lambda: pytest.fail("reads the folder only after 40 s")
    )
    (folder / "generated").mkdir()
    shutil.copy("picture.png", "generated/picture.png")
    (folder / "generated/samples.json").write_text(text)
    ends_in_one_message("tools.judge_digits", "generated")
