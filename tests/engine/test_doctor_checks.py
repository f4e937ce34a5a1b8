"""Each check of vq doctor in a situation in which it fires, and in one in which it does not."""

import importlib.metadata
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY
from golden.record_adversarial_run import ADVERSARY
from PIL import Image

from vq import config
from vq.data import ImageFolder, ProceduralDataset
from vq.engine import assembly
from vq.engine.doctor import data, disk, memory, overlap, run_folder, schedule, weights, world
from vq.engine.doctor import environment as machine
from vq.engine.doctor.case import Case, Options, World
from vq.engine.doctor.examination import examine
from vq.engine.doctor.findings import Finding, Level, from_error, ok, ordered, trouble, warning
from vq.engine.doctor.images import Sample, indices_of
from vq.engine.loop.checkpoint_files import Content, estimated_bytes
from vq.engine.loop.run_lock import RunLock
from vq.engine.steps.tuning import Tuning
from vq.files import sha256_of
from vq.tokenizers.checkpoint import save_weights

Draw = Callable[[int], np.ndarray]
RAMP = {"type": "LinearAnnealing", "first": 0.0, "last": 1.0}


def case(*, world: World | None = None, run: Path | None = None, options: Any = None, **changes: Any) -> Case:
    """The tiny page with some sections merged or places set, such as `trainer={"max_steps": 3}`."""
    tree = config.load(TINY).to_dict()
    for name, section in changes.items():
        tree[name] = {**tree[name], **section}
    return Case(tree=tree, run=run, options=options or Options(device="cpu"), world=world or World(cores=4))


def adversarial(**changes: Any) -> Case:
    step = {
        "type": "AdversarialStep",
        "adversary": {**ADVERSARY, **changes},
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
    }
    return case(train_step=step)


def said(findings: Iterable[Finding], level: Level) -> list[str]:
    return [f"{f.place}: {f.what}; {f.cure}" for f in findings if f.level is level]


def troubles(findings: Iterable[Finding]) -> list[str]:
    return said(findings, Level.TROUBLE)


def warnings_of(findings: Iterable[Finding]) -> list[str]:
    return said(findings, Level.WARNING)


def is_fine(findings: Iterable[Finding]) -> bool:
    found = list(findings)
    return not troubles(found) and not warnings_of(found)


