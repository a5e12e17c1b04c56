"""Paired tests between strategies: per user, averaged over seeds, corrected over baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccdgraph.bench.cell import Outcome, cell_folder
from ccdgraph.bench.results import Comparison, Place, places

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = ("LA", "RA", "H")


def holm(p: Sequence[float]) -> list[float]:
    r"""p-values corrected for their number, in the order given.

    The ``i``-th smallest of ``m``, from 1, becomes the largest of :math:`(m - j + 1) p_{(j)}` over
    :math:`j \le i`, at most 1. Holm, *A simple sequentially rejective multiple test procedure*,
    Scandinavian Journal of Statistics 1979, https://www.jstor.org/stable/4615733.

    >>> holm([0.25, 0.125])
    [0.25, 0.25]
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def wilcoxon(difference: pd.Series) -> float:
    """p-value of the two-sided signed-rank test that differences lie around 0; 1 without any.

    Pairs without a difference are left out (Wilcoxon's own treatment of zeros).
    """
    from scipy import stats

    some = difference[difference != 0].to_numpy()
    return float(stats.wilcoxon(some).pvalue) if len(some) else 1.0


def compare(
    outcomes: Sequence[Outcome], folder: Path, reference: str | None = None
) -> list[Comparison]:
    """Tests every strategy against the reference, where both have a finished seed in common.

    A user's LA is the mean over the blocks that test the user of the headline metric right after
    the block was learnt; RA is the same after the last block; H is their harmonic mean. Only what
    the protocol measures is compared: ``"next"`` has LA alone.

    Args:
        outcomes: of all cells.
        folder: of the suite.
        reference: name of the strategy; by default the first.
    """
    name = reference or outcomes[0].cell.strategy
    found = []
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    for place, strategies in places(finished).items():
        if name in strategies:
            found += _compare(place, name, strategies, folder)
    return found


def _compare(
    place: Place, reference: str, strategies: Mapping[str, Sequence[Outcome]], folder: Path
) -> list[Comparison]:
    pairs = {}
    for baseline in strategies:
        seeds = _common(strategies[reference], strategies[baseline])
        if baseline != reference and seeds:
            own, other = (_average(strategies[n], folder, seeds) for n in (reference, baseline))
            pairs[baseline] = (own - other, len(seeds))
    found: list[Comparison] = []
    for quantity in QUANTITIES:
        tested = {
            name: (frame[quantity].dropna(), seeds)
            for name, (frame, seeds) in pairs.items()
            if quantity in frame
        }
        p = [wilcoxon(difference) for difference, _ in tested.values()]
        found += [
            Comparison(
                place=place,
                reference=reference,
                baseline=name,
                quantity=quantity,
                difference=float(difference.mean()),
                users=len(difference),
                seeds=seeds,
                p=own,
                corrected=corrected,
            )
            for (name, (difference, seeds)), own, corrected in zip(
                tested.items(), p, holm(p), strict=True
            )
        ]
    return found


def _common(own: Sequence[Outcome], other: Sequence[Outcome]) -> list[int]:
    return sorted({o.cell.seed for o in own} & {o.cell.seed for o in other})


def _average(outcomes: Sequence[Outcome], folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    import pandas as pd

    frames = [user_quantities(o, folder) for o in outcomes if o.cell.seed in seeds]
    mean: pd.DataFrame = pd.concat(frames).groupby(level=0).mean()
    return mean


def user_quantities(outcome: Outcome, folder: Path) -> pd.DataFrame:
    """LA, RA and H of the headline metric by user, of the served scorer of a finished cell."""
    import pandas as pd

    metric, served = outcome.about["metric"], outcome.about["served"]
    users = cell_folder(folder, outcome.cell) / "per_user"
    after = {
        k: pd.read_parquet(path, columns=["scorer", "tested", "user", metric])
        for k in range(outcome.about["data"]["blocks"])
        if (path := users / f"after_{k}.parquet").exists()
    }
    after = {k: frame[frame["scorer"] == served] for k, frame in after.items()}
    newest = pd.concat([frame[frame["tested"] == k] for k, frame in after.items()])
    found: pd.DataFrame = newest.groupby("user")[metric].mean().to_frame("LA")
    if outcome.about["protocol"] == "within":
        found["RA"] = after[max(after)].groupby("user")[metric].mean()
        total = found["LA"] + found["RA"]
        found["H"] = (2 * found["LA"] * found["RA"] / total).where(total > 0, 0.0)
    return found
