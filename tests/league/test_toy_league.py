"""Every kind of quantizer learns on real pictures: a part of the league, at seed 0. `make league` runs it.

The bars are the issue's own or half the margin seen (docs/quantizers.md has the whole league with three seeds).
"""

import json

import pytest
from commands import ROOT, run

pytestmark = [pytest.mark.league, pytest.mark.timeout(1800)]

FULLY_USED = ("ema_revival", "fsq", "lfq", "gvq4", "rvq4")
MOSTLY_USED = ("cvq_probrandom", "cvq_random", "simvq")
NEWEST = ("vq_directional", "vq_bridge", "vq_e8", "fsp", "fsq_noise", "cosine_norm", "rvq4_beam", "qinco4")
OTHERS = ("gumbel_diversity", "vq_uniform", "gumbel", "softmax", "softmax_st", "lfq_no_entropy")
STACKED = ("rvq4", "gvq4", "rvq4_beam", "qinco4")

Rows = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The scores and other measured values of each contestant, by `vq compare`, which trains two at a time."""
    folder = tmp_path_factory.mktemp("league")
    words = ["--only", *FULLY_USED, *MOSTLY_USED, *NEWEST, *OTHERS, "--seeds", 0, "--name", "toy"]
    page = ROOT / "configs" / "compare" / "league.py"
    run("compare", page, *words, "--jobs", 2, cwd=folder, timeout=1500)
    found = [json.loads(file.read_text()) for file in (folder / "experiments" / "toy" / "rows").iterdir()]
    return {row["name"]: {**row["scores"], **row["measured"]} for row in found}


@pytest.mark.parametrize("name", FULLY_USED)
def test_uses_over_nine_tenths_of_its_codes(rows: Rows, name: str) -> None:
    assert rows[name]["codebook_usage"] > 0.9


@pytest.mark.parametrize("name", MOSTLY_USED)
def test_uses_over_three_quarters_of_its_codes(rows: Rows, name: str) -> None:
    assert rows[name]["codebook_usage"] > 0.75


@pytest.mark.parametrize("name", NEWEST)
def test_the_newest_use_over_half_of_their_codes_and_learn(rows: Rows, name: str) -> None:
    assert rows[name]["codebook_usage"] > 0.5
    assert rows[name]["psnr"] > rows["vq_uniform"]["psnr"] + 1.0


@pytest.mark.parametrize("name", STACKED)
def test_stacked_codes_are_best(rows: Rows, name: str) -> None:
    single = max(row["psnr"] for row in rows.values() if row["bits_per_token"] < 9)
    assert rows[name]["psnr"] > single + 0.8


def test_plain_vq_from_tiny_codes_is_visibly_worse(rows: Rows) -> None:
    assert rows["vq_uniform"]["codebook_usage"] < 0.3
    assert rows["vq_uniform"]["psnr"] < rows["ema_revival"]["psnr"] - 1.5


def test_lookup_free_codes_collapse_without_the_entropy(rows: Rows) -> None:
    assert rows["lfq_no_entropy"]["codebook_usage"] < 0.5 * rows["lfq"]["codebook_usage"]


def test_gumbel_is_the_same_in_training_and_in_use_and_softmax_is_not(rows: Rows) -> None:
    assert rows["gumbel"]["train_eval_mse"] < 2
    assert rows["gumbel_diversity"]["codebook_usage"] > 0.6
    assert rows["softmax"]["train_eval_mse"] > 10
    assert rows["softmax_st"]["train_eval_mse"] < 1.5