def photograph(i: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def folder_of(root: Path, draw: Draw, num: int = 8) -> Path:
    root.mkdir(parents=True)
    for i in range(num):
        Image.fromarray(draw(i)).save(root / f"{i:03d}.png")
    return root


def with_images(train: Path, val: Path | None = None, *, side: int | None = 16, **changes: Any) -> Case:
    """The tiny page with pictures in folders."""
    crop = [] if side is None else [{"type": "Resize", "size": side}, {"type": "CenterCrop", "size": side}]
    both = {"transforms": crop, "batch_size": 4}
    return case(
        train_data={**both, "dataset": {"type": "ImageFolder", "root": str(train)}},
        val_data={**both, "dataset": {"type": "ImageFolder", "root": str(val or train)}},
        **changes,
    )


class TestFindings:
    def test_what_shows_latest_comes_first_and_trouble_before_a_warning(self) -> None:
        late, never = trouble("late", "", step=5000), warning("never", "", step=None)
        start, mild, fine = trouble("start", ""), warning("mild", ""), ok("fine", "")
        assert ordered([fine, mild, start, late, never]) == [never, late, start, mild, fine]
        assert [f.shows for f in (never, late, start, fine)] == ["never", "step 5,000", "at start", ""]

    def test_the_message_of_an_error_gives_place_and_cure(self) -> None:
        found = from_error("evaluator", ValueError("evaluator.metrics[1].network: no\nfile; fetch it"))
        assert (found.place, found.what, found.cure) == (
            "evaluator.metrics[1].network",
            "no file",
            "fetch it",
        )
        assert from_error("x", ValueError("tokenizer: broken")).what == "tokenizer: broken"


class TestMachine:
    def test_versions(self) -> None:
        found = list(machine.outdated(["torch>=99", "numpy>=1", "no-such-thing>=1", "x>=1; extra == 'demo'"]))
        torch_here = importlib.metadata.version("torch")
        assert troubles(found) == [
            f"packages: torch is {torch_here}, expected >=99; pip install --upgrade 'torch>=99'",
            "packages: no-such-thing is missing; pip install 'no-such-thing>=1'",
        ]
        assert is_fine(machine.check_versions(case()))

    def test_torchvision_belongs_to_a_version_of_torch(self) -> None:
        (words,) = troubles(machine.mismatched(["numpy", "torch==2.11.0"], "2.12.1+cpu", "0.26.0"))
        assert "torchvision 0.26.0 is made for torch==2.11.0, got torch 2.12.1+cpu" in words
        assert is_fine(machine.mismatched(["torch==2.12.1"], "2.12.1+cpu", "0.27.1"))
        assert is_fine(machine.check_torchvision(case()))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_device_that_is_not_there(self, tmp_path: Path) -> None:
        (words,) = troubles(machine.check_device(case(options=Options(device="cuda"))))
        assert words.startswith("device: cuda cannot be used here: ")
        assert is_fine(machine.check_device(case()))
        assert not list(machine.unused_gpu(tmp_path))
        (tmp_path / "nvidia0").touch()
        assert "this machine has a GPU of NVIDIA" in warnings_of(machine.unused_gpu(tmp_path))[0]

    def test_bfloat16(self) -> None:
        assert not list(machine.check_precision(case()))
        found = list(machine.check_precision(case(options=Options(device="cpu", autocast=True))))
        assert bool(warnings_of(found)) != torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def test_tuning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        both = Options(device="cpu", tuning=Tuning(is_channels_last=True, is_compiled=True))
        found = troubles(machine.check_tuning(case(options=both)))
        is_old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12)
        assert any("--channels-last" in words for words in found) == is_old
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        assert "needs a C++ compiler" in troubles(machine.check_tuning(case(options=both)))[-1]
        assert not list(machine.check_tuning(case()))

    def test_loggers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not list(machine.check_loggers(case(options=Options(wandb=True))))
        monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
        monkeypatch.setitem(sys.modules, "wandb", None)
        found = list(machine.check_loggers(case(options=Options(wandb=True))))
        assert len(warnings_of(found)) == len(troubles(found)) == 1
        assert "'.[wandb]'" in troubles(found)[0]
        assert not troubles(machine.check_loggers(case()))


class TestWorld:
    def test_batches_divide(self) -> None:
        assert is_fine(world.check_batches(case(world=World(ranks=2))))
        found = list(world.check_batches(case(world=World(ranks=3), train_step={"accumulate": 2})))
        assert troubles(found) == [
            "train_data.batch_size: 8 images do not divide into 3 rank(s) x 2 micro-batch(es); use a multiple of 6, "
            "such as 6",
            "val_data.batch_size: 4 images do not divide into 3 ranks; use a multiple of 3",
        ]

    def test_the_variables_of_torchrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not list(world.check_environment(case()))
        monkeypatch.setenv("LOCAL_RANK", "two")
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        found = troubles(world.check_environment(case(world=World(ranks=2))))
        assert [words.partition(":")[0] for words in found] == ["LOCAL_RANK", "WORLD_SIZE"]

    def test_workers(self) -> None:
        many = {"num_workers": 3}
        assert is_fine(world.check_workers(case(train_data=many)))
        found = warnings_of(world.check_workers(case(train_data=many, world=World(local_ranks=2, cores=4))))
        assert found == [
            "train_data.num_workers: 3 workers x 2 process(es) on 4 cores compete for them; 2 are enough"
        ]

    def test_shared_memory(self) -> None:
        one = case(train_data={"num_workers": 2})
        needed = 3 * 16 * 16 * 8 * 2 * 2  # bytes of an image, batch, workers, batches of each
        assert is_fine(world.shared_memory(one, needed))
        assert "--shm-size" in troubles(world.shared_memory(one, needed - 1))[0]
        assert not list(world.shared_memory(case(), 0))


