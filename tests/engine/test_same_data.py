"""What identifies the images of a training that is continued."""

import json
from pathlib import Path

import pytest

from vq.data import ImageLoader, ProceduralDataset
from vq.engine.assembly.same_data import DATA, check_same_data, identity_of
from vq.engine.loop.resuming import ResumeError


class Own:
    """A loader of a user's own, which has no set that is known here."""


def checkpoint(folder: Path, identity: dict[str, object]) -> Path:
    (folder / "config.json").write_text(json.dumps({"train_data": {}}))
    (folder / "arguments.json").write_text(json.dumps({DATA: identity}))
    return folder


def test_a_loader_of_another_kind_is_not_compared(tmp_path: Path) -> None:
    known = identity_of(ImageLoader(dataset=ProceduralDataset(num_images=4, image_size=8), batch_size=2))
    assert identity_of(Own()) == {}
    assert known["number"] == 4
    check_same_data(checkpoint(tmp_path, known), {"train_data": {}}, identity_of(Own()), may_differ=False)
    check_same_data(checkpoint(tmp_path, {}), {"train_data": {}}, known, may_differ=False)
    other = checkpoint(tmp_path, {**known, "number": 5})
    with pytest.raises(ResumeError, match=r"expected the 5 images with which .* got 4 images"):
        check_same_data(other, {"train_data": {}}, known, may_differ=False)
