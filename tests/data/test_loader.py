"""The order and the pixels of samples depend on the seed and the step alone; undecodable images are counted."""

import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from PIL import Image

from vq.data import (
    CenterCrop,
    DataError,
    EmojiDataset,
    ImageFolder,
    ImageLoader,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)
from vq.data.loader import LoaderWorkerError
from vq.registry import LOADERS, build

TRANSFORMS = (RandomCrop(size=8), RandomHorizontalFlip(p=0.5))


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(a, b):
    return (
        len(a) == len(b)
        and all(torch.equal(x["image"], y["image"]) for x, y in zip(a, b, strict=True))
        and all(
            (x["key"], x["label"].tolist(), x["undecodable"])
            == (y["key"], y["label"].tolist(), y["undecodable"])
            for x, y in zip(a, b, strict=True)
        )
    )


@pytest.fixture
def loader(numbered):
    def make(count=50, *, broken=(), sizes=(12,), transforms=TRANSFORMS, batch_size=8, **options):
        dataset = numbered(count, broken=broken, sizes=sizes)
        return ImageLoader(dataset=dataset, transforms=transforms, batch_size=batch_size, **options)

    return make


class TestTraining:
    def test_an_epoch_visits_each_image_once_but_for_its_ragged_end(self, loader):
        batches = take(loader().train_batches(seed=0), 18)
        for epoch in range(3):
            keys = [key for batch in batches[epoch * 6 : epoch * 6 + 6] for key in batch["key"]]
            assert len(set(keys)) == len(keys) == 48
        assert batches[0]["key"] != batches[6]["key"]
        assert batches[0]["image"].shape == (8, 3, 8, 8)
        assert batches[0]["image"].dtype == torch.uint8

    def test_every_image_is_left_out_at_some_time(self, loader):
        train = loader()
        left_out = torch.cat([train.order(seed=0, epoch=epoch)[48:] for epoch in range(300)])
        assert len(left_out.unique()) == 50

    def test_labels_and_keys_belong_to_the_images(self, loader):
        for batch in take(loader(transforms=()).train_batches(seed=3), 6):
            for image, label, key in zip(batch["image"], batch["label"], batch["key"], strict=True):
                assert key == f"image-{int(image[0, 0, 0])}"
                assert int(label) == int(int(image[0, 0, 0]) >= 45)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_change_nothing(self, loader, workers):
        expected = take(loader(broken=(7,), max_undecodable=0.1).train_batches(seed=1), 14)
        found = take(loader(broken=(7,), max_undecodable=0.1, num_workers=workers).train_batches(seed=1), 14)
        assert same(found, expected)

    @pytest.mark.parametrize("start_step", [1, 5, 6, 13, 1_000_000])
    @pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"balance_classes": True}])
    def test_resuming_gives_the_same_batches_and_decodes_nothing_before(self, loader, start_step, options):
        epoch, position = divmod(start_step, 6)
        resumed = loader(**options)
        found = take(resumed.train_batches(seed=2, start_step=start_step), 3)
        assert len(resumed.dataset.read_items) == 24
        if start_step < 100:
            assert same(found, take(loader(**options).train_batches(seed=2), start_step + 3)[start_step:])
        assert found[0]["key"] == [
            f"image-{i}" for i in resumed.order(seed=2, epoch=epoch)[position * 8 : position * 8 + 8].tolist()
        ]

    def test_the_seed_decides(self, loader):
        assert same(take(loader().train_batches(seed=1), 3), take(loader().train_batches(seed=1), 3))
        assert not same(take(loader().train_batches(seed=1), 3), take(loader().train_batches(seed=2), 3))

    def test_an_image_looks_different_in_each_epoch_and_the_same_wherever_it_stands(self, loader):
        train = loader()
        views = [
            {
                key: image
                for batch in take(train.train_batches(seed=5, start_step=6 * epoch), 6)
                for key, image in zip(batch["key"], batch["image"], strict=True)
            }
            for epoch in range(2)
        ]
        common = views[0].keys() & views[1].keys()
        assert sum(torch.equal(views[0][key], views[1][key]) for key in common) < 0.2 * len(common)
        unshuffled = take(loader(shuffle=False).train_batches(seed=5), 1)[0]
        for key, image in zip(unshuffled["key"], unshuffled["image"], strict=True):
            assert torch.equal(image, views[0].get(key, image))

    def test_without_shuffling_the_order_is_the_sets(self, loader):
        keys = [key for batch in take(loader(shuffle=False).train_batches(seed=9), 6) for key in batch["key"]]
        assert keys == [f"image-{i}" for i in range(48)]

    @pytest.mark.parametrize("pieces", [2, 4, 8])
    def test_micro_batches_are_the_batch_in_pieces(self, loader, pieces):
        whole = take(loader().train_batches(seed=4), 8)
        parts = take(loader().train_batches(seed=4, micro_batches=pieces), 8 * pieces)
        assert all(len(part["key"]) == 8 // pieces for part in parts)
        for i, batch in enumerate(whole):
            step = parts[i * pieces : (i + 1) * pieces]
            assert torch.equal(torch.cat([part["image"] for part in step]), batch["image"])
            assert [key for part in step for key in part["key"]] == batch["key"]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_global_generator_is_never_drawn_from(self, loader, workers):
        before = torch.get_rng_state()
        train = loader(num_workers=workers)
        train.check()
        take(train.train_batches(seed=0), 3)
        list(train.pass_batches())
        assert torch.equal(torch.get_rng_state(), before)

    def test_balancing_draws_by_the_root_of_the_frequency(self, loader):
        train = loader(1000, balance_classes=True)
        draws = torch.cat([train.order(seed=0, epoch=epoch) for epoch in range(30)])
        expected = (100 / 100**0.5) / (100 / 100**0.5 + 900 / 900**0.5)  # = 1 / 4; a tenth of the images
        assert float((draws >= 900).float().mean()) == pytest.approx(expected, abs=0.015)
        assert draws.min() == 0
        assert draws.max() == 999
        counts = torch.bincount(draws, minlength=1000).float()
        assert float(counts[:900].std()) == pytest.approx(
            float(counts[:900].mean()) ** 0.5, rel=0.15
        )  # Poisson

    def test_a_signal_to_the_group_does_not_stop_the_workers(self, loader):
        batches = loader(num_workers=2).train_batches(seed=0)
        next(batches)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        pids = [str(worker.pid) for worker in workers]
        for name in ("TERM", "INT", "USR1"):
            subprocess.run(["kill", f"-{name}", *pids], check=True)  # from outside, as a scheduler does
        assert same(take(batches, 20), take(loader().train_batches(seed=0, start_step=1), 20))
        del batches
        deadline = time.monotonic() + 10
        while multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not multiprocessing.active_children()

    def test_a_failed_program_ends_although_its_workers_live(self, loader, capfd):
        def fail():
            batches = loader(num_workers=2).train_batches(seed=0)
            next(batches)
            sys.last_value = RuntimeError(
                "in a step", batches
            )  # Python keeps the frames of an uncaught error
            raise sys.last_value

        process = multiprocessing.get_context("fork").Process(target=fail)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
            process.start()
        process.join(20)
        is_alive = process.is_alive()
        process.kill()
        assert not is_alive
        assert process.exitcode == 1


class TestPass:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_every_image_once_and_in_order(self, loader, workers):
        batches = list(loader(num_workers=workers).pass_batches())
        assert [len(batch["key"]) for batch in batches] == [8] * 6 + [2]
        assert [key for batch in batches for key in batch["key"]] == [f"image-{i}" for i in range(50)]
        assert same(batches, list(loader().pass_batches()))

    def test_a_batch_may_be_larger_than_the_set(self, loader):
        assert [len(batch["key"]) for batch in loader(5).pass_batches()] == [5]

    @pytest.mark.parametrize(
        ("broken", "expected"),
        [
            ([3], [["image-3"], [], []]),
            ([0, 1, 2, 3], [["image-0", "image-1", "image-2", "image-3"], []]),  # the first batch is empty
            ([4, 5, 6, 7, 8], [[], ["image-4", "image-5", "image-6", "image-7", "image-8"]]),
            ([8, 9], [[], ["image-8", "image-9"]]),  # and so is the last
        ],
    )
    def test_broken_images_are_left_out_and_listed(self, loader, broken, expected):
        batches = list(loader(10, broken=broken, batch_size=4, max_undecodable=1.0).pass_batches())
        keys = [key for batch in batches for key in batch["key"]]
        assert keys == [f"image-{i}" for i in range(10) if i not in broken]
        assert [name for batch in batches for name in batch["undecodable"]] == [f"image-{i}" for i in broken]
        assert [batch["undecodable"] for batch in batches] == expected
        assert all(len(batch["image"]) == len(batch["label"]) > 0 for batch in batches)

    def test_nothing_but_broken_images(self, loader):
        with pytest.raises(RuntimeError, match="none of the 10 images can be decoded, from image-0 on"):
            list(loader(10, broken=range(10), max_undecodable=1.0).pass_batches())

    def test_a_fixed_batch_is_spread_over_the_set(self, loader):
        batch = loader(transforms=()).fixed_batch(5)
        assert batch["key"] == ["image-0", "image-10", "image-20", "image-30", "image-40"]
        assert same([loader().fixed_batch(5)], [loader().fixed_batch(5)])
        assert len(loader(3).fixed_batch(64)["key"]) == 3


class TestBroken:
    def test_the_next_image_stands_in_as_it_looks_in_that_epoch(self, loader):
        sound = take(loader().train_batches(seed=0), 6)
        views = {k: v for batch in sound for k, v in zip(batch["key"], batch["image"], strict=True)}
        found = take(loader(broken=(10, 11, 49), max_undecodable=0.2).train_batches(seed=0), 6)
        for expected, batch in zip(sound, found, strict=True):
            replaced = [k for k in expected["key"] if k in ("image-10", "image-11", "image-49")]
            assert batch["undecodable"] == replaced
            stand_in = {"image-10": "image-12", "image-11": "image-12", "image-49": "image-0"}
            assert batch["key"] == [stand_in.get(k, k) for k in expected["key"]]
            for key, image in zip(batch["key"], batch["image"], strict=True):
                assert torch.equal(image, views.get(key, image))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_too_many_end_the_run_with_their_names(self, loader, workers):
        train = loader(100, broken=range(0, 100, 5), max_undecodable=0.05, num_workers=workers)
        with pytest.raises(
            RuntimeError,
            match=r"ImageLoader: (\d+) of \d+ images read \([\d.]+%\) cannot be decoded, more than "
            r"max_undecodable=5.0%; the first: image-\d+, image-\d+.*; repair or remove them",
        ):
            take(train.train_batches(seed=0), 12)
        with pytest.raises(RuntimeError, match=r"the first: image-0, image-5, image-10.*; repair"):
            list(train.pass_batches())

    def test_a_few_at_the_start_do_not(self, loader):
        train = loader(1000, broken=range(9), max_undecodable=0.01)
        assert sum(len(batch["key"]) for batch in train.pass_batches()) == 991
        assert len(take(train.train_batches(seed=0), 125)) == 125

    def test_a_long_run_of_broken_images_is_no_set(self, loader):
        with pytest.raises(RuntimeError, match="64 images in a row cannot be decoded, from 'image-0' on"):
            loader(100, broken=range(100)).check()

    def test_each_reason_is_logged_once(self, loader, caplog):
        train = loader(10, broken=(2,), batch_size=5, max_undecodable=1.0)
        take(train.train_batches(seed=0), 8)
        assert [record.getMessage() for record in caplog.records] == ["cannot decode image-2: made so"]

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_later_passes_do_not_log_it_again(self, loader, caplog, capfd, num_workers):
        again = loader(10, broken={2}, num_workers=num_workers)
        list(again.pass_batches())
        caplog.clear()
        capfd.readouterr()
        for _ in range(2):
            assert [name for batch in again.pass_batches() for name in batch["undecodable"]] == ["image-2"]
        again.fixed_batch(10)
        assert caplog.text == ""
        assert "cannot decode" not in capfd.readouterr().err


class TestTheDoor:
    def test_sizes_that_differ_are_found_before_training(self, loader):
        with pytest.raises(ValueError, match=r"got 12x12 for 'image-0' and 16x16 for 'image-25'; add Resize"):
            loader(sizes=(12, 16), transforms=()).check()
        loader(sizes=(12, 16), transforms=(Resize(size=8), CenterCrop(size=8))).check()

    def test_an_image_too_small_for_its_crop_is_named(self, loader):
        with pytest.raises(
            ValueError,
            match=r"ImageLoader: image 'image-0': RandomCrop: expected .* 32x32, got 12x12; put Resize",
        ):
            loader(transforms=(RandomCrop(size=32),)).check()

    def test_an_empty_set(self, loader):
        with pytest.raises(ValueError, match="NumberedImages: expected at least 1 image, got none"):
            loader(0).check()

    def test_a_batch_larger_than_the_set(self, loader):
        with pytest.raises(
            ValueError, match="expected a batch_size of at most the 5 images of the set, got 8; lower it"
        ):
            loader(5).train_batches(seed=0)

    def test_a_batch_that_cannot_be_divided(self, loader):
        with pytest.raises(
            ValueError,
            match=r"divisible by 1 rank\(s\) x 3 micro-batch\(es\), got 8; use a multiple of 3",
        ):
            loader().train_batches(seed=0, micro_batches=3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "expected a batch_size of at least 1, got 0"),
            ({"num_workers": -1}, "expected num_workers of at least 0, got -1"),
            ({"max_undecodable": 1.5}, r"expected max_undecodable in \[0, 1\], got 1.5"),
            ({"balance_classes": True, "shuffle": False}, "balance_classes draws at random"),
        ],
    )
    def test_impossible_arguments(self, loader, options, message):
        with pytest.raises(ValueError, match=f"ImageLoader: {message}"):
            loader(**options)

    def test_impossible_steps(self, loader):
        with pytest.raises(ValueError, match=r"expected start_step .* micro_batches .* got -1 and 1"):
            loader().train_batches(seed=0, start_step=-1)
        with pytest.raises(ValueError, match="expected num of at least 1 image, got 0"):
            loader().fixed_batch(0)

    def test_image_size_and_number(self, loader):
        train = loader()
        assert (train.num_samples, train.image_size) == (50, (8, 8))


