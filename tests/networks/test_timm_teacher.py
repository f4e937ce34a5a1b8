"""TimmTeacher equals the publisher's network in every family: same weights, same positions, no token cut off."""

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")

import tiny_timm as tiny  # noqa: E402
import torchvision  # noqa: E402
from torchvision.models.convnext import CNBlockConfig  # noqa: E402

from vq import known_weights  # noqa: E402
from vq.errors import ConfigError  # noqa: E402
from vq.files import sha256_of  # noqa: E402
from vq.networks import TimmEncoder, TimmTeacher  # noqa: E402
from vq.networks.frozen.timm_trunk import create  # noqa: E402
from vq.packages import MissingPackageError  # noqa: E402
from vq.pretrained import MissingWeightsError  # noqa: E402
from vq.registry import build  # noqa: E402
from vq.tokenizers.checkpoint import load_tokenizer, save_weights  # noqa: E402
from vq.tokenizers.pretrained import pretrained_tokenizer, record_weights  # noqa: E402

LAYOUTS: dict[str, tuple[str, Callable[[tiny.State], Mapping[str, Any]]]] = {
    "clip": ("tiny_clip_32", tiny.as_openai),
    "dino": ("tiny_vit", tiny.as_dino),
    "dinov2": ("tiny_scaled_vit", tiny.as_dinov2),
    "dinov2 with registers": ("tiny_register_vit", tiny.as_dinov2),
    "mae": ("tiny_vit", tiny.as_mae),
    "siglip": ("tiny_siglip", tiny.as_dino),
    "eva02": ("tiny_eva02", tiny.as_dino),
    "eva giant in openclip": ("tiny_eva_giant", tiny.as_openclip_of_timm),
    "convnext": ("tiny_convnext", tiny.as_dino),
}
families = pytest.mark.parametrize("family", LAYOUTS)


def network_of(family: str) -> Any:
    """The family's network of timm, made without any code of this project."""
    name, _ = LAYOUTS[family]
    sizes = {} if name == "tiny_convnext" else {"dynamic_img_size": True}
    return tiny.seeded(timm.create_model(f"{name}.seeded", num_classes=0, **sizes))


def teacher_of(family: str, state: tiny.State, folder: Path, **arguments: Any) -> TimmTeacher:
    """A teacher that reads these weights from a file in the layout of the publisher."""
    name, layout = LAYOUTS[family]
    torch.save(layout(state), folder / "weights.pth")
    return TimmTeacher(name=f"{name}.seeded", weights=str(folder / "weights.pth"), **arguments)


def normalized(image: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    pixels = (image + 1) / 2
    return torch.stack([(pixels[:, i] - mean[i]) / deviation[i] for i in range(3)], dim=1)


@pytest.fixture
def image() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 96) * 2 - 1