class TestDisk:
    def test_the_step_at_which_the_disk_is_full(self, tmp_path: Path) -> None:
        one = case(trainer={"max_steps": 20}, checkpointer={"every": 2})
        size = estimated_bytes(one.step.value.step)
        (found,) = disk.space(one, 4 * size, tmp_path)
        assert (found.level, found.step) == (Level.TROUBLE, 6)  # the pictures take the space of one more
        assert is_fine(disk.space(one, 20 * size, tmp_path))
        assert is_fine(disk.check_disk(one))
        keeping = case(trainer={"max_steps": 20}, checkpointer={"every": 2, "keep": 1})
        assert disk.checkpoints_at_once(one) == 10
        assert disk.checkpoints_at_once(keeping) == 3
        rules = {"every": 2, "keep": 1, "keep_every": 10, "keep_best": "psnr"}
        ruled = case(trainer={"max_steps": 20}, checkpointer=rules)
        assert disk.checkpoints_at_once(ruled) == 3 + 2 + 1
        rules = {"every": 2, "keep": 1, "backup_to": "backups"}
        assert disk.checkpoints_at_once(case(trainer={"max_steps": 20}, checkpointer=rules)) == 10
        assert is_fine(disk.space(keeping, 6 * size, tmp_path))

    def test_a_checkpoint_is_as_large_as_estimated(self, tmp_path: Path) -> None:
        one = adversarial()
        estimate = estimated_bytes(one.step.value.step)
        step = assembly.make_step(one.tree, assembly.make_tokenizer(one.tree).train())
        for number, batch in zip(range(2), one.train_data.value.train_batches(seed=0), strict=False):
            step([batch], number)
        content = Content.of(step, 2)
        content.write(tmp_path / "iter_2", config={}, arguments={})
        written = sum(file.stat().st_size for file in (tmp_path / "iter_2").iterdir())
        discriminator = sum(t.nbytes for t in step.adversary.discriminator.state_dict().values())
        assert discriminator > 0.01 * estimate
        assert estimate <= written < 1.25 * estimate  # names and headers of many small tensors come on top
        assert abs(estimated_bytes(step) - estimate) < 1000  # the same once there are moments

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        assert "cannot be written" in troubles(disk.check_disk(case(run=tmp_path / "run")))[0]


