"""WebDataset tars: the samples that the package webdataset reads, in any order, and one clear error for a bad tar."""

import io
import itertools
import os
import pickle
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tar_shards import UNEVEN, NoRangeHandler, png, served, write_shards, write_tar

from vq.data import DataError, ImageLoader, UndecodableImage, UndecodableSetError, WebDataset
from vq.data.sets.sharded import shard_files, tar_index
from vq.data.sets.sharded.tar_index import ByteStrings
from vq.packages import MissingPackageError

TOTAL = sum(UNEVEN)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return write_shards(tmp_path / "tars")


def all_of(dataset: WebDataset) -> dict[str, int]:
    """The number in the pixels of each image by its key."""
    return {dataset.key(i): int(dataset.read(i)[0, 0, 0]) for i in range(len(dataset))}


def refused(match: str, **settings: Any) -> None:
    with pytest.raises(DataError, match=match):
        WebDataset(**settings).check()


class TestSamples:
    def test_samples_and_bytes_are_those_of_the_package_webdataset(self, tmp_path: Path) -> None:
        from webdataset.tariterators import group_by_keys, tar_file_expander

        image = png(1)
        folder = tmp_path / "tars"
        write_tar(
            folder / "0.tar",
            {
                "README": b"no dot, no sample",
                "__meta__/a.png": b"skipped",
                "b.png": image,
                "b.txt": b"text",
                "b.d/1.PNG": png(2),
                "b.d/1.seg.png": png(3),
                "./c/2.png": png(4),
                "a/x y.2.png": png(5),  # the suffix is 2.png
                "a/x z.png": png(6),
                "../escape.png": png(7),
                "/absolute.png": png(8),
            },
        )
        write_shards(folder, (0, 4))
        (folder / "000.tar").unlink()
        urls = [str(folder / "0.tar"), str(folder / "001.tar")]
        theirs = []
        for url in urls:
            with open(url, "rb") as stream:
                theirs += group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
        theirs = [sample for sample in theirs if "png" in sample]
        ours = WebDataset(shards=urls, label=None)
        assert [ours.key(i).partition(":")[2] for i in range(len(ours))] == [s["__key__"] for s in theirs]
        assert [ours.content(i) for i in range(len(ours))] == [s["png"] for s in theirs]
        assert ours.key(0) == "0.tar:b"
        assert ours.shard_sizes == [6, 4]

    def test_pixels_labels_captions_and_keys(self, shards: list[Path]) -> None:
        dataset = WebDataset(shards=str(shards[0].parent / "*.tar"), caption="txt")
        assert len(dataset) == TOTAL
        assert dataset.shard_sizes == list(UNEVEN)
        assert [dataset.label(i) for i in range(TOTAL)] == [i % 3 for i in range(TOTAL)]
        assert tuple(dataset.class_names) == ("0", "1", "2")
        assert [dataset.caption(i) for i in range(TOTAL)] == [f"number {i}" for i in range(TOTAL)]
        assert list(all_of(dataset).values()) == list(range(TOTAL))
        assert len(set(all_of(dataset))) == TOTAL
        assert dataset.key(5) == "001.tar:0000"
        assert dataset.size(5) == (16, 16)
        assert dataset.describe().endswith("4 shard(s)")

    @pytest.mark.parametrize(
        ("text", "names", "label", "expected"),
        [
            ("cat dog cat", None, "cls", (("cat", "dog"), [0, 1, 0])),
            ("cat dog cat", ("mouse", "dog", "cat"), "cls", (("mouse", "dog", "cat"), [2, 1, 2])),
            ("2 0 2", None, "cls", (("0", "1", "2"), [2, 0, 2])),
            ("2 0 2", ("a", "b", "c", "d"), "target.txt", (("a", "b", "c", "d"), [2, 0, 2])),
            ('{"y":1,"n":"a"} {"y":0,"n":"b"} {"y":1,"n":"b"}', None, "json:y", (("0", "1"), [1, 0, 1])),
            ('{"y":1,"n":"a"} {"y":0,"n":"b"} {"y":1,"n":"b"}', None, "json:n", (("a", "b"), [0, 1, 1])),
            ("7 7 7", None, None, (("images",), [0, 0, 0])),
        ],
    )
    def test_classes(
        self, tmp_path: Path, text: str, names: tuple[str, ...] | None, label: str | None, expected: Any
    ) -> None:
        suffix = "json" if label and label.startswith("json") else (label or "cls")
        members = {}
        for i, value in enumerate(text.split()):
            members |= {f"{i}.png": png(i), f"{i}.{suffix}": f"{value}\n".encode()}
        path = write_tar(tmp_path / "0.tar", members)
        dataset = WebDataset(shards=str(path), label=label, class_names=names)
        assert (tuple(dataset.class_names), [dataset.label(i) for i in range(3)]) == expected

    def test_a_member_named_cls_txt_is_the_class_too(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.cls.txt": b"4"})
        assert WebDataset(shards=str(path)).label(0) == 4
        write_tar(path, {"a.png": png(0), "a.cls.txt": b"4", "a.cls": b"5"})
        refused(r"got 'a.cls' at the bytes [0-9,]+ and [0-9,]+", shards=str(path))

    def test_captions_from_json_and_missing_ones(self, tmp_path: Path) -> None:
        members = {"a.png": png(0), "a.json": '{"caption": "ein Käfer"}'.encode(), "b.png": png(1)}
        path = write_tar(tmp_path / "0.tar", members)
        dataset = WebDataset(shards=str(path), label=None, caption="json:caption")
        assert [dataset.caption(i) for i in range(2)] == ["ein Käfer", ""]
        with pytest.raises(DataError, match=r"expected to know what holds the captions; set caption='txt'"):
            WebDataset(shards=str(path), label=None).caption(0)

    def test_the_image_may_have_a_suffix_of_its_own(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", {"a.input.png": png(3), "a.target.png": png(4), "b.txt": b""})
        dataset = WebDataset(shards=str(path), label=None, image=".target.PNG")
        assert all_of(dataset) == {"0.tar:a": 4}
        assert "1 samples without an image are left out" in dataset.describe()
        refused(r"found none in 1 shard\(s\); the suffixes there are input.png, target.png, txt; set `image`",
                shards=str(path), label=None)  # fmt: skip

    def test_names_that_are_not_utf8_or_have_line_breaks(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", {"a\nb.png": png(0), os.fsdecode(b"\xe4.png"): png(1)})
        dataset = WebDataset(shards=str(path), label=None)
        assert all_of(dataset) == {"0.tar:a\nb": 0, "0.tar:\\udce4": 1}

    def test_shards_in_several_folders_are_named_below_their_common_folder(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_shards(tmp_path / name, (1,))
        dataset = WebDataset(shards=[str(tmp_path / name / "000.tar") for name in ("b", "a")])
        assert list(all_of(dataset)) == ["b/000.tar:0000", "a/000.tar:0000"]

    def test_splits_are_disjoint_and_do_not_depend_on_the_other_shards(self, shards: list[Path]) -> None:
        def keys(split: str, **settings: Any) -> set[str]:
            pattern = {"shards": str(shards[0].parent / "*.tar")} | settings
            return set(all_of(WebDataset(**pattern, split=split, val_fraction=0.3)))

        assert keys("train") | keys("val") == keys("all")
        assert not keys("train") & keys("val")
        assert {k for k in keys("val") if k.startswith("001")} == keys("val", shards=str(shards[1]))
        validation = WebDataset(shards=list(map(str, shards)), split="val", val_fraction=0.3, caption="txt")
        assert len(validation) == sum(validation.shard_sizes) > 0
        for i in range(len(validation)):
            number = int(validation.read(i)[0, 0, 0])
            assert (validation.label(i), validation.caption(i)) == (number % 3, f"number {number}")

    def test_constructing_a_set_accesses_nothing(self) -> None:
        assert WebDataset(shards="no/such/folder/{00..99}.tar").channels == 3

    def test_other_channels_and_npy_members(self, tmp_path: Path) -> None:
        import numpy as np

        content = io.BytesIO()
        np.save(content, np.full((4, 5, 6), 100, dtype=np.uint16))
        path = write_tar(tmp_path / "0.tar", {"a.npy": content.getvalue()})
        dataset = WebDataset(shards=str(path), label=None, image="npy", channels=6, value_range=(0, 200))
        assert dataset.channels == 6
        assert torch.equal(dataset.read(0), torch.full((6, 4, 5), 127.5))


class TestPatterns:
    def test_braces_globs_and_lists(self, shards: list[Path]) -> None:
        folder = shards[0].parent
        for pattern, sizes in (
            (f"{folder}/{{000..003}}.tar", UNEVEN),
            (f"{folder}/{{003,000}}.tar", (11, 5)),
            ([f"{folder}/00[12].tar", f"file://{folder}/000.tar"], (17, 3, 5)),
        ):
            assert tuple(WebDataset(shards=pattern).shard_sizes) == sizes

    def test_bad_patterns(self, shards: list[Path]) -> None:
        folder = shards[0].parent
        refused("expected shards at .*x.*, found none; set `shards`", shards=f"{folder}/x*.tar")
        refused("cannot be read .No such file", shards=f"{folder}/x.tar")
        refused("a folder's shards are written as FOLDER/", shards=str(folder))
        refused("000.tar' is listed twice", shards=[str(shards[0]), f"{folder}/*.tar"])
        refused("braces of .* do not match", shards=f"{folder}/{{000..003.tar")
        refused("gives more than 1,000,000 shards", shards="{0..99999999}.tar")
        refused("gives more than 1,000,000 shards", shards="{a,b}" * 20 + ".{1,2}.tar")
        refused("expected at least one name in shards", shards=[])

    def test_bad_settings(self) -> None:
        refused("expected split 'train', 'val', 'all', got 'test'", shards="a", split="test")
        refused("expected val_fraction above 0 and below 1, got 1", shards="a", val_fraction=1.0)
        refused("class_names that differ", shards="a", class_names=["x", "x"])
        with pytest.raises(TypeError, match="channel"):
            WebDataset(shards="a", channel=1)  # type: ignore[call-arg]

    @pytest.mark.parametrize("url", ["simplecache::s3://a/0.tar", "sftp://host/0.tar", "zip://0.tar::x.zip"])
    def test_other_kinds_of_addresses_are_refused(self, url: str) -> None:
        refused("expected a path or an address of http, https", shards=url)

    def test_what_braces_and_addresses_need_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vq.packages.is_installed", lambda module: False)
        with pytest.raises(
            MissingPackageError, match=r"WebDataset with braces .* needs the package webdataset"
        ):
            WebDataset(shards="{0..1}.tar").check()
        with pytest.raises(MissingPackageError, match="a shard behind an address needs the package fsspec"):
            WebDataset(shards="https://localhost/0.tar").check()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
class TestRanks:
    """Four shards of 5, 17, 3 and 11 images."""

    def test_no_image_is_lost_or_read_twice(
        self, shards: list[Path], on_ranks: Any, ranks: int, workers: int
    ) -> None:
        loader = ImageLoader(
            dataset=WebDataset(shards=list(map(str, shards))), batch_size=4, num_workers=workers
        )

        def numbers(batches: Any) -> list[int]:
            return [int(x) for batch in batches for x in batch["image"][:, 0, 0, 0]]

        def read() -> tuple[list[int], list[int], list[int]]:
            epochs = numbers(itertools.islice(loader.train_batches(seed=0), 2 * TOTAL // 4))
            resumed = numbers(itertools.islice(loader.train_batches(seed=0, start_step=7), 11))
            return numbers(loader.pass_batches()), epochs, resumed

        passes, epochs, resumed = zip(*on_ranks(ranks, read), strict=True)
        assert [x for share in passes for x in share] == list(range(TOTAL))
        half = TOTAL // ranks
        for epoch in (slice(0, half), slice(half, None)):
            assert sorted(x for share in epochs for x in share[epoch]) == list(range(TOTAL))
        size = 4 // ranks
        assert [share[7 * size :] for share in epochs] == list(resumed)


class TestBadShards:
    def test_pickled_members_are_never_loaded(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
                return os.mkdir, (str(tmp_path / "executed"),)

        payload = pickle.dumps(Payload())
        members = {f"a.{suffix}": payload for suffix in ("pyd", "pickle", "pkl", "pth", "pt", "npy")}
        path = write_tar(tmp_path / "0.tar", members | {"a.png": png(0), "b.png": payload})
        dataset = WebDataset(shards=str(path), label=None, caption="pyd")
        dataset.read(0)
        dataset.caption(0)
        with pytest.raises(UndecodableImage):
            dataset.read(1)
        with pytest.raises(UndecodableImage):
            WebDataset(shards=str(path), label=None, image="npy").read(0)
        assert not (tmp_path / "executed").exists()
        pickle.loads(payload)  # the payload would have worked
        assert (tmp_path / "executed").exists()

    @pytest.mark.parametrize("cut", [0, 100, 512, 700, 5000, 20_000])
    def test_a_tar_cut_short_is_an_error_with_its_place(self, shards: list[Path], cut: int) -> None:
        whole = shards[1].read_bytes()
        shards[1].write_bytes(whole[:cut])
        refused(r"001.tar: cut short or damaged after [0-9,]+ bytes, where \d+ samples .*; copy it again",
                shards=list(map(str, shards)))  # fmt: skip

    def test_every_cut_is_noticed(self, tmp_path: Path) -> None:
        (path,) = write_shards(tmp_path, (1,))
        whole = path.read_bytes()
        end = len(whole.rstrip(b"\0"))
        for cut in range(0, end, 256):  # up to the end mark
            path.write_bytes(whole[:cut])
            refused("cut short or damaged", shards=str(path))

    def test_a_negative_size_is_damage(self, tmp_path: Path) -> None:
        """Such a header made the tarfile of Python 3.13.5 and older read the same member forever."""
        header = tarfile.TarInfo("a.png").tobuf()
        header = header[:124] + b"\xff" * 10 + (-1024).to_bytes(2, "big", signed=True) + header[136:]
        checksum = 256 + sum(header[:148]) + sum(header[156:])
        header = header[:148] + f"{checksum:06o}\0 ".encode() + header[156:]
        (tmp_path / "0.tar").write_bytes(header * 2 + bytes(1024))
        refused("cut short or damaged", shards=str(tmp_path / "0.tar"))

    def test_a_chain_of_long_names_is_damage(self, tmp_path: Path) -> None:
        header = tarfile.TarInfo("name")
        header.type = tarfile.GNUTYPE_LONGNAME
        (tmp_path / "0.tar").write_bytes(header.tobuf() * 3000 + bytes(1024))
        refused("cut short or damaged", shards=str(tmp_path / "0.tar"))

    def test_a_damaged_header_is_not_the_end(self, shards: list[Path]) -> None:
        content = bytearray(shards[1].read_bytes())
        content[3 * 512 * 4 : 3 * 512 * 4 + 200] = b"x" * 200
        shards[1].write_bytes(content)
        refused("001.tar: cut short or damaged", shards=list(map(str, shards)))

    def test_joined_tars_are_refused(self, shards: list[Path]) -> None:
        shards[0].write_bytes(shards[0].read_bytes() + shards[1].read_bytes())
        refused("000.tar: .*tars cannot be joined by `cat`", shards=str(shards[0]))

    def test_several_bad_shards_are_one_error(self, shards: list[Path]) -> None:
        for path in shards:
            path.write_bytes(b"")
        refused("4 shards cannot be used: .*000.tar: cut short.*; .*001.tar.*; .*002.tar: [^;]*; copy it again[^;]*$",
                shards=list(map(str, shards)))  # fmt: skip

    @pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
    def test_compressed_tars_are_refused(self, tmp_path: Path, mode: Any, kind: str) -> None:
        with tarfile.open(tmp_path / "0.tar", mode):
            pass
        refused(
            f"expected a tar without compression, got {kind}.*decompress the shard",
            shards=f"{tmp_path}/0.tar",
        )

    @pytest.mark.parametrize(
        "names",
        [
            ("a.png", "a.png"),
            ("a.png", "b.png", "a.txt"),
            ("a.png", "a.PNG"),
            ("x/a.png", "b.png", "x/a.png"),
        ],
    )
    def test_two_samples_of_one_key(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        path = write_tar(tmp_path / "0.tar", [(name, png(0)) for name in names])
        refused(r"0.tar: expected the members of each sample once .*, got '.*a.*' at the bytes 512 and [0-9,]+; write",
                shards=str(path), label=None)  # fmt: skip

    def test_two_images_in_a_sample(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.jpg": png(0)})
        refused(
            "expected one image in the sample 'a', got png and jpg; set image='png'",
            shards=str(path),
            label=None,
        )

    def test_links_devices_and_sparse_members_are_ignored(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.png"
        secret.write_bytes(png(9))
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.CHRTYPE),
                               ("d.png", tarfile.FIFOTYPE), ("e", tarfile.DIRTYPE)):  # fmt: skip
                header = tarfile.TarInfo(name)
                header.type, header.linkname = kind, str(secret)
                tar.addfile(header)
            header = tarfile.TarInfo("f.png")
            header.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,512",
                                  "GNU.sparse.size": "4096"}  # fmt: skip
            header.size = 512
            tar.addfile(header, io.BytesIO(bytes(512)))
            header = tarfile.TarInfo("g.png")
            header.size = len(png(7))
            tar.addfile(header, io.BytesIO(png(7)))
        dataset = WebDataset(shards=str(tmp_path / "0.tar"), label=None)
        assert all_of(dataset) == {"0.tar:g": 7}
        assert "5 links, devices or sparse members are ignored" in dataset.describe()

    def test_classes_that_do_not_exist(self, tmp_path: Path, shards: list[Path]) -> None:
        refused(r"expected a class \(json:y\) in each sample, found none in 5 of 5, the first is '000.tar:0000'; set "
                "label=None", shards=str(shards[0]), label="json:y")  # fmt: skip
        refused("expected classes below 2 or in class_names, got '2' for '000.tar:0002'",
                shards=str(shards[0]), class_names=["a", "b"])  # fmt: skip
        path = write_tar(tmp_path / "1.tar", {"a.png": png(0), "a.cls": b"cat"})
        refused("in class_names, got 'cat' for '1.tar:a'", shards=str(path), class_names=["dog"])
        path = write_tar(tmp_path / "1.tar", {"a.png": png(0), "a.cls": b"123456789"})
        refused("expected classes below 1,048,576", shards=str(path))

    @pytest.mark.parametrize(
        "content", [b"[1]", b"{", b"\xff", b'{"y": 1.5}', b'{"y": true}', b"[" * 100_000]
    )
    def test_damaged_json(self, tmp_path: Path, content: bytes) -> None:
        path = write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.json": content})
        refused("0.tar: cannot read 'json:y' from 'a.json': ", shards=str(path), label="json:y")
        with pytest.raises(DataError, match=r"0.tar:a: cannot read the caption"):
            WebDataset(shards=str(path), label=None, caption="json:y").caption(0)

    def test_broken_images_are_counted_and_replaced(self, tmp_path: Path) -> None:
        members = {f"{i}.png": png(i) if i != 2 else png(i)[:50] for i in range(8)}
        path = write_tar(tmp_path / "0.tar", members)
        loader = ImageLoader(dataset=WebDataset(shards=str(path), label=None), batch_size=4)
        keys = [key for batch in loader.pass_batches() for key in batch["key"]]
        assert keys == [f"0.tar:{i}" for i in range(8) if i != 2]
        batches = loader.train_batches(seed=0)
        drawn = [next(batches) for _ in range(2)]
        assert [name for batch in drawn for name in batch["undecodable"]] == ["0.tar:2"]
        assert Counter(key for batch in drawn for key in batch["key"])["0.tar:3"] == 2  # it replaces 2
        write_tar(path, {f"{i}.png": b"" for i in range(8)})
        with pytest.raises(UndecodableSetError, match=r"none can be decoded; the first is '0.tar:0'"):
            ImageLoader(dataset=WebDataset(shards=str(path), label=None), batch_size=4).check()

    def test_a_member_larger_than_any_image_is_not_read(self, tmp_path: Path) -> None:
        size = 8 * 100 + 2**26 + 1
        with (tmp_path / "0.tar").open("wb") as file:  # a sparse file: it takes no space
            header = tarfile.TarInfo("a.png")
            header.size = size
            file.write(header.tobuf())
            file.truncate(512 + size + 512 - size % 512 + 1024)
        dataset = WebDataset(shards=str(tmp_path / "0.tar"), label=None, max_pixels=100)
        with pytest.raises(
            UndecodableImage, match=r"0.tar:a: the member has 67,109,665 bytes, more than 67,109,664"
        ):
            dataset.read(0)
        assert dataset.sha256(0) == ""

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("how", ["rewritten", "replaced", "removed", "truncated"])
    def test_a_shard_that_changes_while_it_is_used_is_an_error(
        self, shards: list[Path], workers: int, how: str
    ) -> None:
        dataset = WebDataset(shards=list(map(str, shards)))
        loader = ImageLoader(dataset=dataset, batch_size=4, num_workers=workers, max_undecodable=1.0)
        batches = loader.train_batches(seed=0)
        next(batches)
        for path in shards:
            if how == "rewritten":  # with the same size
                os.utime(path, ns=(1, 1))
            elif how == "replaced":
                write_tar(path.with_suffix(".new"), {"a.png": png(0)}).replace(path)
            elif how == "removed":
                path.unlink()
            else:
                os.truncate(path, 2000)
        message = "No such file" if how == "removed" else "a shard must not change while it is read"
        with pytest.raises(DataError, match=message):
            list(itertools.islice(batches, 20))


class TestIndexes:
    def test_an_index_is_made_once_and_again_if_the_tar_changes(
        self, shards: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[str] = []
        original = tar_index.index_tar

        def counted(shard: Any, text: Any = None) -> Any:
            made.append(Path(shard.url).name)
            return original(shard, text)

        monkeypatch.setattr(tar_index, "index_tar", counted)
        pattern = str(shards[0].parent / "*.tar")
        first = WebDataset(shards=pattern, caption="txt")
        expected = all_of(first)
        assert sorted(made) == [path.name for path in shards]
        again = WebDataset(shards=pattern, caption="txt")
        assert all_of(again) == expected
        assert [again.label(i) for i in range(TOTAL)] == [first.label(i) for i in range(TOTAL)]
        assert again.caption(7) == "number 7"
        assert len(made) == 4
        write_shards(shards[0].parent, (2,), first=100)
        assert list(all_of(WebDataset(shards=pattern)).values())[:3] == [100, 101, 5]
        assert made[4:] == ["000.tar"]
        assert list(all_of(WebDataset(shards=pattern, label=None)).values())[:3] == [100, 101, 5]
        assert len(made) == 9, "another label needs an index of its own"

    @pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nonsense", None])
    def test_a_damaged_index_is_made_again(
        self, shards: list[Path], tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = {"shards": str(shards[0]), "index_folder": tmp_path / "indexes"}
        expected = all_of(WebDataset(**settings))
        (index,) = (tmp_path / "indexes").iterdir()
        content = bytearray(index.read_bytes())
        content[len(content) // 2] ^= 255
        index.write_bytes(content if damage is None else damage)
        assert all_of(WebDataset(**settings)) == expected
        assert "a damaged index is made again" in caplog.text
        assert all_of(WebDataset(**settings)) == expected

    def test_a_folder_that_cannot_be_written_to(
        self, shards: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        dataset = WebDataset(shards=str(shards[0]), index_folder=tmp_path / "file" / "below")
        assert len(all_of(dataset)) == 5
        assert "cannot be kept" in caplog.text

    def test_several_processes_make_one_index(
        self, shards: list[Path], on_ranks: Any, tmp_path: Path
    ) -> None:
        pattern = str(shards[0].parent / "*.tar")
        found = on_ranks(3, lambda: all_of(WebDataset(shards=pattern)))
        assert found[0] == found[1] == found[2]
        assert len(list((tmp_path / "cache" / "shards").iterdir())) == 4, "locks are left over"

    def test_columns_of_bytes(self) -> None:
        strings = [b"", b"ab", b"", b"\xffc", b"d" * 300]
        column = ByteStrings.of(strings)
        assert list(column) == strings
        import numpy as np

        mask = np.array([True, False, True, True, False])
        both = ByteStrings.concatenate([column.select(mask), column, ByteStrings.of([])])
        assert list(both) == [b"", b"", b"\xffc", *strings]


class TestAddresses:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("copied", [False, True])
    def test_a_web_server(self, shards: list[Path], tmp_path: Path, workers: int, copied: bool) -> None:
        with served(shards[0].parent) as (address, server):
            settings = {"cache_folder": tmp_path / "copies"} if copied else {}
            dataset = WebDataset(shards=f"{address}/{{000..003}}.tar?x=1", caption="txt", **settings)
            assert dataset.shard_sizes == list(UNEVEN)
            before = len(server.requests)
            loader = ImageLoader(dataset=dataset, batch_size=4, num_workers=workers)
            numbers = [int(x) for batch in loader.pass_batches() for x in batch["image"][:, 0, 0, 0]]
            assert numbers == list(range(TOTAL))
            assert dataset.key(5) == "001.tar:0000"
            assert dataset.caption(5) == "number 5"
            requests = server.requests[before:]
            assert all(size for _, size in requests), "a whole shard was read"
            assert len(set(requests)) == (0 if copied else TOTAL + 1)
            assert len(list((tmp_path / "copies").iterdir()) if copied else []) == 4 * copied
            again = WebDataset(shards=f"{address}/{{000..003}}.tar?x=1", **settings)
            server.requests.clear()
            assert len(again) == TOTAL
            assert not server.requests, "the index was made again"

    def test_a_server_without_ranges_needs_a_folder_for_copies(
        self, shards: list[Path], tmp_path: Path
    ) -> None:
        with served(shards[0].parent, NoRangeHandler) as (address, _):
            refused("000.tar: cannot be read by range .*; set cache_folder", shards=f"{address}/000.tar")
            dataset = WebDataset(shards=f"{address}/000.tar", cache_folder=tmp_path / "copies")
            assert list(all_of(dataset).values()) == list(range(5))

    def test_connections_that_break_are_tried_again(
        self, shards: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        with served(shards[0].parent) as (address, server):
            dataset = WebDataset(shards=f"{address}/000.tar")
            dataset.check()
            server.failures = 2
            assert int(dataset.read(3)[0, 0, 0]) == 3
            assert pauses
            server.failures = 100
            with pytest.raises(DataError, match=r"000.tar: cannot be read after 4 attempts"):
                dataset.read(3)

    def test_a_missing_shard_and_a_missing_server(
        self, shards: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", lambda _: None)
        with served(shards[0].parent) as (address, _):
            refused("x.tar: expected a shard, found nothing", shards=f"{address}/x.tar")
            refused(r"a web server does not list files; write braces", shards=f"{address}/*.tar")
        refused("000.tar: expected a shard, found nothing .*; check the address", shards=f"{address}/000.tar")

    @pytest.mark.parametrize("copied", [False, True])
    def test_a_shard_that_changes_at_its_address(
        self, shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
    ) -> None:
        with served(shards[0].parent) as (address, _):
            settings = {"cache_folder": tmp_path / "copies"} if copied else {}
            dataset = WebDataset(shards=f"{address}/000.tar", **settings)
            dataset.read(0)
            write_shards(shards[0].parent, (2,), first=50)
            monkeypatch.setattr(shard_files, "_SECONDS_BETWEEN_STAMPS", 0.0)
            if copied:  # the run goes on with its copy, and the next one makes another
                dataset.read(1)
            else:
                with pytest.raises(DataError, match="a shard must not change while it is read"):
                    dataset.read(1)
            assert list(all_of(WebDataset(shards=f"{address}/000.tar", **settings)).values()) == [50, 51]

    def test_fsspec_in_memory(self, shards: list[Path]) -> None:
        import fsspec

        memory = fsspec.filesystem("memory")
        for path in shards:
            memory.pipe(f"/set/{path.name}", path.read_bytes())
        try:
            dataset = WebDataset(shards="memory://set/*.tar")
            assert list(all_of(dataset).values()) == list(range(TOTAL))
            assert dataset.key(0) == "000.tar:0000"
        finally:
            memory.rm("/set", recursive=True)


class TestPipes:
    @pytest.fixture
    def pipe(self, shards: list[Path], tmp_path: Path) -> str:
        return f"pipe:echo run >> {tmp_path}/runs; cat {shards[0]}"

    def test_a_pipe_is_refused_without_the_environment_variable(
        self, pipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("VQ_ALLOW_PIPES", raising=False)
        refused("would run a shell command; set the environment variable VQ_ALLOW_PIPES=1", shards=pipe,
                cache_folder=tmp_path)  # fmt: skip
        monkeypatch.setenv("VQ_ALLOW_PIPES", "1")
        refused("can be read only once; set cache_folder", shards=pipe)
        assert not (tmp_path / "runs").exists()

    def test_an_allowed_pipe_runs_once(
        self, pipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQ_ALLOW_PIPES", "1")
        for _ in range(2):
            dataset = WebDataset(shards=pipe, cache_folder=tmp_path / "copies")
            assert list(all_of(dataset).values()) == list(range(5))
        assert dataset.key(0) == "000.tar:0000"
        assert (tmp_path / "runs").read_text() == "run\n"
        refused("failed with exit code 3: no luck", shards="pipe:echo no luck >&2; exit 3",
                cache_folder=tmp_path / "copies")  # fmt: skip