def test_it_is_built_from_a_config_of_real_images():
    node = {
        "type": "ImageLoader",
        "dataset": {"type": "EmojiDataset", "split": "val"},
        "transforms": [{"type": "Resize", "size": 32}, {"type": "RandomHorizontalFlip", "p": 0.5}],
        "batch_size": 16,
    }
    assert LOADERS.get("ImageLoader") is ImageLoader
    with torch.device("meta"):  # as a dry run does
        built = build(node, path="train_data")
    batch = next(built.train_batches(seed=0))
    assert isinstance(built.dataset, EmojiDataset)
    assert batch["image"].device.type == "cpu"
    assert batch["image"].shape == (16, 3, 32, 32)


def _is_running(process: str) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestWorkers:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_error_comes_out_of_a_worker_as_it_went_in(self, loader, workers):
        small = loader(transforms=(RandomCrop(size=32),), num_workers=workers)
        with pytest.raises(DataError) as caught:
            list(small.pass_batches())
        assert str(caught.value).startswith("ImageLoader: image 'image-0': RandomCrop: expected an image of")
        assert "Traceback" not in str(caught.value)
        uneven = loader(sizes=(12, 16), transforms=(), num_workers=workers)
        with pytest.raises(DataError, match=r"^collate: expected images of one size in a batch, got 12x12"):
            list(uneven.pass_batches())

    @pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
    def test_a_worker_that_dies_is_told_with_what_to_do(self, loader, monkeypatch, end):
        dying = loader(num_workers=2)
        main, read = os.getpid(), dying.dataset.read

        def read_or_die(index):
            if index == 30 and os.getpid() != main:
                end()
            return read(index)

        monkeypatch.setattr(dying.dataset, "read", read_or_die)
        # In a separate process: torch reports a dead worker by a signal, which may arrive after the pass has ended.
        child = os.fork()
        if child == 0:
            try:
                list(dying.pass_batches())
            except LoaderWorkerError as error:
                is_told = re.search(r"a worker process ended: .*lower num_workers=2", str(error))
                os._exit(0 if is_told else 2)
            except BaseException:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_workers_end_after_the_main_process_was_killed(self):
        """Their next batches do not fit into the pipe, which nobody reads any more; one starts after the kill."""
        if not os.path.isdir("/proc"):
            pytest.skip("no /proc here, which tells processes that have ended")
        program = (
            "import os, signal, time\n"
            "from torch.utils.data import DataLoader\n"
            "from vq.data.reader import quiet_worker\n"
            "def init(number):\n"
            "    time.sleep(2 * number)\n"
            "    quiet_worker(number)\n"
            "loader = DataLoader(['x' * 200_000] * 8, batch_size=None, num_workers=2, worker_init_fn=init)\n"
            "batches = iter(loader)\n"
            "next(batches)\n"
            "print(*(worker.pid for worker in batches._workers), flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=False
        )  # it ends when the workers have closed the pipe
        workers = done.stdout.split()
        assert (done.returncode, len(workers)) == (-signal.SIGKILL, 2)
        deadline = time.monotonic() + 60
        while any(_is_running(worker) for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_a_file_that_can_no_longer_be_read_counts_as_undecodable(self, tmp_path):
        for i in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
        loader = ImageLoader(
            dataset=ImageFolder(root=tmp_path),
            batch_size=2,
            shuffle=False,
            num_workers=1,
            max_undecodable=0.5,
        )
        loader.check()
        (tmp_path / "2.png").unlink()
        batches = list(loader.pass_batches())
        assert [batch["undecodable"] for batch in batches] == [[], ["2.png"]]
