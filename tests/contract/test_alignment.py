"""The loss that compares features of a tokenizer with a teacher's, in the steps that use it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from network_cases import SIDE, TOKENIZERS, features
from torch import Tensor

from vq.engine import AdversarialStep, Adversary, ReconstructionStep
from vq.engine.steps.base import TokenizerStep
from vq.losses import FeatureAlignment, HingeObjective, L1Loss
from vq.networks import PatchDiscriminator
from vq.networks.teachers import EfficientNetTeacher, Teacher
from vq.tokenizers import Tokenizer


class PatchMeans(Teacher):
    """A teacher whose features are known: the mean and the extremes of each patch of 4 px."""

    channels, downsample_factor = 5, 4

    def features(self, image: Tensor) -> Tensor:
        patches = rearrange(image, "b c (h p) (w q) -> b h w c (p q)", p=4, q=4)
        means = patches.mean(-1)
        return torch.cat(
            [means, patches.amax((-1, -2))[..., None], patches.amin((-1, -2))[..., None]], dim=-1
        )


def image(count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return (torch.rand(count, 3, SIDE, SIDE, generator=draws) * 2 - 1).to(dtype)


def batch(count: int = 4) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=draws)}


class TestFormula:
    @pytest.mark.parametrize("comparison", ["cosine", "mse"])
    def test_against_numpy_in_float64(self, comparison: Any) -> None:
        found = torch.randn(3, 5, 4, 4, dtype=torch.float64)
        loss = FeatureAlignment(teacher=PatchMeans(), source="reconstruction", comparison=comparison)
        a = found.numpy().transpose(0, 2, 3, 1)
        b = PatchMeans()(image()).double().numpy()
        if comparison == "mse":
            wanted = ((a - b) ** 2).mean()
        else:
            cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            wanted = (1 - cosine).mean()
        assert loss(found, image()).item() == pytest.approx(wanted, rel=1e-12)

    def test_the_projection_is_a_linear_map_of_each_vector(self) -> None:
        torch.manual_seed(0)
        loss = FeatureAlignment(teacher=PatchMeans(), channels=7, comparison="mse").double()
        found = torch.randn(3, 7, 4, 4, dtype=torch.float64)
        weight, bias = (p.detach().numpy() for p in loss.projection.parameters())
        a = found.numpy().transpose(0, 2, 3, 1) @ weight[:, :, 0, 0].T + bias
        wanted = ((a - PatchMeans()(image()).double().numpy()) ** 2).mean()
        assert loss(found, image()).item() == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize("grid", [(2, 2), (8, 8), (3, 5)])
    def test_a_constant_image_is_the_same_on_every_grid(self, grid: tuple[int, int]) -> None:
        """The teacher's features are resized to the grid of the tokenizer, larger or smaller."""
        still = torch.full((2, 3, SIDE, SIDE), 0.5)
        found = torch.full((2, 5, *grid), 0.5)
        loss = FeatureAlignment(teacher=PatchMeans(), source="reconstruction", comparison="mse")
        assert float(loss(found, still)) == pytest.approx(0, abs=1e-12)

    def test_a_finer_teacher_is_averaged_over_the_area_of_a_place(self) -> None:
        """Each patch of a coarse grid sees the patches of the teacher that it covers, not one of them."""
        checks = torch.ones(1, 3, SIDE, SIDE)
        checks[:, :, ::8], checks[:, :, 1::8], checks[:, :, 2::8], checks[:, :, 3::8] = -1, -1, -1, -1
        loss = FeatureAlignment(teacher=PatchMeans(), source="reconstruction", comparison="mse")
        assert float(loss(torch.zeros(1, 5, 1, 1), checks)) == pytest.approx(0, abs=1e-6)

    def test_no_gradient_reaches_the_teacher_or_the_image(self) -> None:
        seen, found = image().requires_grad_(), torch.randn(3, 5, 4, 4, requires_grad=True)
        FeatureAlignment(teacher=PatchMeans(), source="reconstruction")(found, seen).backward()
        assert seen.grad is None
        assert found.grad is not None

    def test_autocast_does_not_change_the_comparison(self) -> None:
        found = torch.randn(3, 5, 4, 4)
        loss = FeatureAlignment(teacher=PatchMeans(), source="reconstruction")
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(found, image())
        assert torch.equal(inside, loss(found, image()))

    @pytest.mark.parametrize(
        ("shape", "channels", "message"),
        [
            ((3, 7, 9), None, "a sequence has no places"),
            ((3, 7, 4, 4), None, r"expected 5 channels \(those of the teacher\), got 7"),
            ((3, 7, 4, 4), 6, r"expected 6 channels \(its channels\), got 7"),
        ],
    )
    def test_features_that_do_not_fit_are_refused(self, shape: Any, channels: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FeatureAlignment(teacher=PatchMeans(), channels=channels)(torch.zeros(shape), image())

    def test_what_is_no_teacher_is_refused(self) -> None:
        with pytest.raises(TypeError, match="expected a teacher"):
            FeatureAlignment(teacher=torch.nn.Identity())


def step_of(tokenizer: Tokenizer, source: str, channels: int | None, **changes: Any) -> TokenizerStep:
    losses = {
        "l1": L1Loss(),
        "align": FeatureAlignment(teacher=PatchMeans(), source=source, channels=channels),
    }
    if not tokenizer.has_image_decoder:
        del losses["l1"]
    weights = dict.fromkeys((*losses, "quantizer"), 1.0)
    adam = partial(torch.optim.Adam, lr=1e-2)
    arguments: dict[str, Any] = {
        "tokenizer": tokenizer,
        "losses": losses,
        "weights": weights,
        "optimizer": adam,
    }
    if changes.pop("is_adversarial", False):
        arguments["adversary"] = Adversary(
            discriminator=PatchDiscriminator(base_width=8, depth=1),
            objective=HingeObjective(),
            optimizer=adam,
        )
        arguments["weights"] = weights | {"adversarial": 0.5}
        return AdversarialStep(**(arguments | changes))
    return ReconstructionStep(**(arguments | changes))


class TestSteps:
    @pytest.mark.parametrize("is_adversarial", [False, True])
    @pytest.mark.parametrize(
        ("source", "channels"), [("latent", 3), ("quantized", 3), ("decoder", 3), ("post_quant", 8)]
    )
    def test_every_source_trains_its_projection_and_the_encoder(
        self, source: str, channels: int, is_adversarial: bool
    ) -> None:
        torch.manual_seed(0)
        tokenizer = TOKENIZERS["strided"]().train()
        step = step_of(tokenizer, source, channels, is_adversarial=is_adversarial)
        # Only the alignment has a weight: what moves, moves because of it.
        step.weights.update(dict.fromkeys(step.weights, 0.0) | {"align": 1.0})
        projection = step.losses["align"].projection
        before = projection.weight.clone(), tokenizer.pre_quant.weight.clone()
        losses = [float(step([batch()], number)["loss/align"]) for number in range(15)]
        assert losses[-1] < losses[0]
        assert not torch.equal(projection.weight, before[0])
        assert not torch.equal(tokenizer.pre_quant.weight, before[1])

    def test_vq_kd_is_a_reconstruction_of_features(self) -> None:
        torch.manual_seed(0)
        step = step_of(features().train(), "reconstruction", None)
        losses = [float(step([batch()], number)["loss/align"]) for number in range(30)]
        assert losses[-1] < 0.6 * losses[0]

    def test_an_unknown_source_is_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"a part of the tokenizer, got 'decodr'; did you mean 'decoder'"
        ):
            step_of(TOKENIZERS["strided"](), "decodr", 3)

    def test_a_part_that_returns_no_features_is_refused(self) -> None:
        step = step_of(TOKENIZERS["strided"]().train(), "quantizer", 3)
        with pytest.raises(
            ValueError, match=r"got 'quantizer', which returns a QuantizeOutput; name one of its"
        ):
            step([batch()], 0)

    @pytest.mark.parametrize("is_adversarial", [False, True])
    def test_micro_batches_equal_one_batch(self, is_adversarial: bool) -> None:
        found = []
        for sizes in ([6], [2, 3, 1]):
            torch.manual_seed(0)
            tokenizer = TOKENIZERS["strided"]().double().train()
            arguments = {"is_adversarial": is_adversarial, "accumulate": len(sizes)}
            step = step_of(tokenizer, "latent", 3, **arguments)
            step.losses["align"].double()
            if is_adversarial:
                step.adversary.discriminator.double()  # type: ignore[attr-defined]
                step.is_adaptive = False  # type: ignore[attr-defined]
            parts = [{"image": part} for part in batch(6)["image"].split(sizes)]
            step(parts, 0)
            found.append([*tokenizer.parameters(), *step.losses["align"].parameters()])
        if is_adversarial:  # the statistics of the discriminator's batch norm are those of a micro-batch
            found = [tensors[-2:] for tensors in found]
        for one, several in zip(*found, strict=True):
            torch.testing.assert_close(one, several, rtol=1e-7, atol=1e-9)

    def test_a_resumed_step_has_its_projection(self) -> None:
        def fresh() -> TokenizerStep:
            torch.manual_seed(0)
            return step_of(TOKENIZERS["strided"]().train(), "quantized", 3)

        unbroken, first, second = fresh(), fresh(), fresh()
        for number in range(4):
            unbroken([batch()], number)
        for number in range(2):
            first([batch()], number)
        second.model.load_state_dict(first.model.state_dict())
        second.load_state_dict(first.state_dict())
        for number in range(2, 4):
            second([batch()], number)
        for one, other in (
            (unbroken.model, second.model),
            (unbroken.losses["align"], second.losses["align"]),
        ):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    def test_the_offline_teacher(self) -> None:
        loss = FeatureAlignment(teacher=EfficientNetTeacher(), channels=3)
        found = loss(torch.randn(2, 3, 8, 8), torch.rand(2, 3, 64, 64) * 2 - 1)
        assert 0 < found.item() < 2


