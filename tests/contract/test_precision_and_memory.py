"""Results do not depend on dtype or on how a module is constructed, and a state dict is complete."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_cases import GENERATORS, SIDE, TOKENIZERS, strided
from quantizer_cases import CASES, vectors
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vq import registry
from vq.generators import Generator
from vq.networks.frozen import FrozenWeights
from vq.quantizers import Quantizer
from vq.tokenizers import ImageTokenizer, Tokenizer

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
INTEGERS = [
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
]
NO_INTEGERS = [torch.bool, torch.float16, torch.float32, torch.float64, torch.complex64]
NOT_A_PART = {"DiffAugment", "TimmEncoder"}
"""What is not tested here: a layer of no tokenizer, and networks of timm, which resizes positions in float32."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype)


def classes_in(module: nn.Module) -> set[str]:
    return {type(part).__name__ for part in module.modules()}


def trained(case: str) -> Quantizer:
    torch.manual_seed(0)
    quantizer = CASES[case]()
    quantizer(vectors(quantizer, 64))
    return quantizer.eval()


def on_grid(case: str) -> Tokenizer:
    """Returns a tokenizer around the quantizer of a case, for images whose features have its grid."""
    return strided(trained(case))


def images_for(tokenizer: Tokenizer) -> Tensor:
    rows, columns = tokenizer.quantizer.grid or (SIDE // 4, SIDE // 4)
    factor = tokenizer.downsample_factor
    draws = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, rows * factor, columns * factor, generator=draws) * 2 - 1