class TestMemory:
    @pytest.mark.parametrize("make", [case, adversarial], ids=["reconstruction", "adversarial"])
    def test_the_estimate_agrees_with_the_allocator(self, make: Callable[[], Case]) -> None:
        """What torch's profiler counts on the CPU in one step, and the bytes of the tensors between steps."""
        one = make()
        trace = one.trace.value
        step = assembly.make_step(one.tree, assembly.make_tokenizer(one.tree).train())
        batches = one.train_data.value.train_batches(seed=0)
        for number in range(2, 4):
            step([next(batches)], number)
        batch = next(batches)
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profiler:
            step([batch], 5)
        now = peak = 0
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        assert trace.peak - trace.held == pytest.approx(peak, rel=0.15)
        content = Content.of(step, 4)
        kept = sum(t.nbytes for t in (*content.weights.values(), *content.average.values()))
        assert trace.held > 2 * kept  # with moments and frozen parts

    @pytest.mark.slow
    def test_twice_the_batch_takes_twice_the_activations(self) -> None:
        small, large = (case(train_data={"batch_size": size}).trace.value for size in (16, 32))
        assert (large.peak - large.held) / (small.peak - small.held) == pytest.approx(2, rel=0.1)
        assert large.flops / small.flops == pytest.approx(2, rel=0.05)
        halved = case(train_data={"batch_size": 32}, train_step={"accumulate": 2}).trace.value
        assert halved.batch == 16
        assert halved.peak < 0.7 * large.peak

    def test_the_operations_are_those_that_torch_counts(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        one = case()
        step = assembly.make_step(one.tree, assembly.make_tokenizer(one.tree).train())
        batches = one.train_data.value.train_batches(seed=0)
        step([next(batches)], 0)
        with FlopCounterMode(display=False) as counter:
            step([next(batches)], 1)
        assert one.trace.value.flops == pytest.approx(counter.get_total_flops(), rel=0.05)

    def test_too_little_memory(self) -> None:
        one = case()
        needed = one.trace.value.bytes(autocast=False)
        assert needed > one.trace.value.bytes(autocast=True)
        assert troubles(memory.fits(one, needed, needed - 1, "the GPU"))[0].endswith("or use --autocast")
        assert warnings_of(memory.fits(one, needed, needed + 1, "the GPU"))
        assert is_fine(memory.fits(one, needed, 2 * needed, "the GPU"))
        assert is_fine(memory.check_memory(one))

    def test_a_model_that_cannot_be_built(self) -> None:
        node = {"type": "vq.tokenizers.pretrained_tokenizer", "weights": ["nothing"]}
        one = case()
        one.tree["tokenizer"] = node
        for check in (memory.check_memory, disk.check_disk):
            assert "the model cannot be built here" in warnings_of(check(one))[0]
        assert not list(memory.check_time(one))

    def test_time(self) -> None:
        assert is_fine(memory.check_time(case()))
        (words,) = warnings_of(memory.check_time(case(trainer={"max_steps": 10**12})))
        assert "on this CPU about" in words

    def test_the_step_of_an_absent_set_has_the_size_of_the_transforms(self, tmp_path: Path) -> None:
        absent = with_images(tmp_path / "nothing")
        assert absent.train_data.error is not None
        there = with_images(folder_of(tmp_path / "there", photograph))
        assert absent.trace.value == there.trace.value


class TestWeights:
    def test_missing_weights_and_statistics(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))
        network = {"type": "InceptionNetwork"}
        metrics = [{"type": "FIDMetric", "network": network, "reference": "imagenet_train"}, {"type": "PSNR"}]
        found = list(weights.check_weights(case(evaluator={"metrics": metrics})))
        inception, statistics = troubles(found)
        assert inception.startswith("evaluator.metrics[0].network: pretrained weights: 'inception/")
        assert "run `vq weights inception`" in inception
        assert statistics.endswith("imagenet_train.npz, got none; make it with `vq fid imagenet --train`")
        assert is_fine(weights.check_weights(case()))

    def test_pretrained_tokenizers(self, tmp_path: Path) -> None:
        file, tree = tmp_path / "model.safetensors", config.load(TINY).to_dict()
        node = {"type": "vq.tokenizers.pretrained_tokenizer", "weights": [str(file)]}
        (words,) = troubles(weights.check_weights(case(tokenizer=node)))
        assert words.endswith("train it first, or give its path with --weights tokenizer=PATH")
        save_weights(assembly.make_tokenizer(tree).state_dict(), file, tree)
        one = case()
        one.tree = {**one.tree, "tokenizer": {**node, "sha256": [sha256_of(file)]}}
        assert is_fine(weights.check_weights(one))
        save_weights(assembly.make_tokenizer(tree, seed=1).state_dict(), file, tree)
        assert "expected the SHA-256" in troubles(weights.check_weights(one))[0]

    def test_given_weights(self, tmp_path: Path) -> None:
        file, tree = tmp_path / "model.safetensors", config.load(TINY).to_dict()
        one = case(options=Options(device="cpu", weights=[str(file)]))
        assert "there is no such file" in troubles(weights.check_given_weights(one))[0]
        save_weights(assembly.make_tokenizer(tree).state_dict(), file, tree)
        assert is_fine(weights.check_given_weights(one))
        other = case(options=one.options)
        other.tree["tokenizer"]["encoder"]["base_width"] = 16
        assert "not the weights of this model" in troubles(weights.check_given_weights(other))[0]
        assert not list(weights.check_given_weights(case()))

    def test_losses_without_weights_are_left_out_of_the_estimate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        teacher = {"type": "vq.networks.TimmTeacher", "name": "vit_base_patch16_224.mae"}
        losses = {"l1": {"type": "L1Loss"}, "x": {"type": "FeatureAlignment", "teacher": teacher}}
        one = case(train_step={"losses": losses, "weights": {"l1": 1.0, "x": 1.0, "quantizer": 1.0}})
        assert "run `vq weights mae`" in troubles(weights.check_weights(one))[0]
        assert "memory: estimated without x, whose weights are missing; " in warnings_of(
            memory.check_memory(one)
        )


