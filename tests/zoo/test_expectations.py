"""Our scores beside the published ones."""

from dataclasses import replace

from vq.zoo import Model, Scores
from vq.zoo.expectations import comparison

PUBLISHED = Scores(
    values={"fid": 2.19, "psnr": 20.79},
    data="ImageNet val",
    source="README.md",
    size=256,
    crop="adm",
    reference="ImageNet val",
)
OURS = Scores(
    values={"psnr": 20.5},
    data="ImageNet val",
    source="vq test",
    size=256,
    crop="adm",
    reference="ImageNet val",
)


def compared(ours: Scores, published: Scores) -> list[str]:
    model = Model(name="f16", config={}, file="last.ckpt", address="https://example.org", scores=(published,))
    return list(comparison(model, ours))


def test_differences_are_printed_with_their_sign() -> None:
    lines = compared(OURS, PUBLISHED)
    assert lines[0] == "published in README.md"
    assert sum("(the same)" in line for line in lines) == 4
    assert "  the protocols agree" in lines
    table = {line.split()[0]: line.split()[1:] for line in lines[-2:]}
    assert table["psnr"] == ["20.5", "20.79", "-0.29"]
    assert table["fid"] == ["-", "2.19", "-"]  # not computed here


def test_what_differs_is_named() -> None:
    lines = compared(
        replace(OURS, data="photographs", size=128, crop="centre", reference="photos"), PUBLISHED
    )
    assert sum("(DIFFERENT)" in line for line in lines) == 4
    assert (
        "  THE PROTOCOLS DIFFER in images, size, crop, reference of FID: the scores cannot be compared"
        in lines
    )


def test_what_a_publisher_does_not_state_is_said() -> None:
    lines = compared(OURS, replace(PUBLISHED, crop=None, note="their own evaluator"))
    assert "published: not stated (cannot be compared)" in lines[3]
    assert "  note              their own evaluator" in lines
    assert "  the protocols agree as far as is known; not known: crop" in lines


def test_the_reference_of_a_fid_does_not_concern_other_scores() -> None:
    lines = compared(replace(OURS, reference=None), replace(PUBLISHED, values={"psnr": 20.79}))
    assert not any("reference" in line for line in lines)
    assert "  the protocols agree" in lines
