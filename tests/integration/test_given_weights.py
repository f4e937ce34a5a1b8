"""Which part `--load-model-from` means, what may be missing in weights, and which checkpoints are validated."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import TINY, accepted, refused
from safetensors.torch import load_file, save_file

from vq import config
from vq.config import ConfigError
from vq.tokenizers.checkpoint import save_weights

DECODER = """
from torch.optim import AdamW
from vq.engine import Checkpointer, Constant, Evaluator, ReconstructionStep, Trainer
from vq.losses import L1Loss
from vq.metrics import PSNR
from vq.networks import CNNDecoder
from vq.tokenizers import TokenizerWithDecoder, pretrained_tokenizer

options = dict(it_config=None)
pictures = "vq.data.ProceduralDataset"
data = dict(type="vq.data.ImageLoader", dataset=dict(type=pictures, num_images=8, image_size=16), batch_size=4)
train_data = data
val_data = dict(data, shuffle=False)
tokenizer = dict(
    type=TokenizerWithDecoder,
    tokenizer=dict(type=pretrained_tokenizer, weights=[], config=options["it_config"]),
    decoder=dict(type=CNNDecoder, in_channels=8, base_width=8, multipliers=(1, 2), num_blocks=1),
)
train_step = dict(
    type=ReconstructionStep, losses=dict(l1=dict(type=L1Loss)), weights=dict(l1=1.0, quantizer=1.0),
    optimizer=dict(type=AdamW, lr=1e-3), schedule=dict(type=Constant),
)
trainer = dict(type=Trainer, max_steps=2)
evaluator = dict(type=Evaluator, every=2, metrics=[dict(type=PSNR)])
checkpointer = dict(type=Checkpointer, every=1)
"""
GENERATOR = """
from torch.optim import AdamW
from vq.engine import Checkpointer, Constant, ProposalEvaluator, ProposalStep, Trainer
from vq.generators import DecoderTransformer, LlamaStyle, TransformerGenerator
from vq.tokenizers import pretrained_tokenizer

options = dict(ir_config=None, it_state_dict=None, ir_state_dict=None, vocabulary_size=None)
pictures = "vq.data.ProceduralDataset"
data = dict(type="vq.data.ImageLoader", dataset=dict(type=pictures, num_images=8, image_size=16), batch_size=4)
train_data = data
val_data = dict(data, shuffle=False)
tokenizer = dict(
    type=pretrained_tokenizer,
    weights=[path for path in (options["it_state_dict"], options["ir_state_dict"]) if path],
    config=options["ir_config"],
)
generator = dict(
    type=TransformerGenerator,
    transformer=dict(type=DecoderTransformer, width=16, depth=1, num_heads=2, hidden=32, style=dict(type=LlamaStyle)),
    vocabulary_size=options["vocabulary_size"], num_classes=8, grid=(8, 8),
)
train_step = dict(type=ProposalStep, optimizer=dict(type=AdamW, lr=1e-3), schedule=dict(type=Constant))
trainer = dict(type=Trainer, max_steps=1)
evaluator = dict(type=ProposalEvaluator, every=9)
checkpointer = dict(type=Checkpointer, every=1)
"""
TOKENIZER, OTHER = "work_dirs/tokenizer/checkpoints/iter_2", "work_dirs/other/checkpoints/iter_2"
FROZEN = "--load-model-from {}: the weights of the frozen tokenizer in the config"
NON_STRICT = r".trainer.callbacks[-1].load_state_dict:dict\(strict=False\)"
OF_IT = ("--config-options", "it_config::tiny.py")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tokenizers, and a decoder that was trained for the first one."""
    folder = tmp_path_factory.mktemp("given_weights")
    shutil.copy(TINY, folder / "tiny.py")
    (folder / "decoder.py").write_text(DECODER)
    (folder / "generator.py").write_text(GENERATOR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = ["--override", ".trainer.max_steps:2", ".train_step.weight_ema:None"]
        accepted("train", "tokenizer", "tiny.py", *short)
        accepted("train", "other", "tiny.py", "--seed", 1, *short)
        said = accepted("train", "decoder", "decoder.py", *OF_IT, "--load-model-from", TOKENIZER)
        assert FROZEN.format(TOKENIZER) in said
        yield folder


@pytest.fixture
def folder(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tensors(checkpoint: str) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint, "model.safetensors"))