class TestData:
    def test_a_set_that_is_not_there(self, tmp_path: Path) -> None:
        found = troubles(data.check_sets(with_images(tmp_path / "nothing")))
        assert [words.partition(":")[0] for words in found] == ["train_data", "val_data"]
        assert is_fine(data.check_sets(case()))

    def test_ordinary_images(self, tmp_path: Path) -> None:
        one = with_images(
            folder_of(tmp_path / "train", photograph),
            folder_of(tmp_path / "val", lambda i: photograph(i + 99)),
        )
        for check in (data.check_sets, data.check_sizes, data.check_images_of_sets, data.check_classes):
            assert is_fine(check(one)), check
        assert is_fine(overlap.check_overlap(one))

    def test_broken_images(self, tmp_path: Path) -> None:
        train, val = (folder_of(tmp_path / name, photograph, num=40) for name in ("train", "val"))
        for i in range(0, 40, 8):
            (train / f"{i:03d}.png").write_bytes(b"nothing")
        (val / "005.png").write_bytes(b"")
        found = list(data.check_images_of_sets(with_images(train, val, trainer={"max_steps": 1000})))
        (words,) = troubles(found)
        assert words.startswith("train_data: 5 of 40 images of a sample cannot be decoded: 000.png: Unident")
        assert [f.step for f in found if f.level is Level.TROUBLE] == [1]  # 0.4 of 40 may be broken
        (words,) = warnings_of(found)
        assert words.startswith(
            "val_data: 1 of 40 images of a sample cannot be decoded: 005.png: the file is empty"
        )

    @pytest.mark.parametrize(
        ("draw", "words"),
        [
            (lambda i: np.full((32, 32, 3), 255, np.uint8), "every pixel of each of 8 images has one value"),
            (lambda i: photograph(i).astype(np.uint16)[..., 0] * 16, "nearly black: their largest value is"),
            (lambda i: photograph(i) if i > 1 else photograph(i) * 0, "2 of 8 images have a single colour: 000.png, "),
        ],
    )  # fmt: skip
    def test_values(self, draw: Draw, words: str, tmp_path: Path) -> None:
        found = list(data.check_images_of_sets(with_images(folder_of(tmp_path / "x", draw))))
        assert any(words in text for text in (*troubles(found), *warnings_of(found)))
        assert all(f.step is None for f in found if f.level is not Level.OK)

    def test_a_range_that_clips(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path / "x", lambda i: photograph(i).astype(np.uint16)[..., 0] * 257)
        for top, is_right in ((65535, True), (300, False)):
            dataset = {"type": "ImageFolder", "root": str(root), "channels": 1, "value_range": [0, top]}
            one = with_images(root)
            one.tree["train_data"]["dataset"] = dataset
            found = [f for f in data.check_images_of_sets(one) if f.place == "train_data"]
            assert is_fine(found) == is_right
        assert "of 8 images are outside value_range" in troubles(found)[0]

    def test_sizes(self, tmp_path: Path) -> None:
        mixed = folder_of(tmp_path / "mixed", lambda i: photograph(i, 32 + 16 * (i == 5)))
        found = list(data.check_images_of_sets(with_images(mixed, side=None)))
        assert "images of different sizes: " in troubles(found)[0]
        (words,) = warnings_of(
            data.check_images_of_sets(with_images(folder_of(tmp_path / "same", photograph), side=64))
        )[:1]
        assert "8 of 8 images are enlarged, such as one of 32 x 32" in words
        assert is_fine(data.check_images_of_sets(with_images(tmp_path / "same", side=32)))

    def test_what_does_not_fit_the_tokenizer(self, tmp_path: Path) -> None:
        root = folder_of(tmp_path / "x", photograph)
        assert "does not divide them" in troubles(data.check_sizes(with_images(root, side=17)))[0]
        grey = with_images(root)
        grey.tree["train_data"]["dataset"]["channels"] = 1
        assert "channels" in troubles(data.check_sizes(grey))[0]
        small = with_images(root)
        small.tree["train_data"]["batch_size"] = 9
        assert "9, but the set has 8 samples; use at most 8" in troubles(data.check_sizes(small))[0]

    def test_reading_against_computing(self) -> None:
        one = case(train_data={"num_workers": 1})
        assert is_fine(data.check_reading(one))
        loader = one.train_data.value
        (words,) = warnings_of(data.speed(one, loader, Sample(total=64, seconds=10.0)))
        assert "reading takes longer than computing: 1e+04 ms per image, 80 s per step with 1 worker" in words
        assert is_fine(data.speed(one, loader, Sample(total=64, seconds=1e-9)))

    def test_the_order_of_imagenet(self) -> None:
        names = [f"n{i:08d}" for i in range(1000)]
        assert is_fine(data.wordnet("x", names))
        swapped = [*names[:1], names[2], names[1], *names[3:]]
        assert (
            "not in the order of their WordNet IDs, from n00000002 on"
            in troubles(data.wordnet("x", swapped))[0]
        )
        assert "100 WordNet IDs" in warnings_of(data.wordnet("x", names[:100]))[0]
        assert not list(data.wordnet("x", ["cat", "dog"]))

    def test_uneven_classes(self) -> None:
        assert not list(data.balance("x", [0, 1, 1], ["a", "b"]))
        empty, uneven = warnings_of(data.balance("x", [0] * 22 + [1] * 2, ["a", "b", "c"]))
        assert "1 of 3 classes have no images: c" in empty
        assert "11 times as many images" in uneven

    def test_overlap(self, tmp_path: Path) -> None:
        train = folder_of(tmp_path / "train", photograph, num=30)
        val = folder_of(tmp_path / "val", lambda i: photograph(i + 25), num=10)  # 5 are also in train
        (found,) = overlap.overlap(ImageFolder(root=train), ImageFolder(root=val))
        assert (found.level, found.step) == (Level.TROUBLE, None)
        assert found.what.startswith("5 of 10 validation images are among 30 training images: ")
        (found,) = overlap.overlap(ImageFolder(root=train), ImageFolder(root=val), seconds=0.0)
        assert "0 of 1 validation images are among 1 training images, 3.3% of the set" in found.what

    def test_the_sample_is_the_same_each_time_and_spread(self, tmp_path: Path) -> None:
        dataset = ImageFolder(root=folder_of(tmp_path / "x", photograph, num=40))
        assert indices_of(dataset, 64) == list(range(40))
        assert indices_of(dataset, 8) == indices_of(dataset, 8)
        assert len(set(indices_of(dataset, 8))) == 8

    def test_the_sample_of_a_set_in_shards_is_in_one_shard(self) -> None:
        class Sharded(ProceduralDataset):
            shard_sizes = (30, 0, 10)

        indices = indices_of(Sharded(num_images=40, image_size=16), 8)
        assert len(set(indices)) == 8
        assert len({index >= 30 for index in indices}) == 1


