"""Every entry of the catalogue: its tensors, by their published names and shapes, are recognised and fit the model."""

import functools
import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vq import zoo
from vq.config import load
from vq.config.packaged import names as page_names
from vq.interop import DIALECTS, convert, recognise

SHAPES = Path(__file__).with_name("shapes")
NAMES = zoo.names()


@functools.cache
def published(family: str) -> dict[str, dict[str, list[int]]]:
    """The names and shapes of the tensors of each model, recorded from the modules of the project."""
    with gzip.open(SHAPES / f"{family}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def tensors(name: str) -> dict[str, Tensor]:
    family, model = zoo.find(name)
    shapes = published(family.name)[model.name]
    return {tensor: torch.empty(shape, device="meta") for tensor, shape in shapes.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_dialect_describes_what_the_catalogue_says(name: str) -> None:
    family, model = zoo.find(name)
    dialect = DIALECTS[model.dialect or family.dialect]
    own = dialect.own(tensors(name))
    assert dialect.describe(own, **{**dialect.options, **model.options}) == dict(model.config)


@pytest.mark.parametrize("name", NAMES)
def test_the_project_is_recognised(name: str) -> None:
    family, model = zoo.find(name)
    dialect = model.dialect or family.dialect
    assert recognise(tensors(name)) == dialect


@pytest.mark.parametrize(
    "name", {json.dumps(dict(zoo.find(n)[1].config), sort_keys=True): n for n in NAMES}.values()
)
def test_no_tensor_is_missing_or_left_over(name: str) -> None:
    family, model = zoo.find(name)
    found = convert(tensors(name), model.dialect or family.dialect, options=model.options)
    assert found.tensors  # `convert` has compared every name and shape with the model, on the meta device


@pytest.mark.parametrize("name", [name for name in NAMES if zoo.find(name)[1].page])
def test_the_page_trains_a_model_of_these_tensors(name: str) -> None:
    family, model = zoo.find(name)
    assert model.page is not None
    page = load(model.page).to_dict()
    assert convert(tensors(name), model.dialect or family.dialect, config=page).tensors


@pytest.mark.parametrize("family", zoo.FAMILIES.values(), ids=lambda family: family.name)
def test_entries_are_whole(family: zoo.Family) -> None:
    assert family.dialect in DIALECTS
    assert set(published(family.name)) == {model.name for model in family.models}
    assert len({model.name for model in family.models}) == len(family.models)
    for model in family.models:
        assert model.address.startswith(("hf://", "https://"))
        assert model.page is None or model.page in page_names()
        assert set(model.config) in ({"tokenizer"}, {"generator"})
        assert (model.tokenizer is not None) == ("generator" in model.config)
        if model.tokenizer is not None:
            assert "tokenizer" in zoo.find(model.tokenizer)[1].config
        assert model.sha256 is None or len(model.sha256) >= 8
        for row in model.scores:
            assert row.values
            assert row.source
            assert all(
                0 <= value <= 1 for key, value in row.values.items() if key.startswith(("ssim", "codebook_u"))
            )