def test_a_decoder_keeps_the_tokenizer_that_it_was_given(folder: Path) -> None:
    stored = json.loads(Path("work_dirs/decoder/config.json").read_text())["tokenizer"]["tokenizer"]
    assert stored["weights"] == [f"{TOKENIZER}/model.safetensors"]
    assert len(stored["sha256"]) == 1
    assert stored["tokenizer"] == config.load("tiny.py").to_dict()["tokenizer"]
    trained = tensors("work_dirs/decoder/checkpoints/iter_2")
    assert all(torch.equal(trained[f"tokenizer.{name}"], t) for name, t in tensors(TOKENIZER).items())
    # The page under its own name stands alone.
    page = config.load("work_dirs/decoder/decoder.py").to_dict()
    assert page == config.load("work_dirs/decoder/config.json").to_dict()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["decoder.py", *OF_IT],
        ["decoder.py", *OF_IT, "--load-model-from", TOKENIZER],
        ["decoder.py", *OF_IT, "--load-model-from", TOKENIZER, "--override", NON_STRICT],
        ["--load-model-from", TOKENIZER],
        ["work_dirs/decoder/decoder.py"],
    ],
)
def test_a_decoder_is_validated_with_and_without_naming_its_tokenizer(folder: Path, words: list[str]) -> None:
    said = accepted("val", "decoder", *words, "--load-from", "iter_2")
    assert (FROZEN.format(TOKENIZER) in said) == (TOKENIZER in words)
    assert Path("work_dirs/decoder/val/iter_2/metrics.json").is_file()


@pytest.mark.parametrize("words", [[], ["decoder.py", *OF_IT]])
def test_a_decoder_is_continued_without_naming_its_tokenizer_again(folder: Path, words: list[str]) -> None:
    said = accepted("train", "decoder", *words, "--auto-resume", "--override", ".trainer.max_steps:3")
    assert "continuing from work_dirs/decoder/checkpoints/iter_2" in said
    assert Path("work_dirs/decoder/checkpoints/iter_3").is_dir()


def test_a_decoder_of_another_tokenizer_is_refused(folder: Path) -> None:
    said = refused("val", "decoder", "decoder.py", *OF_IT, "--load-model-from", OTHER)
    assert ".tokenizer.tokenizer.weights[0]: 'work_dirs/other/" in said
    assert "expected the weights of a trained tokenizer, got none" in refused(
        "train", "x", "decoder.py", *OF_IT
    )


def test_the_page_of_a_decoder_is_completed_from_its_weights(folder: Path) -> None:
    weights = "work_dirs/decoder/checkpoints/iter_2"
    accepted("test", "x", "decoder.py", *OF_IT, "--load-model-from", weights)
    assert Path("work_dirs/x/test/metrics.json").is_file()


def test_weights_that_are_not_for_a_frozen_tokenizer_are_for_the_model(folder: Path) -> None:
    said = accepted(
        "train", "again", "tiny.py", "--load-model-from", TOKENIZER, "--override", ".trainer.max_steps:1"
    )
    assert f"--load-model-from {TOKENIZER}: loaded into the model" in said
    said = accepted("val", "tokenizer", "--load-model-from", OTHER)
    assert f"--load-model-from {OTHER}: loaded into the model" in said
    record = json.loads(Path("work_dirs/tokenizer/val/iter_2/metrics.json").read_text())
    assert record["weights"] == [f"{path}/model.safetensors" for path in (OTHER, TOKENIZER)]
    accepted("val", "tokenizer", "--again")
    alone = json.loads(Path("work_dirs/tokenizer/val/iter_2/metrics.json").read_text())
    assert alone["scores"] == record["scores"]  # those of the checkpoint, which are loaded last


class TestNonStrict:
    @pytest.fixture
    def partial(self, folder: Path) -> str:
        state = {name: t for name, t in tensors(TOKENIZER).items() if not name.startswith("decoder.")}
        tree = config.load("tiny.py").to_dict()
        save_weights(state | {"extra.weight": torch.zeros(1)}, folder / "partial.safetensors", tree)
        return "partial.safetensors"

    def test_what_is_skipped_is_listed(self, partial: str) -> None:
        words = ["train", "x", "tiny.py", "--load-model-from", partial]
        said = refused(*words)
        assert "1 unexpected (extra.weight)" in said
        assert "missing (decoder." in said
        said = accepted(*words, "--override", ".trainer.max_steps:1", NON_STRICT)
        missing = sum(name.startswith("decoder.") for name in tensors(TOKENIZER))
        assert (
            f"{missing} entries are missing and keep their first values, as allowed: decoder.* ({missing})"
            in said
        )
        assert "1 entries have no place in the model and are ignored, as allowed: extra.weight" in said

    def test_it_holds_for_the_frozen_tokenizer_of_a_decoder(self, partial: str) -> None:
        words = ["train", "x", "decoder.py", *OF_IT, "--load-model-from", partial]
        assert "missing (decoder." in refused(*words)
        said = accepted(*words, "--override", NON_STRICT)
        assert "as allowed: decoder.*" in said
        stored = json.loads(Path("work_dirs/x/config.json").read_text())["tokenizer"]["tokenizer"]
        assert stored["strict"] is False
        accepted("val", "x")

    def test_shapes_must_fit_and_something_must_be_shared(self, folder: Path) -> None:
        state = tensors(TOKENIZER)
        save_file({**state, "pre_quant.weight": torch.zeros(1)}, "shape.safetensors")
        save_file({f"model.{name}": t for name, t in state.items()}, "names.safetensors")
        words = ["train", "x", "tiny.py", "--override", NON_STRICT, "--load-model-from"]
        assert "of a different shape (pre_quant.weight" in refused(*words, "shape.safetensors")
        assert "not the weights of this model: expected at least one of its" in refused(
            *words, "names.safetensors"
        )

    def test_without_weights_it_is_said_to_have_no_effect(self, folder: Path) -> None:
        said = accepted("train", "x", "tiny.py", "--dry-run", "--override", NON_STRICT)
        assert "dict(strict=False): has no effect without --load-model-from" in said


