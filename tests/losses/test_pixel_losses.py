"""L1 and MSE against NumPy, and the interface of losses."""

import numpy as np
import pytest
import torch

from vq.losses import L1Loss, Loss, MSELoss
from vq.registry import LOSSES


def pair(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple((torch.rand(3, 3, 5, 4, generator=generator) * 2 - 1).to(dtype) for _ in range(2))


@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(L1Loss(), lambda a, b: np.abs(a - b).mean()), (MSELoss(), lambda a, b: ((a - b) ** 2).mean())],
    ids=["l1", "mse"],
)
class TestPixelLosses:
    def test_equals_numpy(self, loss, oracle):
        reconstruction, image = pair()
        found = loss(reconstruction, image)
        assert found.shape == ()
        assert found.item() == pytest.approx(
            oracle(reconstruction.double().numpy(), image.double().numpy()), rel=1e-6
        )

    def test_mean_over_images_is_the_sum_over_an_image(self, loss, oracle):
        reconstruction, image = pair(torch.float64)
        summed = type(loss)(mean_over="images")
        a, b = reconstruction.numpy(), image.numpy()
        wanted = np.mean([a[0].size * oracle(x, y) for x, y in zip(a, b, strict=True)])
        assert summed(reconstruction, image).item() == pytest.approx(wanted, rel=1e-12)
        with pytest.raises(
            ValueError, match=r"expected mean_over to be one of \['values', 'images'\], got 'batch'"
        ):
            type(loss)(mean_over="batch")

    def test_float32_from_bfloat16(self, loss, oracle):
        reconstruction, image = pair(torch.bfloat16)
        found = loss(reconstruction, image)
        assert found.dtype == torch.float32
        wanted = oracle(reconstruction.double().numpy(), image.double().numpy())
        assert found.item() == pytest.approx(wanted, rel=1e-6)

    def test_gradient_reaches_the_reconstruction(self, loss, oracle):
        reconstruction, image = pair()
        reconstruction.requires_grad_()
        loss(reconstruction, image).backward()
        assert (reconstruction.grad != 0).all()

    def test_has_no_state(self, loss, oracle):
        assert len(loss.state_dict()) == 0
        assert LOSSES.get(type(loss).__name__) is type(loss)


def test_loss_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Loss()