@families
def test_equals_the_network_with_the_publishers_weights(family: str, image: Tensor, tmp_path: Path) -> None:
    network = network_of(family)
    teacher = teacher_of(family, network.state_dict(), tmp_path)
    with torch.no_grad():
        wanted = network.forward_features(normalized(image, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
        if wanted.ndim == 4:
            wanted = wanted.movedim(1, -1)
        else:
            wanted = network.fc_norm(wanted) if family == "eva02" else wanted
            patches = wanted[:, tiny.PREFIX_TOKENS.get(LAYOUTS[family][0], 1) :]
            assert patches.shape[1] == 8 * 12
            wanted = patches.unflatten(1, (8, 12))
    found = teacher(image)
    assert found.shape == (
        2,
        64 // teacher.downsample_factor,
        96 // teacher.downsample_factor,
        teacher.channels,
    )
    assert torch.allclose(found, wanted, atol=1e-5)


@families
def test_a_change_of_one_patch_changes_the_feature_at_its_position_only(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tiny.with_identity_blocks(network_of(family).state_dict()), tmp_path)
    side = teacher.downsample_factor
    image = torch.rand(1, 3, 3 * side, 4 * side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = teacher(image)
    for row, column in ((0, 0), (0, 3), (1, 2), (2, 3)):
        changed = image.clone()
        changed[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] *= -1
        differing = (teacher(changed) != before).any(dim=-1)[0].nonzero().tolist()
        assert differing == [[row, column]]


def test_the_vision_transformer_of_torchvision(image: Tensor, tmp_path: Path) -> None:
    theirs: Any = tiny.seeded(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=128
        )
    )
    square = image[:, :, :32, :32]
    pixels = normalized(square, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        tokens = torch.cat([theirs.class_token.expand(2, -1, -1), theirs._process_input(pixels)], dim=1)
        wanted = theirs.encoder(tokens)[:, 1:].unflatten(1, (4, 4))
    now = theirs.state_dict()
    before = {
        k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): v for k, v in now.items()
    }
    for state in (now, before):  # the published file has the older names
        torch.save(state, tmp_path / "vit.pth")
        teacher = TimmTeacher(name="tiny_vit", weights=str(tmp_path / "vit.pth"))
        assert torch.allclose(teacher(square), wanted, atol=1e-5)
    assert teacher.interpolation == "bilinear"
    with pytest.raises(ValueError, match=r"the weights are of torchvision, but .* take name='tiny_vit'"):
        TimmTeacher(name="tiny_vit.seeded", weights=str(tmp_path / "vit.pth"))


def test_the_convnext_of_torchvision(image: Tensor, tmp_path: Path) -> None:
    stages = [
        CNBlockConfig(8, 12, 1),
        CNBlockConfig(12, 16, 1),
        CNBlockConfig(16, 24, 2),
        CNBlockConfig(24, None, 1),
    ]
    theirs: Any = tiny.seeded(torchvision.models.ConvNeXt(stages, num_classes=5))
    torch.save(theirs.state_dict(), tmp_path / "convnext.pth")
    teacher = TimmTeacher(name="tiny_convnext", weights=str(tmp_path / "convnext.pth"))
    with torch.no_grad():
        wanted = theirs.features(normalized(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(teacher(image), wanted.movedim(1, -1), atol=1e-5)


def test_the_archive_of_openai(image: Tensor, tmp_path: Path) -> None:
    state = network_of("clip").state_dict()
    holder = nn.Identity()
    for name, tensor in tiny.as_openai(state).items():
        *path, last = name.split(".")
        module: nn.Module = holder
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Identity())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(tensor.half()))
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # TorchScript is no longer developed
        torch.jit.trace(holder, image).save(str(tmp_path / "ViT-B-16.pt"))
    teacher = TimmTeacher(name="tiny_clip_32.seeded", weights=str(tmp_path / "ViT-B-16.pt"))
    assert {buffer.dtype for buffer in teacher.buffers()} == {torch.float32}
    rounded = {name: tensor.half().float() for name, tensor in state.items()}
    assert torch.equal(teacher(image), teacher_of("clip", rounded, tmp_path)(image))


def test_the_projection_of_clip(image: Tensor, tmp_path: Path) -> None:
    network: Any = tiny.seeded(timm.create_model("tiny_clip_32.seeded", dynamic_img_size=True))
    nn.init.zeros_(network.head.bias)  # CLIP has none
    teacher = teacher_of("clip", network.state_dict(), tmp_path, with_projection=True)
    plain = teacher_of("clip", network.state_dict(), tmp_path)
    assert (plain.channels, teacher.channels) == (32, 16)
    assert torch.allclose(teacher(image), plain(image) @ network.head.weight.T, atol=1e-5)
    with pytest.raises(ValueError, match=r"with_projection expects a CLIP model, got 'tiny_vit.seeded'"):
        TimmTeacher(name="tiny_vit.seeded", with_projection=True)


def test_is_frozen_and_in_no_state_dict(image: Tensor, tmp_path: Path) -> None:
    teacher = teacher_of("eva02", network_of("eva02").state_dict(), tmp_path)
    before = [buffer.clone() for buffer in teacher.buffers()]
    step = nn.ModuleDict({"teacher": teacher, "student": nn.Conv2d(3, 32, 8, stride=8)}).train()
    assert set(step.state_dict()) == {"student.weight", "student.bias"}
    assert not any(module.training for module in teacher.modules())
    image.requires_grad_()
    target = teacher(image)
    assert not target.requires_grad
    (step["student"](image).movedim(1, -1) - target).square().mean().backward()
    torch.optim.SGD(step.parameters(), lr=1.0).step()
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.buffers(), strict=True))


