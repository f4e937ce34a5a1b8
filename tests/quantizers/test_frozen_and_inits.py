"""Codebooks initialised from a file or from the moments of the data, and codes that never learn."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vq.quantizers import (
    ClusteredCodebook,
    DataMomentsInit,
    EMACodebook,
    FileInit,
    FrozenCodebook,
    LearnedCodebook,
    ProjectedCodebook,
    VectorQuantizer,
)

BOOKS = [ClusteredCodebook, EMACodebook, FrozenCodebook, LearnedCodebook, ProjectedCodebook]


def test_a_frozen_codebook_never_moves():
    book = FrozenCodebook.example()
    quantizer, before = VectorQuantizer(codebook=book), book.weight.clone()
    z = torch.randn(20, 4, requires_grad=True)
    out = quantizer(z)
    out.loss.backward()
    assert torch.equal(book.weight, before)
    assert not list(quantizer.parameters())
    assert out.metrics["codebook_loss"] == 0
    expected = 0.25 * 2 * (z - before[out.indices]).detach() / z.numel()
    torch.testing.assert_close(z.grad, expected)


class TestDataMoments:
    @pytest.mark.parametrize("kind", BOOKS)
    def test_codes_have_the_mean_and_deviation_of_the_first_batch(self, kind):
        torch.manual_seed(0)
        book = kind(size=4000, dim=3, init=DataMomentsInit())
        mean, deviation = torch.tensor([10.0, -5.0, 0.0]), torch.tensor([0.1, 1.0, 3.0])
        z = torch.randn(500, 3) * deviation + mean
        book.prepare(z, torch.ones(500, dtype=torch.bool))
        codes = book.vectors.detach()
        torch.testing.assert_close(codes.mean(0), z.mean(0), atol=0.2, rtol=0)
        torch.testing.assert_close(codes.std(0), z.std(0), atol=0, rtol=0.05)
        assert book.initialised == 1
        book.prepare(z + 50, torch.ones(500, dtype=torch.bool))
        assert torch.equal(book.vectors, codes)

    def test_the_moments_are_those_of_numpy(self):
        torch.manual_seed(0)
        z = (torch.randn(50, 3) + 100).double()
        mask = torch.rand(50) < 0.5
        z[~mask] = torch.nan
        torch.manual_seed(1)
        codes, usage = DataMomentsInit().fit(z, mask, 8)
        torch.manual_seed(1)
        normal = torch.randn(8, 3).double().numpy()
        x = z[mask].numpy()
        np.testing.assert_allclose(codes, x.mean(0) + x.std(0) * normal, atol=1e-9)
        np.testing.assert_allclose(usage, len(x) / 8)

    def test_one_vector_is_enough_and_none_is_refused(self):
        quantizer = VectorQuantizer(codebook=FrozenCodebook(size=4, dim=2, init=DataMomentsInit()))
        with pytest.raises(
            ValueError, match="DataMomentsInit: expected at least one finite, unmasked vector"
        ):
            quantizer(torch.full((3, 2), torch.nan))
        assert torch.equal(quantizer(torch.ones(1, 2)).quantized, torch.ones(1, 2))


class TestFile:
    @pytest.mark.parametrize("kind", BOOKS)
    def test_every_codebook_begins_with_the_vectors_of_the_file(self, kind, tmp_path):
        vectors = torch.randn(6, 3)
        path = str(tmp_path / "codes.safetensors")
        save_file({"codes": vectors, "other": torch.zeros(2)}, path)
        book = kind(size=6, dim=3, init=FileInit(path=path, key="codes"))
        assert torch.equal(book.vectors, vectors)
        assert book.initialised == 1
        assert not book.eval().init.needs_data

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_npy_files_are_read_as_float32(self, dtype, tmp_path):
        vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(dtype)
        np.save(tmp_path / "codes.npy", vectors)
        book = EMACodebook(size=6, dim=3, init=FileInit(path=str(tmp_path / "codes.npy")))
        assert book.weight.dtype == torch.float32
        assert torch.equal(book.sums, torch.from_numpy(vectors.astype(np.float32)))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (
                np.zeros((5, 3)),
                r"shape \(6, 3\), size and dim of the codebook, in .*codes.npy, got .*\(5, 3\)",
            ),
            (np.zeros((3, 6)), r"expected floating-point numbers of the shape \(6, 3\).*got .*\(3, 6\)"),
            (np.zeros((6, 3), dtype=int), r"expected floating-point numbers .*codes.npy, got torch.int64"),
            (np.full((6, 3), np.nan), r"expected finite numbers in .*codes.npy, got 18 that are NaN or inf"),
            (np.array([None]), r"expected a readable array in .*codes.npy, got: .*[Oo]bject"),
        ],
    )
    def test_what_is_not_a_codebook_is_refused(self, array, message, tmp_path):
        np.save(tmp_path / "codes.npy", array)
        with pytest.raises(ValueError, match=f"FileInit: .*{message}"):
            FrozenCodebook(size=6, dim=3, init=FileInit(path=str(tmp_path / "codes.npy")))

    @pytest.mark.parametrize(
        ("name", "key", "message"),
        [
            ("two.safetensors", None, r"expected a key out of a, b in .*two.safetensors, got None"),
            ("two.safetensors", "c", r"expected a key out of a, b in .*two.safetensors, got 'c'"),
            ("none.npy", None, r"expected a readable array in .*none.npy, got: .*No such file"),
            (
                "none.safetensors",
                None,
                r"expected a readable array in .*none.safetensors, got: .*No such file",
            ),
            ("broken.safetensors", None, r"expected a readable array in .*broken.safetensors, got: "),
            ("codes.pt", None, r"expected a .safetensors file, or a .npy file without a key, got .*codes.pt"),
            ("codes.npy", "a", r"expected a .safetensors file, or a .npy file without a key, got .*key='a'"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_refused(self, name, key, message, tmp_path):
        save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "two.safetensors")
        (tmp_path / "broken.safetensors").write_bytes(b"no")
        with pytest.raises(ValueError, match=f"FileInit: {message}"):
            FileInit(path=str(tmp_path / name), key=key).draw(6, 3)
