"""The names of the original documents that are a line or two over ours."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, TINY, accepted

from tools.llamagen import main
from vq.data import TokenStore
from vq.errors import UserError


@pytest.mark.slow
def test_llamagens_files_hold_the_ten_crops_of_the_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    accepted("train", "run", TINY, "--config-options", "max_steps:4")
    out = main(["run", str(TINY)])
    assert out == Path("work_dirs/run/llamagen_tokens")
    store = TokenStore(tmp_path / "work_dirs/run/tokens/train_ten_crops")
    assert (len(store), store.views) == (64, 10)
    assert store.manifest["split"] == "train"
    for number in (0, 63):
        codes = np.load(out / "imagenet256_codes" / f"{number}.npy")
        assert codes.shape == (1, 10, 64)
        assert all((codes[0, view] == store.read(number, view).flatten().numpy()).all() for view in range(10))
        assert np.load(out / "imagenet256_labels" / f"{number}.npy").tolist() == [store.label(number)]
    assert not (out / "imagenet256_codes" / "64.npy").exists()
    with pytest.raises(UserError, match="llamagen_tokens: expected a folder that is empty or does not exist"):
        main(["run", str(TINY)])


def test_torchrun_passes_on_what_it_is_given() -> None:
    done = subprocess.run(
        ["bash", ROOT / "tools/torchrun.sh", "-m", "vq.test", "a name"],
        env=os.environ | {"PYTHON": "echo", "PROCESSES": "2"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "-m vq.auto_torchrun -m vq.test a name\n"