class TestSchedule:
    @pytest.mark.parametrize(
        ("check", "changes", "words"),
        [
            (schedule.check_epochs, {"trainer": {"max_steps": 7}}, "only 88% of the samples are seen"),
            (schedule.check_epochs, {"trainer": {"max_steps": 8001}}, "likely to overfit"),
            (schedule.check_events, {"evaluator": {"every": 9}}, "it is validated at its end only"),
            (schedule.check_events, {"checkpointer": {"every": 9}}, "if it is interrupted, all is lost"),
            (schedule.check_events, {"evaluator": {"every": 3}}, "most scores are of weights that are not saved"),
            (
                schedule.check_events,
                {"checkpointer": {"every": 1, "keep": 2}},
                "removed before the next validation; keep 5",
            ),
            (
                schedule.check_warmup,
                {"train_step": {"schedule": {"type": "WarmupCosine", "warmup_steps": 8}}},
                "train_step.schedule.warmup_steps: 8, but 8 steps are taken",
            ),
            (
                schedule.check_warmup,
                {"train_step": {"annealing": {"x": {"type": "LinearAnnealing", "first": 0, "last": 1, "steps": 9}}}},
                "train_step.annealing.x: ends at step 9, after the run (8 steps)",
            ),
            (
                schedule.check_warmup,
                {"train_step": {"weights": {"l1": {**RAMP, "steps": 4, "start": 5}}}},
                "train_step.weights.l1: ends at step 9, after the run (8 steps); set its start and steps",
            ),
        ],
    )  # fmt: skip
    def test_it_warns(self, check: Any, changes: dict[str, Any], words: str) -> None:
        assert words in warnings_of(check(case(**changes)))[0]
        assert is_fine(check(case()))

    def test_a_discriminator_that_never_begins(self) -> None:
        late = adversarial(start_step=8)
        assert (
            "the run ends at step 8: the discriminator is never used"
            in warnings_of(schedule.check_warmup(late))[0]
        )
        assert is_fine(schedule.check_warmup(adversarial(start_step=7)))

    def test_a_discriminator_that_would_pull_before_it_learns(self) -> None:
        def pulls(start: int) -> Case:
            one = adversarial(start_step=4)
            one.tree["train_step"]["weights"]["adversarial"] = {**RAMP, "steps": 2, "start": start}
            return one

        (found,) = warnings_of(schedule.check_warmup(pulls(3)))
        assert found.startswith(
            "train_step.weights.adversarial: rises from step 3 on, but the discriminator starts"
        )
        assert is_fine(schedule.check_warmup(pulls(4)))

    def test_rates(self) -> None:
        assert is_fine(schedule.check_rates(adversarial()))
        for rate, words in ((0, "nothing is learned"), (5.0, "each step of Adam")):
            one = adversarial(optimizer={"type": "torch.optim.Adam", "lr": rate})
            (found,) = troubles(schedule.check_rates(one))
            assert found.startswith("train_step.adversary.optimizer.lr: ")
            assert words in found


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, another process trains in a folder, as far as its lock is concerned."""
    ready, end = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        with RunLock(folder):
            os.write(ready[1], b"!")
            os.read(end[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        yield
    finally:
        os.write(end[1], b"!")
        os.waitpid(child, 0)
        for descriptor in (*ready, *end):
            os.close(descriptor)


class TestRunFolder:
    def test_a_lock(self, tmp_path: Path) -> None:
        one = case(run=tmp_path)
        assert not list(run_folder.check_lock(one))
        with held(tmp_path):
            assert f"on {socket.gethostname()} (since " in troubles(run_folder.check_lock(one))[0]
        assert not list(run_folder.check_lock(one))
        (tmp_path / "run.lock").touch()  # of a process that was killed
        assert not list(run_folder.check_lock(one))

    def test_leftovers(self, tmp_path: Path) -> None:
        assert not list(run_folder.check_leftovers(case(run=tmp_path)))
        folder = tmp_path / "checkpoints" / "iter_4.partial"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(2048))
        assert "half-written (2.0 KiB)" in warnings_of(run_folder.check_leftovers(case(run=tmp_path)))[0]
        assert folder.exists()

    def test_checkpoints(self, tmp_path: Path) -> None:
        resume = Options(device="cpu", auto_resume=True)
        one = case(run=tmp_path, options=resume)
        assert not list(run_folder.check_checkpoints(one))
        write(one, tmp_path, [2, 4])
        assert is_fine(run_folder.check_checkpoints(one))
        assert "already holds a trained run" in troubles(run_folder.check_checkpoints(case(run=tmp_path)))[0]
        ended = case(run=tmp_path, options=resume, trainer={"max_steps": 4})
        changed, over = warnings_of(run_folder.check_checkpoints(ended))
        assert "1 change(s) will be applied: trainer.max_steps: 8 -> 4" in changed
        assert "4, and iter_4 is there already: nothing is left to train" in over
        other = case(
            run=tmp_path, options=resume, tokenizer={"encoder": {"type": "CNNEncoder", "out_channels": 4}}
        )
        assert "cannot be continued with this config" in troubles(run_folder.check_checkpoints(other))[0]

    def test_damaged_checkpoints(self, tmp_path: Path) -> None:
        one = case(run=tmp_path, options=Options(device="cpu", auto_resume=True))
        write(one, tmp_path, [2, 4])
        (tmp_path / "checkpoints/iter_4/model.safetensors").write_bytes(b"")
        found = list(run_folder.check_checkpoints(one))
        assert "iter_4: damaged: model.safetensors has 0 bytes" in warnings_of(found)[0]
        assert any(
            "continues from" in f.what and f.what.endswith("iter_2; 6 of 8 steps are left") for f in found
        )
        (tmp_path / "checkpoints/iter_2/config.json").unlink()
        assert "each of 2 checkpoints is damaged" in troubles(run_folder.check_checkpoints(one))[0]

    def test_a_config_that_will_be_replaced(self, tmp_path: Path) -> None:
        one = case(run=tmp_path)
        assert not list(run_folder.check_stored_config(one))
        (tmp_path / "config.json").write_text(json.dumps(one.tree))
        assert not list(run_folder.check_stored_config(one))
        changed = case(run=tmp_path, trainer={"max_steps": 9})
        assert "trainer.max_steps: 8 -> 9" in warnings_of(run_folder.check_stored_config(changed))[0]


def write(one: Case, run: Path, steps: Sequence[int]) -> None:
    step = assembly.make_step(one.tree, assembly.make_tokenizer(one.tree).train())
    checkpointer = assembly.make_checkpointer(one.tree, run)
    for number in steps:
        checkpointer.save(step, number)


def test_a_check_that_fails_hides_nothing() -> None:
    """A config that no page can have: the loader's batch size is text."""
    one = case(train_data={"batch_size": "eight"})
    found = examine(one)
    assert any(f.place == "doctor" and "world.check_batches could not be done" in f.what for f in found)
    assert any(f.place == "packages" and f.level is Level.OK for f in found)


def test_a_page_that_trains_nothing() -> None:
    tree = config.load(TINY).to_dict()
    del tree["trainer"]
    assert troubles(examine(Case(tree=tree))) == [
        "config: has no section trainer, so nothing can be trained; "
    ]
