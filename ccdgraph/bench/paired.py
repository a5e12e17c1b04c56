"""Paired tests between strategies: per user, averaged over seeds, corrected over baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccdgraph.bench.cell import Outcome, cell_folder
from ccdgraph.bench.results import H_OF_MEANS, Comparison, Place, places

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


def lead_of_means(own: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    r"""By how much the H of a table leads another one, and the two-sided p-value of that.

    The H of a table is that of means over users; the H of each user does not add up to it. A user
    moves it by :math:`\phi_u`, to first order, and users are independent, so

    .. math:: z = \frac{H_a - H_b}{\sqrt{\sum_u (\phi_{a,u} - \phi_{b,u})^2}}

    is a standard normal number if both are equally good (the delta method; van der Vaart,
    *Asymptotic Statistics*, 1998, chapter 3). Users of both count as pairs.

    Args:
        own: :func:`user_quantities` of the reference.
        other: of a baseline.
    """
    (ours, of_ours), (theirs, of_theirs) = _h_of_means(own), _h_of_means(other)
    lead, spread = ours - theirs, math.sqrt(((of_ours - of_theirs) ** 2).sum())
    return lead, math.erfc(abs(lead) / spread / math.sqrt(2)) if spread else 1.0


def _h_of_means(frame: pd.DataFrame) -> tuple[float, pd.Series]:
    r"""H of the means over users, and by how much each user moves it, :math:`\phi_u`."""
    sides = []
    for side in ("new", "last"):
        values = frame[[name for name in frame if name.startswith(f"{side} ")]]
        of_user = ((values - values.mean()) / values.count()).fillna(0.0).mean(axis=1)
        sides.append((float(values.mean().mean()), of_user))
    (la, by_la), (ra, by_ra) = sides
    if la + ra == 0:
        return 0.0, 0.0 * by_la
    return 2 * la * ra / (la + ra), 2 * (ra**2 * by_la + la**2 * by_ra) / (la + ra) ** 2


def compare(
    outcomes: Sequence[Outcome], folder: Path, reference: str | None = None
) -> list[Comparison]:
    """Tests every strategy against the reference, where both have a finished seed in common.

    A user's LA is the mean over the blocks that test the user of the headline metric right after
    the block was learnt; RA is the same after the last block; H is their harmonic mean. The
    H of the table is tested besides (:func:`lead_of_means`). Only what the protocol measures is
    compared: ``"next"`` has LA alone.

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
            pairs[baseline] = (own, other, len(seeds))
    found: list[Comparison] = []
    for quantity in (*QUANTITIES, H_OF_MEANS):
        tested = {
            name: (*_tested(own, other, quantity), seeds)
            for name, (own, other, seeds) in pairs.items()
            if ("H" if quantity == H_OF_MEANS else quantity) in own
        }
        corrected = holm([p for _, p, _, _ in tested.values()])
        found += [
            Comparison(place, reference, name, quantity, lead, users, seeds, p, whole)
            for (name, (lead, p, users, seeds)), whole in zip(
                tested.items(), corrected, strict=True
            )
        ]
    return found


def _tested(own: pd.DataFrame, other: pd.DataFrame, quantity: str) -> tuple[float, float, int]:
    """The lead, its p-value, and the number of users."""
    if quantity == H_OF_MEANS:
        return *lead_of_means(own, other), len(own)
    difference = (own[quantity] - other[quantity]).dropna()
    return float(difference.mean()), wilcoxon(difference), len(difference)


def _common(own: Sequence[Outcome], other: Sequence[Outcome]) -> list[int]:
    return sorted({o.cell.seed for o in own} & {o.cell.seed for o in other})


def _average(outcomes: Sequence[Outcome], folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    import pandas as pd

    frames = [user_quantities(o, folder) for o in outcomes if o.cell.seed in seeds]
    mean: pd.DataFrame = pd.concat(frames).groupby(level=0).mean()
    return mean


def user_quantities(outcome: Outcome, folder: Path) -> pd.DataFrame:
    """LA, RA and H of the headline metric by user, of the served scorer of a finished cell.

    Beside them stands what they are means of: ``"new 3"``, on block 3 right after it was learnt,
    and ``"last 3"``, on block 3 after the last one.
    """
    import pandas as pd

    metric, served = outcome.about["metric"], outcome.about["served"]
    users = cell_folder(folder, outcome.cell) / "per_user"
    after = {
        k: pd.read_parquet(path, columns=["scorer", "tested", "user", metric])
        for k in range(outcome.about["data"]["blocks"])
        if (path := users / f"after_{k}.parquet").exists()
    }
    after = {k: frame[frame["scorer"] == served] for k, frame in after.items()}
    sides = {"new": pd.concat([frame[frame["tested"] == k] for k, frame in after.items()])}
    if outcome.about["protocol"] == "within":
        sides["last"] = after[max(after)]
    found = {}
    for side, frame in sides.items():
        wide = frame.pivot(index="user", columns="tested", values=metric)
        found[side] = wide.rename(columns=lambda k, side=side: f"{side} {k}")
    means = {"LA": found["new"].mean(axis=1)}
    if "last" in found:
        means["RA"] = found["last"].mean(axis=1)
        total = means["LA"] + means["RA"]
        means["H"] = (2 * means["LA"] * means["RA"] / total).where(total > 0, 0.0)
    return pd.concat([pd.DataFrame(means), *found.values()], axis=1)