class NothingIsNarrowed(TorchDispatchMode):
    """Raises if a float64 tensor is converted to a shorter floating-point type inside the block."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].dtype == torch.float64:
            assert result.dtype == torch.float64 or not result.is_floating_point(), "float64 was narrowed"
        return result


def test_every_registered_network_layer_tokenizer_and_generator_is_tested_here() -> None:
    found = set().union(*(classes_in(make()) for make in (TOKENIZERS | GENERATORS).values()))
    wanted = {
        name
        for kinds in (
            registry.ENCODERS,
            registry.DECODERS,
            registry.TOKENIZERS,
            registry.GENERATORS,
            registry.LAYERS,
        )
        for name, kind in kinds.module_dict.items()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    assert wanted - found - NOT_A_PART == set(), "add a case to network_cases.py"


class TestPrecision:
    """`decode(encode(z))` equals the codes of `forward` bit for bit, and all results have the dtype of the input."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("is_own", [False, True], ids=["float32 quantizer", "quantizer in dtype"])
    @pytest.mark.parametrize("case", sorted(CASES))
    def test_of_a_quantizer(self, case: str, is_own: bool, dtype: torch.dtype) -> None:
        quantizer = trained(case).to(dtype) if is_own else trained(case)
        z = vectors(quantizer, 7, 9, dtype=torch.float64).to(dtype)
        output, indices = quantizer(z), quantizer.encode(z)
        decoded = quantizer.decode(indices, dtype)
        assert output.quantized.dtype == decoded.dtype == dtype
        assert output.loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(indices, output.indices)
        assert torch.equal(decoded, output.quantized)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("case", sorted(CASES))
    def test_of_a_quantizer_in_a_tokenizer(self, case: str, dtype: torch.dtype) -> None:
        tokenizer = on_grid(case).to(dtype).eval()
        image = images_for(tokenizer).to(dtype)
        self.check(tokenizer, image)
        z = tokenizer.latent(image)
        decoded = tokenizer.quantizer.decode(tokenizer.encode(image), dtype)
        assert torch.equal(decoded, tokenizer.quantizer(z).quantized)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("kind", sorted(TOKENIZERS))
    def test_of_a_tokenizer(self, kind: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.check(TOKENIZERS[kind]().to(dtype).eval(), images(dtype))

    @staticmethod
    def check(tokenizer: Tokenizer, image: Tensor) -> None:
        codes: list[Tensor] = []
        # The input of the decoder is compared, because a convolution may round differently by its memory layout.
        tokenizer.get_submodule("post_quant").register_forward_hook(
            lambda _, given, __: codes.append(given[0])
        )
        output, indices = tokenizer(image), tokenizer.encode(image)
        decoded = tokenizer.decode(indices)
        assert torch.equal(indices, output.quantize.indices)
        assert decoded.dtype == output.reconstruction.dtype == output.quantize.quantized.dtype == image.dtype
        if isinstance(tokenizer, ImageTokenizer):
            assert torch.equal(*codes)
        eps = 64 * torch.finfo(image.dtype).eps
        torch.testing.assert_close(decoded, output.reconstruction.clamp(-1, 1), atol=eps, rtol=eps)
        (output.reconstruction.square().mean() + output.quantize.loss).backward()
        for name, parameter in tokenizer.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name

    @pytest.mark.parametrize("kind", sorted(TOKENIZERS))
    def test_float64_is_computed_in_float64(self, kind: str) -> None:
        """No intermediate result is converted to float32."""
        torch.manual_seed(0)
        tokenizer = TOKENIZERS[kind]().double().eval()
        with NothingIsNarrowed():
            indices = tokenizer(images(torch.float64)).quantize.indices
            tokenizer.decode(indices)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("kind", sorted(GENERATORS))
    def test_of_a_generator(self, kind: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        generator = GENERATORS[kind]().to(dtype).eval()
        indices = drawn(generator)
        output = generator(indices, torch.tensor([0, 2]))
        assert output.loss.isfinite()
        output.loss.backward()


def drawn(generator: Generator) -> Tensor:
    return generator.generate(torch.tensor([0, 2]), seeds=torch.tensor([5, 6]))


def loaded_copies(make: Callable[[], nn.Module], original: nn.Module) -> dict[str, nn.Module]:
    """Returns copies of the module, one for each way to restore it."""
    with torch.device("meta"):
        empty, assigned = make(), make()
    empty.to_empty(device="cpu")
    for value in empty.state_dict().values():
        value.fill_(1)  # uninitialised memory may hold anything
    empty.load_state_dict(original.state_dict())
    assigned.load_state_dict(original.state_dict(), assign=True)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    read = make()
    read.load_state_dict(torch.load(file, weights_only=True))
    return {
        "to_empty": empty,
        "assigned": assigned,
        "read": read,
        "deepcopy": copy.deepcopy(original),
        "pickle": pickle.loads(pickle.dumps(original)),
        "there and back": copy.deepcopy(original).double().float(),
    }


def assert_no_hidden_state(module: nn.Module) -> None:
    """Every tensor in a buffer or in an attribute is part of the state dict, or a weight of a frozen network."""
    kept = set(module.state_dict(keep_vars=True)) | {name for name, _ in module.named_parameters()}
    for place, part in module.named_modules():
        if isinstance(part, FrozenWeights):
            kept |= {f"{place}.{name}" for name, _ in part.named_buffers()}
    hidden = {name for name, _ in module.named_buffers(remove_duplicate=False)} - kept
    hidden |= {
        f"{place}.{name}"
        for place, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor)
    }
    assert not hidden


class TestAStateDictIsEnough:
    @pytest.mark.parametrize("case", sorted(CASES))
    def test_for_a_quantizer(self, case: str) -> None:
        original = trained(case)
        z = vectors(original, 40)
        wanted, indices = original(z).quantized, original.encode(z)
        for way, one in loaded_copies(CASES[case], original).items():
            one.eval()
            assert_no_hidden_state(one)
            assert torch.equal(one(z).quantized, wanted), way
            assert torch.equal(one.encode(z), indices), way  # type: ignore[operator]
            assert torch.equal(one.decode(indices), wanted), way  # type: ignore[operator]

    @pytest.mark.parametrize("kind", sorted(TOKENIZERS))
    def test_for_a_tokenizer(self, kind: str) -> None:
        torch.manual_seed(0)
        original = TOKENIZERS[kind]().eval()
        wanted, indices = original(images()).reconstruction, original.encode(images())
        for way, one in loaded_copies(TOKENIZERS[kind], original).items():
            one.eval()
            assert_no_hidden_state(one)
            assert torch.equal(one(images()).reconstruction, wanted), way
            assert torch.equal(one.encode(images()), indices), way  # type: ignore[operator]

    @pytest.mark.parametrize("kind", sorted(GENERATORS))
    def test_for_a_generator(self, kind: str) -> None:
        torch.manual_seed(0)
        original = GENERATORS[kind]().eval()
        wanted = drawn(original)
        loss = original(wanted, torch.tensor([0, 2])).loss
        for way, one in loaded_copies(GENERATORS[kind], original).items():
            assert isinstance(one, Generator)
            one.eval()
            assert_no_hidden_state(one)
            assert torch.equal(drawn(one), wanted), way
            assert torch.equal(one(wanted, torch.tensor([0, 2])).loss, loss), way


class TestDtypesAtTheDoor:
    @pytest.mark.parametrize("case", sorted(CASES))
    def test_indices_of_any_integer_type_are_widened(self, case: str) -> None:
        quantizer = trained(case)
        # Indices that fit into every integer type and every codebook here.
        indices = (
            torch.arange(4)
            .repeat(2)[:, *[None] * len(quantizer.index_shape)]
            .expand(-1, *quantizer.index_shape)
        )
        wanted = quantizer.decode(indices)
        for dtype in INTEGERS:
            assert torch.equal(quantizer.decode(indices.to(dtype)), wanted), dtype

    @pytest.mark.parametrize("case", sorted(CASES))
    def test_other_indices_raise_and_are_named(self, case: str) -> None:
        quantizer = trained(case)
        for dtype in NO_INTEGERS:
            with pytest.raises(
                ValueError, match=rf"decode: indices: expected integers, got a tensor of {dtype}"
            ):
                quantizer.decode(torch.zeros(2, *quantizer.index_shape, dtype=dtype))
        with pytest.raises(ValueError, match=r"decode: indices: expected numbers below 2\^63"):
            quantizer.decode(torch.full((2, *quantizer.index_shape), -1).view(torch.uint64))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
    def test_other_vectors_raise_and_are_named(self, dtype: torch.dtype) -> None:
        for case in CASES:
            quantizer = trained(case)
            z = torch.zeros(2, *quantizer.grid, quantizer.codebook_dim, dtype=dtype)
            for door in (quantizer, quantizer.encode):
                with pytest.raises(ValueError, match=rf"expected z of a floating-point dtype, got {dtype}"):
                    door(z)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
    def test_a_mask_is_boolean(self, dtype: torch.dtype) -> None:
        for case in CASES:
            quantizer = trained(case)
            with pytest.raises(ValueError, match=rf"expected a mask of the dtype torch.bool, got {dtype}"):
                quantizer(vectors(quantizer, 2), torch.ones(2, dtype=dtype))

    @pytest.mark.parametrize("kind", sorted(TOKENIZERS))
    def test_a_tokenizer_is_as_strict(self, kind: str) -> None:
        torch.manual_seed(0)
        tokenizer = TOKENIZERS[kind]().eval()
        indices = tokenizer.encode(images())
        wanted = tokenizer.decode(indices)
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64):
            if int(indices.max()) <= torch.iinfo(dtype).max:
                assert torch.equal(tokenizer.decode(indices.to(dtype)), wanted), dtype
        for no_integer in NO_INTEGERS:
            with pytest.raises(ValueError, match=rf"expected integers, got a tensor of {no_integer}"):
                tokenizer.decode(indices.to(no_integer))
        for wrong in (torch.full_like(indices, -1), torch.full_like(indices, tokenizer.codebook_size)):
            with pytest.raises(ValueError, match=r"expected indices in \[0, \d+\), got"):
                tokenizer.decode(wrong)

    @pytest.mark.parametrize("kind", sorted(GENERATORS))
    def test_a_generator_is_as_strict(self, kind: str) -> None:
        torch.manual_seed(0)
        generator = GENERATORS[kind]().eval()
        label, seeds = torch.tensor([0, 2]), torch.tensor([5, 6])
        wanted = drawn(generator)
        for dtype in INTEGERS:
            assert torch.equal(generator.generate(label.to(dtype), seeds=seeds.to(dtype)), wanted), dtype
        for no_integer in NO_INTEGERS:
            with pytest.raises(ValueError, match=r"label: expected integers, got a tensor of"):
                generator.generate(label.to(no_integer), seeds=seeds)
            with pytest.raises(ValueError, match=r"seeds: expected integers, got a tensor of"):
                generator.generate(label, seeds=seeds.to(no_integer))