def test_computes_in_bfloat16_inside_autocast(image: Tensor, tmp_path: Path) -> None:
    teacher = teacher_of("dinov2", network_of("dinov2").state_dict(), tmp_path)
    exact = teacher(image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = teacher(image)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.98


def test_resizes_to_image_size(image: Tensor, tmp_path: Path) -> None:
    state = network_of("dino").state_dict()
    resized = nn.functional.interpolate(image, size=(32, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    small = teacher_of("dino", state, tmp_path, image_size=32)(image)
    assert torch.equal(small, teacher_of("dino", state, tmp_path)(resized))
    with pytest.raises(
        ValueError, match="TimmTeacher: expected image_size to be a multiple of the patch size 8, got 36"
    ):
        teacher_of("dino", state, tmp_path, image_size=36)
    with pytest.raises(ValueError, match=r"TimmTeacher: expected .* multiples of 8, got 60x96; .* to 56x96"):
        teacher_of("dino", state, tmp_path)(image[:, :, :60])


class TestFiles:
    def test_a_file_of_another_network_is_refused(self, tmp_path: Path) -> None:
        states = {family: network_of(family).state_dict() for family in ("dino", "dinov2", "convnext")}
        with pytest.raises(
            ValueError, match=r"4 tensors that differ, first 'blocks.0.ls1.gamma' \(the file has \(32,\)"
        ):
            teacher_of("dino", states["dinov2"], tmp_path)
        wide = {name: torch.cat([tensor, tensor]) for name, tensor in states["dino"].items()}
        with pytest.raises(
            ValueError,
            match=r"TimmTeacher: expected the weights of tiny_vit.seeded in .* tensors that differ, .*set weights to",
        ):
            teacher_of("dino", wide, tmp_path)
        with pytest.raises(ValueError, match=r"expected the weights of tiny_vit.seeded in"):
            teacher_of("dino", states["convnext"], tmp_path)
        with pytest.raises(ValueError, match=r"expected the weights of tiny_convnext.seeded in"):
            teacher_of("convnext", states["dino"], tmp_path)

    def test_nothing_is_resized_to_fit(self, tmp_path: Path) -> None:
        state = network_of("dino").state_dict()
        larger = {**state, "pos_embed": torch.zeros(1, 65, 32)}
        with pytest.raises(
            ValueError, match="its 'pos_embed' is for another size of patches or images; set weights"
        ):
            teacher_of("dino", larger, tmp_path)
        finer = {**state, "patch_embed.proj.weight": torch.zeros(32, 3, 4, 4)}
        with pytest.raises(ValueError, match=r"its 'patch_embed.proj.weight' is for another size of patches"):
            teacher_of("dino", finer, tmp_path)

    def test_missing_weights_name_the_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        with pytest.raises(
            MissingWeightsError, match=r"'dino/dino_vitbase16_pretrain.pth' .* run `vq weights dino`"
        ):
            TimmTeacher(name="vit_base_patch16_224.dino")
        with pytest.raises(
            ValueError, match=r"no command fetches the weights of 'tiny_vit.seeded'; vq weights has"
        ):
            TimmTeacher(name="tiny_vit.seeded")
        with pytest.raises(MissingWeightsError, match=r"put it at .*mine.pth"):
            TimmTeacher(name="tiny_vit.seeded", weights="mine.pth")
        torch.save(network_of("dino").state_dict(), tmp_path / "mine.pth")
        assert TimmTeacher(name="tiny_vit.seeded", weights="mine.pth").channels == 32
        with pytest.raises(ValueError, match="expected the SHA-256 0000"):
            TimmTeacher(name="tiny_vit.seeded", weights="mine.pth", sha256="0" * 64)

    def test_every_published_file_is_for_a_network_that_timm_knows(self) -> None:
        known = {*timm.list_pretrained(), *timm.list_models()}
        assert set(known_weights.of_networks()) <= known


class TestNames:
    def test_a_name_says_which_weights(self, tmp_path: Path) -> None:
        torch.save(network_of("dino").state_dict(), tmp_path / "weights.pth")
        with pytest.raises(
            ValueError, match=r"got 'tiny_vit', which stands for the weights of torchvision; take one of"
        ):
            TimmTeacher(name="tiny_vit", weights=str(tmp_path / "weights.pth"))

    def test_another_activation_function_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"take 'vit_base_patch16_clip_quickgelu_224.openai'"):
            TimmTeacher(name="vit_base_patch16_clip_224.openai")

    def test_other_kinds_of_networks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(
            ValueError, match="TimmTeacher: expected a network that timm knows, got 'vit_nano'"
        ):
            TimmTeacher(name="vit_nano")
        with pytest.raises(ValueError, match="expected a vision transformer of timm, got 'resnet18'"):
            TimmEncoder(name="resnet18", weights=None)
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(MissingPackageError, match=r"TimmTeacher needs the package timm.*\[teachers\]"):
            TimmTeacher(name="tiny_vit.seeded")


def test_bigg_has_the_published_size() -> None:
    try:
        with torch.device("meta"):
            network = create("test", "vit_gigantic_patch14_clip_224.laion2b")
    except ValueError as error:
        if "meta tensors" not in str(error):
            raise
        pytest.skip("old versions of timm compute numbers with tensors when they make a network")
    assert (network.num_features, network.head.out_features, len(network.blocks)) == (1664, 1280, 48)
    # 1,844.91 M, as OpenCLIP lists it: embeddings, norms, blocks, projection. timm's projection has a bias of zeros.
    width, inside = 1664, 8192
    block = 4 * width**2 + 2 * width * inside + 9 * width + inside
    expected = 3 * 14**2 * width + (1 + 257) * width + 4 * width + 48 * block + width * 1280
    assert sum(parameter.numel() for parameter in network.parameters()) == expected + 1280


class TestEncoder:
    def test_starts_from_the_teacher_and_is_trained(self, image: Tensor, tmp_path: Path) -> None:
        teacher = teacher_of(
            "dinov2 with registers", network_of("dinov2 with registers").state_dict(), tmp_path
        )
        encoder = TimmEncoder(name="tiny_register_vit.seeded", weights=str(tmp_path / "weights.pth"))
        assert (encoder.out_channels, encoder.downsample_factor) == (32, 8)
        features = encoder(image)
        assert torch.equal(features.movedim(1, -1), teacher(image))
        features.square().mean().backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())
        rebuilt = TimmEncoder(name="tiny_register_vit.seeded", weights=None)
        rebuilt.load_state_dict(encoder.state_dict())
        assert torch.equal(rebuilt(image), features)

    @pytest.mark.parametrize(("channels", "rgb"), [(1, (0, 0, 0)), (6, (4, 0, 2))])
    def test_sees_the_declared_channels(
        self, image: Tensor, channels: int, rgb: tuple[int, int, int]
    ) -> None:
        settings = {"name": "tiny_register_vit.seeded", "weights": None}
        encoder = TimmEncoder(**settings, image_channels=channels, rgb=rgb)
        usual = TimmEncoder(**settings)
        usual.load_state_dict(encoder.state_dict())
        wide = torch.cat([image, image.flip(1) / 2], dim=1)[:, :channels]
        assert torch.equal(encoder(wide), usual(wide[:, list(rgb)]))
        with pytest.raises(
            ValueError, match=f"TimmEncoder: expected images of 3 channels, .* got images of {channels}"
        ):
            TimmEncoder(**settings, image_channels=channels)

    @families
    def test_has_no_parameter_without_effect(self, family: str, image: Tensor) -> None:
        encoder = TimmEncoder(name=f"{LAYOUTS[family][0]}.seeded", weights=None)
        encoder(image).square().mean().backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())


