"""Our scores of a published model beside those that have been published."""

from collections.abc import Iterator

from vq.zoo.entry import Model, Scores

_CROPS = {"centre": "shorter side resized, centre", "adm": "ADM's", None: None}


def comparison(model: Model, ours: Scores) -> Iterator[str]:
    """Yields lines that compare our scores with every row of published ones.

    A row says of the images, their size, their crop and the reference of the FID whether both sides agree, and which
    of them a publisher did not state.

    Args:
        model: The entry of the model.
        ours: Our scores of it, and how they were computed.

    Example:
        >>> model = Model(name="unscored", config={}, file="last.ckpt", address="https://example.org")
        >>> list(comparison(model, Scores(values={"psnr": 20.8}, data="ImageNet val", source="vq test")))
        ['unscored: no scores have been published, as far as the catalogue knows']
    """
    if not model.scores:
        yield f"{model.name}: no scores have been published, as far as the catalogue knows"
    for row in model.scores:
        yield f"published in {row.source}"
        yield from _protocols(ours, row)
        yield f"  {'score':<18}{'here':>10}{'published':>12}{'difference':>12}"
        for name, published in row.values.items():
            found = ours.values.get(name)
            here, difference = ("-", "-") if found is None else (f"{found:.4g}", f"{found - published:+.4g}")
            yield f"  {name:<18}{here:>10}{published:>12.4g}{difference:>12}"


def _protocols(ours: Scores, theirs: Scores) -> Iterator[str]:
    """Yields how both sides were computed, what differs, and what the publisher did not state."""
    sides = [
        {
            "images": row.data,
            "size": f"{row.size} px" if row.size else None,
            "crop": _CROPS[row.crop],
            "reference of FID": row.reference,
        }
        for row in (ours, theirs)
    ]
    if "fid" not in theirs.values:
        for side in sides:
            del side["reference of FID"]
    differing, unknown = [], []
    for name, here in sides[0].items():
        published = sides[1][name]
        if published is None or here is None:
            unknown.append(name)
            verdict = "cannot be compared"
        elif here != published:
            differing.append(name)
            verdict = "DIFFERENT"
        else:
            verdict = "the same"
        yield f"  {name:<18}here: {here or 'not known'}; published: {published or 'not stated'} ({verdict})"
    if theirs.note:
        yield f"  {'note':<18}{theirs.note}"
    if differing:
        yield f"  THE PROTOCOLS DIFFER in {', '.join(differing)}: the scores cannot be compared"
    elif unknown:
        yield f"  the protocols agree as far as is known; not known: {', '.join(unknown)}"
    else:
        yield "  the protocols agree"