class TestRanges:
    def test_a_missing_checkpoint_of_several_is_named_and_left_out(self, folder: Path) -> None:
        said = accepted("val", "decoder", "--load-from", "iter_1", "iter_2", "iter_3", "iter_4")
        assert "has no checkpoint iter_3, iter_4; validating the other 2" in said
        assert sorted(path.name for path in Path("work_dirs/decoder/val").glob("iter_*")) == [
            "iter_1",
            "iter_2",
        ]

    def test_if_all_are_missing_those_that_exist_are_listed(self, folder: Path) -> None:
        said = refused("val", "decoder", "--load-from", "iter_30", "iter_40", "iter_50")
        assert (
            "has no checkpoint of the 3 names from 'iter_30' to 'iter_50'; there are: iter_1, iter_2" in said
        )
        assert "has no checkpoint 'iter_30'; there are: iter_1, iter_2" in refused(
            "val", "decoder", "--load-from", "iter_30"
        )


class TestGenerator:
    DECODER_RUN = "work_dirs/decoder"
    PAGE = "ir_config::work_dirs/decoder/decoder.py"
    OUTER = "ir_state_dict::work_dirs/decoder/checkpoints/iter_2/model.pth"

    def train(self, *options: str) -> dict:
        accepted("train", "g", "generator.py", "--config-options", *options)
        return json.loads(Path("work_dirs/g/config.json").read_text())

    def test_the_weights_of_tokenizer_and_decoder_fill_both(self, folder: Path) -> None:
        stored = self.train(self.PAGE, f"it_state_dict::{TOKENIZER}/model.pth", self.OUTER)
        assert stored["generator"]["vocabulary_size"] == 16
        assert len(stored["tokenizer"]["sha256"]) == 2
        inner = stored["tokenizer"]["tokenizer"]["tokenizer"]
        assert inner["type"] == "vq.tokenizers.ImageTokenizer"  # no reference to other files is left in it
        accepted("val", "g")

    def test_those_of_the_decoder_are_enough(self, folder: Path) -> None:
        for options in ([self.PAGE, self.OUTER], [self.OUTER]):
            assert self.train(*options)["generator"]["vocabulary_size"] == 16
            shutil.rmtree("work_dirs/g")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                [PAGE, f"it_state_dict::{OTHER}", OUTER],
                "its decoder was trained for another tokenizer than work_dirs/oth",
            ),
            (
                [PAGE, f"it_state_dict::{TOKENIZER}"],
                "got none of the decoder; add ir_state_dict::DECODER_RUN",
            ),
            ([PAGE], "expected the weights of a trained tokenizer, got none"),
            ([], "expected the weights of a trained tokenizer, got none"),
            (
                [OUTER, "vocabulary_size:17"],
                "generator.vocabulary_size: expected 16, the tokenizer's, got 17",
            ),
        ],
    )
    def test_what_does_not_belong_together_is_refused(
        self, folder: Path, options: list[str], message: str
    ) -> None:
        said = refused("train", "g", "generator.py", *(["--config-options", *options] if options else []))
        assert message in said
        assert not Path("work_dirs/g/config.json").exists()


def test_a_vocabulary_of_none_is_left_out_of_a_config(folder: Path) -> None:
    tree = config.load("generator.py").to_dict()
    assert "vocabulary_size" not in tree["generator"]
    assert config.open_sizes(tree) == ("vocabulary_size",)
    tree = config.load("generator.py", options={"vocabulary_size": 5}).to_dict()
    assert tree["generator"]["vocabulary_size"] == 5
    assert config.open_sizes(tree) == ()
    with pytest.raises(ConfigError, match=r"generator.vocabulary_size: expected int, got 'x'"):
        config.load("generator.py", options={"vocabulary_size": "x"})
