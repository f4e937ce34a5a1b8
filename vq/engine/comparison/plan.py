"""The section `comparison` of a page: seeds, budget, and the score by which contestants are compared."""

from collections.abc import Sequence

from vq.registry import ENGINES


@ENGINES.register_module()
class Comparison:
    """The plan of an experiment: how often each contestant is trained, and how the scores are compared.

    Args:
        seeds: Each contestant is trained once with each seed. Differences are paired by seed.
        baseline: The contestant with which the others are compared; None for the first one.
        score: The score that decides, a name that the evaluator computes.
        cpu_hours: The budget of the whole experiment in CPU hours, stated before it is run; None if none is stated.
        question: What the experiment is to answer; it stands above the table.

    Raises:
        ValueError: If there is no seed, one is given twice, or the budget is not above 0.
    """

    def __init__(
        self,
        *,
        seeds: Sequence[int] = (0,),
        baseline: str | None = None,
        score: str = "psnr",
        cpu_hours: float | None = None,
        question: str = "",
    ) -> None:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"Comparison: expected different seeds, at least one, got {tuple(seeds)}")
        if cpu_hours is not None and not cpu_hours > 0:
            raise ValueError(f"Comparison: expected cpu_hours above 0 or None, got {cpu_hours}")
        self.seeds, self.baseline, self.score = list(seeds), baseline, score
        self.cpu_hours, self.question = cpu_hours, question