class TestGroups:
    def test_a_part_learns_at_its_own_rate(self) -> None:
        """SGD moves each parameter by rate times gradient, so that the factor can be read from what moved."""
        moved = {}
        for rates in ({}, {"encoder": 0.1, "encoder.conv_in": 0.01}):
            torch.manual_seed(0)
            tokenizer = TOKENIZERS["strided"]().double().train()
            parts = [name for name, _ in tokenizer.encoder.named_children()]
            chosen = {key.replace("conv_in", parts[0]): value for key, value in rates.items()}
            before = {n: p.detach().clone() for n, p in tokenizer.named_parameters()}
            sgd = partial(torch.optim.SGD, lr=1e-3)
            step = ReconstructionStep(
                tokenizer=tokenizer,
                losses={"l1": L1Loss()},
                weights={"l1": 1.0, "quantizer": 1.0},
                optimizer=sgd,
                rates=chosen,
            )
            step([batch()], 0)
            moved[bool(rates)] = {n: p.detach() - before[n] for n, p in tokenizer.named_parameters()}
        for name, change in moved[False].items():
            first = name.startswith(f"encoder.{parts[0]}.")
            factor = 0.01 if first else 0.1 if name.startswith("encoder.") else 1.0
            torch.testing.assert_close(moved[True][name], factor * change, rtol=1e-6, atol=1e-15)

    def test_only_weights_of_layers_decay(self) -> None:
        tokenizer = TOKENIZERS["vit-learned"]()
        step = ReconstructionStep(
            tokenizer=tokenizer,
            losses={"l1": L1Loss()},
            weights={"l1": 1.0, "quantizer": 1.0},
            optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1),
            decay="matrices",
        )
        decays = {
            id(p): group["weight_decay"]
            for group in step.optimization.optimizer.inner.param_groups
            for p in group["params"]
        }
        free = {n for n, p in tokenizer.named_parameters() if decays[id(p)] == 0}
        vectors = {n for n, p in tokenizer.named_parameters() if p.ndim < 2}
        learned = {
            "encoder.extra",
            "encoder.transformer.positions.vectors",
            "decoder.transformer.positions.vectors",
        }
        assert free == vectors | learned

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rates": {"encodr": 0.1}}, r"no trained parameter belongs to 'encodr'; did you mean 'encoder'"),
            ({"rates": {"encoder": 0.0}}, "to stop a part, freeze it"),
            ({"decay": "vectors"}, "expected all or matrices"),
        ],
    )
    def test_wrong_groups_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            step_of(TOKENIZERS["strided"](), "latent", 3, **arguments)
