"""The file of reference statistics: its content, the files of other projects, and errors."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from feature_networks import TinyNetwork

from vq.metrics import FIDMetric, ReferenceStatistics, Stamp, StatisticsCollector
from vq.metrics.stamp import StatisticsError
from vq.metrics.statistics import frechet

STAMP = Stamp(protocol="test", extractor="tiny", extractor_sha256="0" * 64, num_images=40, dataset="mine")


def make(stamp: Stamp = STAMP, *, shift: float = 0.0) -> ReferenceStatistics:
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    return ReferenceStatistics(
        mean=torch.arange(6).double() + shift,
        covariance=root @ root.T,
        spatial_mean=torch.zeros(5).double(),
        spatial_covariance=torch.eye(5).double(),
        stamp=stamp,
    )


class TestFile:
    def test_comes_back_whole(self, tmp_path):
        path = tmp_path / "new folder" / "mine_val.npz"
        make().save(path)
        found = ReferenceStatistics.load(path)
        assert found.stamp == STAMP
        for name in ("mean", "covariance", "spatial_mean", "spatial_covariance"):
            assert torch.equal(getattr(found, name), getattr(make(), name))
        assert [file.name for file in path.parent.iterdir()] == ["mine_val.npz"]

    def test_has_no_pickle_and_pytorch_fids_keys(self, tmp_path):
        make().save(tmp_path / "x.npz")
        with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
            assert archive["mu"].dtype == archive["sigma"].dtype == np.float64
            assert json.loads(str(archive["stamp"]))["dataset"] == "mine"

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "x.npz"
        make().save(path)
        monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            make(shift=1.0).save(path)
        assert torch.equal(ReferenceStatistics.load(path).mean, make().mean)
        assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]

    def test_pytorch_fids(self, tmp_path):
        np.savez_compressed(tmp_path / "theirs.npz", mu=np.zeros(6), sigma=np.eye(6))
        found = ReferenceStatistics.load(tmp_path / "theirs.npz")
        assert found.stamp == Stamp(protocol="pytorch-fid", extractor="inception")

    def test_adms_reference_batch(self, tmp_path):
        images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
        np.savez(
            tmp_path / "adm.npz", arr_0=images, mu=np.zeros(6), sigma=np.eye(6),
            mu_s=np.ones(5, dtype=np.float32), sigma_s=np.eye(5),
        )  # fmt: skip
        found = ReferenceStatistics.load(tmp_path / "adm.npz")
        assert found.stamp.protocol == "torch-fidelity"
        assert found.spatial_mean.dtype == torch.float64
        assert found.spatial_mean.tolist() == [1] * 5


class TestRefused:
    def load(self, path, message):
        with pytest.raises(ValueError, match=f"reference statistics: {message}"):
            ReferenceStatistics.load(path)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"make it with `vq fid emoji`"):
            ReferenceStatistics.load(tmp_path / "emoji_val.npz")

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
    def test_truncated(self, tmp_path, share):
        path = tmp_path / "x.npz"
        make().save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        self.load(path, "expected an intact .npz file of statistics")

    def test_a_flipped_bit(self, tmp_path):
        path = tmp_path / "x.npz"
        make().save(path)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            place = archive.getinfo("mu.npy").header_offset + 180
        content[place] ^= 1
        path.write_bytes(content)
        self.load(path, "expected an intact .npz file")

    @pytest.mark.parametrize("content", [b"", b"not a zip file"])
    def test_another_file(self, tmp_path, content):
        (tmp_path / "x.npz").write_bytes(content)
        self.load(tmp_path / "x.npz", "expected an intact .npz file")

    def test_a_pickle(self, tmp_path):
        np.savez(tmp_path / "x.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
        self.load(tmp_path / "x.npz", "expected an intact .npz file of statistics")

    def test_images_alone(self, tmp_path):
        np.savez(tmp_path / "x.npz", arr_0=np.zeros((2, 4, 4, 3), dtype=np.uint8))
        self.load(tmp_path / "x.npz", "expected 'mu' and 'sigma' in .*, got neither")

    @pytest.mark.parametrize(
        ("mu", "sigma", "message"),
        [
            (np.zeros(2), np.eye(3), "expected floating-point"),
            (np.zeros((2, 1)), np.eye(2), "expected floating-point"),
            (np.zeros(0), np.zeros((0, 0)), "expected floating-point"),
            (np.array(["1", "2"]), np.eye(2), "expected floating-point"),
            (np.zeros(2), np.eye(2, dtype=np.int64), "expected an intact .npz file"),
            (np.zeros(2), np.eye(2) * 1j, "expected an intact .npz file"),
            (np.zeros(2), np.eye(2, dtype=bool), "expected an intact .npz file"),
            (np.zeros(2), np.full((2, 2), np.nan), "expected finite"),
            (np.array([0, np.inf]), np.eye(2), "expected finite"),
            (np.zeros(2), np.array([[1.0, 5.0], [0.0, 1.0]]), "expected a symmetric"),
            (np.zeros(2), -np.eye(2), "expected a symmetric"),
        ],
    )
    def test_shapes_types_and_values(self, tmp_path, mu, sigma, message):
        np.savez(tmp_path / "x.npz", mu=mu, sigma=sigma)
        self.load(tmp_path / "x.npz", message)

    @pytest.mark.parametrize(
        "stamp",
        ["no json", "[]", "3", '{"num_images": "many"}', '{"num_images": true}', '{"num_images": 1}',
         '{"extractor": ["x"]}', '{"protocol": {"a": 1}}', "[" * 10**5],
    )  # fmt: skip
    def test_a_broken_stamp(self, tmp_path, stamp):
        np.savez(tmp_path / "x.npz", mu=np.zeros(2), sigma=np.eye(2), stamp=np.array(stamp))
        self.load(tmp_path / "x.npz", "expected a stamp in JSON")

    def test_any_changed_byte_is_refused_or_changes_nothing(self, tmp_path):
        path, whole = tmp_path / "x.npz", make()
        whole.save(path)
        content, bits, refused = path.read_bytes(), np.random.RandomState(0), 0
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << bits.randint(8)
            path.write_bytes(changed)
            try:
                found = ReferenceStatistics.load(path)
            except StatisticsError:
                refused += 1
                continue
            assert found.stamp == whole.stamp
            for name in ("mean", "covariance", "spatial_mean", "spatial_covariance"):
                assert torch.equal(getattr(found, name), getattr(whole, name))
        assert refused > 0.8 * len(content)

    def test_arrays_that_were_exchanged_are_not_those_of_the_checksum(self, tmp_path):
        make().save(tmp_path / "x.npz")
        with np.load(tmp_path / "x.npz") as archive:
            arrays = dict(archive)
        for changes in ({"mu": arrays["mu"] + 1}, {"stamp": np.array('{"extractor": "tiny"}')}):
            np.savez(tmp_path / "y.npz", **(arrays | changes))
            self.load(tmp_path / "y.npz", "expected an intact .npz file .* does not match its own checksum")
        arrays.pop("mu_s")
        np.savez(tmp_path / "y.npz", **arrays)
        self.load(tmp_path / "y.npz", "expected an intact .npz file .* does not match its own checksum")

    def test_a_file_takes_no_more_memory_than_it_holds(self, tmp_path):
        def member(shape):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f8", "fortran_order": False, "shape": shape}
            )
            return header.getvalue()

        for shape in ((10**9,), (10**5, 10**5), (2**62, 8), (-1, 4)):
            with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
                archive.writestr("mu.npy", member(shape) + bytes(64))
            self.load(tmp_path / "x.npz", "expected an intact .npz file")
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("other.npy", bytes(10**6))
        self.load(
            tmp_path / "x.npz", "expected an intact .npz file .* unexpected or repeated members: other.npy"
        )

    def test_features_of_another_length(self, tmp_path):
        np.savez(tmp_path / "x.npz", mu=np.zeros(2), sigma=np.eye(2), stamp=np.array("{}"))
        with pytest.raises(StatisticsError, match="expected pool features of 6 numbers, as tiny makes them"):
            FIDMetric(network=TinyNetwork(), reference=str(tmp_path / "x.npz"))

    def test_a_stamp_is_shown_on_one_line(self):
        assert str(Stamp(dataset="a\nb\x1b[2J")) == r"dataset a\nb\x1b[2J"

    def test_another_extractor_with_both_stamps(self):
        message = (
            r"expected \(protocol test, extractor tiny, .*\) as the .* got \(protocol test, extractor big"
        )
        with pytest.raises(ValueError, match=message):
            make(Stamp(protocol="test", extractor="big")).check(TinyNetwork(), "x.npz")

    def test_other_weights_of_the_same_name(self):
        stamp = Stamp(protocol="test", extractor="tiny", extractor_sha256="1" * 64)
        with pytest.raises(ValueError, match="extractor_sha256 1111"):
            make(stamp).check(TinyNetwork(), "x.npz")

    def test_what_is_unknown_is_let_through(self):
        make(Stamp(protocol="test", extractor="tiny")).check(TinyNetwork(), "x.npz")


class TestFrechet:
    def test_of_a_set_to_itself_is_0(self):
        assert abs(frechet(make(), make())) < 1e-8
        assert abs(frechet(make(), make(), kind="spatial")) < 1e-8

    def test_moved_means(self):
        assert frechet(make(), make(shift=2.0)) == pytest.approx(24)

    def test_other_protocols(self):
        with pytest.raises(
            ValueError, match="frechet: expected statistics of one protocol and one extractor"
        ):
            frechet(make(), make(Stamp(protocol="other")))

    def test_few_images_warn(self):
        few = make(Stamp(protocol="test", num_images=6))
        with pytest.warns(UserWarning, match="frechet: 6 images span less than the 6 dimensions"):
            frechet(few, make())


class TestCollector:
    def test_equals_numpy(self):
        image = torch.randint(256, (9, 3, 8, 8), dtype=torch.uint8)
        collector = StatisticsCollector(network=TinyNetwork())
        for batch in image.split(4):
            collector.update(batch)
        found = collector.result(dataset="mine", preprocessing="none")
        pool = TinyNetwork()(image)["pool"].double().numpy()
        assert found.mean.numpy() == pytest.approx(pool.mean(axis=0), abs=1e-12)
        assert found.covariance.numpy() == pytest.approx(np.cov(pool, rowvar=False), abs=1e-12)
        assert found.stamp.num_images == 9
        assert found.stamp.protocol == "test"

    def test_one_image(self):
        collector = StatisticsCollector(network=TinyNetwork())
        collector.update(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
        with pytest.raises(ValueError, match=r"StatisticsCollector: expected at least two images.*, got 1"):
            collector.result()