class TestConfigs:
    """A config holds the SHA-256 of a teacher's weights, and a checkpoint the weights that training changed."""

    @pytest.fixture
    def page(self, tmp_path: Path) -> dict[str, Any]:
        torch.save(network_of("dino").state_dict(), tmp_path / "weights.pth")
        node = {"name": "tiny_vit.seeded", "weights": str(tmp_path / "weights.pth")}
        return {
            "tokenizer": {
                "type": "vq.tokenizers.ImageTokenizer",
                "encoder": {"type": "vq.networks.TimmEncoder", **node},
                "quantizer": {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 5]},
                "decoder": {"type": "vq.networks.StridedCNNDecoder", "widths": [8, 8, 8]},
            },
            "train_step": {"losses": {"features": {"teacher": {"type": "vq.networks.TimmTeacher", **node}}}},
        }

    def test_the_hash_is_recorded_and_checked(self, page: dict[str, Any], tmp_path: Path) -> None:
        recorded = record_weights(page)
        teacher = recorded["train_step"]["losses"]["features"]["teacher"]
        assert (
            teacher["sha256"]
            == recorded["tokenizer"]["encoder"]["sha256"]
            == sha256_of(tmp_path / "weights.pth")
        )
        assert isinstance(build(teacher, path="train_step.losses.features.teacher"), TimmTeacher)
        torch.save(network_of("dino").double().state_dict(), tmp_path / "weights.pth")
        with pytest.raises(ConfigError, match=r"teacher: .*not the file of the config: expected the SHA-256"):
            build(teacher, path="train_step.losses.features.teacher")

    def test_the_word_published_stands_for_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        (tmp_path / "mae").mkdir()
        file = tmp_path / "mae" / "mae_pretrain_vit_base.pth"
        file.write_bytes(b"weights")
        node = {"type": "vq.networks.TimmTeacher", "name": "vit_base_patch16_224.mae"}
        assert record_weights(node) == {**node, "sha256": sha256_of(file)}

    def test_a_checkpoint_is_enough_for_an_encoder_that_was_trained(
        self, page: dict[str, Any], image: Tensor, tmp_path: Path
    ) -> None:
        page = record_weights(page)
        tokenizer = build(page["tokenizer"], path="tokenizer").eval()
        nn.init.ones_(tokenizer.encoder.trunk.network.norm.bias)  # training
        save_weights(tokenizer.state_dict(), tmp_path / "model.safetensors", page)
        (tmp_path / "weights.pth").unlink()
        loaded = load_tokenizer(tmp_path / "model.safetensors")
        assert torch.equal(loaded.encoder(image), tokenizer.encoder(image))
        frozen = pretrained_tokenizer(weights=[str(tmp_path / "model.safetensors")])
        assert torch.equal(frozen.encoder(image), tokenizer.encoder(image))
