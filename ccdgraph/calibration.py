"""Calibration: whether the sigmoid of a score is the share of positives that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.ranking import BUDGET, Scorer, user_chunks
from ccdgraph.sampling import Pairs, draw_negatives


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities in equal bins of [0, 1].

    Args:
        predicted: mean prediction of each bin, NaN where it is empty, float64 ``[bins]``.
        observed: share of positives of each bin, likewise.
        count: pairs of each bin, int64 ``[bins]``.
    """

    predicted: Tensor
    observed: Tensor
    count: Tensor

    @property
    def ece(self) -> float:
        r"""Expected calibration error.

        .. math:: \sum_b \frac{n_b}{n} \lvert p_b - y_b \rvert

        Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, AAAI 2015.
        """
        gap = (self.predicted - self.observed).abs().nan_to_num(0.0)
        return float((gap * self.count).sum() / self.count.sum().clamp(min=1))


def reliability(probability: Tensor, label: Tensor, bins: int = 15) -> Reliability:
    """Predictions against outcomes, bin by bin.

    Args:
        probability: in [0, 1], ``[n]``.
        label: 1 for a positive, 0 otherwise, ``[n]``.
        bins: of equal width; the value 1 falls into the last.

    >>> table = reliability(torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.0, 1.0, 1.0]), bins=2)
    >>> round(table.ece, 4)  # 2/3 |0.3 - 0.5| + 1/3 |0.9 - 1|
    0.1667
    """
    if bins < 1 or probability.shape != label.shape:
        raise ValueError(
            f"'bins' is {bins}, 'probability' has shape {tuple(probability.shape)}, 'label' "
            f"{tuple(label.shape)}; expected at least 1, and two of one shape"
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("'probability' holds NaN or values outside [0, 1]; pass sigmoids")
    place = _bin(probability, bins)
    count = torch.bincount(place, minlength=bins)
    total = [
        torch.zeros(bins, dtype=torch.float64, device=place.device).index_add_(0, place, x.double())
        for x in (probability, label)
    ]
    return Reliability(total[0] / count, total[1] / count, count)


def _bin(probability: Tensor, bins: int) -> Tensor:
    return (probability * bins).long().clamp(max=bins - 1)


def labelled_pairs(
    positives: Interactions,
    seen: UserItems,
    *,
    negatives: int,
    generator: torch.Generator,
) -> Pairs:
    """Held-out pairs with label 1, and drawn ones with label 0, in the ratio of training.

    Args:
        positives: held-out rows.
        seen: pairs that are neither drawn nor held out.
        negatives: drawn for each positive; a logit is calibrated for the ratio it was trained on.
        generator: source of the draws, on the device of ``positives``.
    """
    own = UserItems.from_interactions([positives], seen.num_users, seen.num_items)
    exclude = torch.cat([seen.keys(), own.keys()]).unique()
    user = positives.user
    drawn = draw_negatives(user, seen.num_items, negatives, exclude, generator=generator)
    label = torch.cat([torch.ones(len(user)), torch.zeros(drawn.numel())]).to(user.device)
    owner = torch.cat([user, user.repeat_interleave(negatives)])
    return Pairs(owner, torch.cat([positives.item, drawn.flatten()]), label)


@torch.no_grad()
def predicted(scorer: Scorer, pairs: Pairs, *, budget: int = BUDGET) -> Tensor:
    """Sigmoid of the score of every pair, ``[n]``; the catalogue is scored in chunks of users."""
    users, place = torch.unique(pairs.user, return_inverse=True)
    found = torch.empty(len(place), device=place.device)
    first = 0
    for chunk in user_chunks(users, scorer.num_items, budget=budget):
        here = (place >= first) & (place < first + len(chunk))
        found[here] = scorer.scores(chunk)[place[here] - first, pairs.item[here]].sigmoid()
        first += len(chunk)
    return found


@dataclass(frozen=True)
class Answers:
    """What a model predicts for some pairs.

    Args:
        probability: in [0, 1], ``[n]``.
        label: 1 for a positive, 0 otherwise, ``[n]``.
        user: of each pair, int64 ``[n]``.
    """

    probability: Tensor
    label: Tensor
    user: Tensor


def ece_test(
    first: Sequence[Answers],
    second: Sequence[Answers],
    *,
    shared: bool = False,
    bins: int = 15,
    draws: int = 10_000,
) -> float:
    r"""p-value of the two-sided bootstrap test that two models are equally well calibrated.

    Users are drawn with replacement, each with all pairs and both predictions of them. With
    :math:`d` the difference of the two calibration errors, averaged over runs, and :math:`d^*`
    that of one of ``B`` draws,

    .. math:: p = \frac{1 + \#\{d^* : |d^* - d| \ge |d|\}}{1 + B}

    Hall and Wilson, *Two Guidelines for Bootstrap Hypothesis Testing*, Biometrics 1991. It speaks
    of other users of the same trained models; a test over runs speaks of other seeds.

    Args:
        first: of one model, by run.
        second: of the other model, for the same pairs in the same order.
        shared: an id is the same user in all runs, drawn for all of them at once.
        bins: of equal width.
        draws: of the bootstrap.
    """
    if [own.label.tolist() for own in first] != [own.label.tolist() for own in second]:
        raise ValueError("'first' and 'second' have other labels; ask both models the same pairs")
    who, run = _drawn_as_one(first, shared=shared)
    num = int(who.max()) + 1
    count = torch.zeros(num, len(first), dtype=torch.float64)
    count.index_put_((who, run), torch.ones(len(who), dtype=torch.float64), accumulate=True)
    errors = [_errors(side, who, run, bins) for side in (first, second)]

    def difference(times: Tensor) -> Tensor:  # [n, users] -> [n]
        pairs = (times @ count).clamp(min=1)  # a draw may leave a run without any
        own, other = (torch.tensordot(times, e, 1).abs().sum(-1) / pairs for e in errors)
        found: Tensor = (own - other).mean(-1)
        return found

    observed, further = difference(torch.ones(1, num, dtype=torch.float64)), 0
    generator = rng("bootstrap")
    for start in range(0, draws, 500):
        drawn = torch.randint(num, (min(500, draws - start), num), generator=generator)
        times = torch.zeros(drawn.shape, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        further += int(((difference(times) - observed).abs() >= observed.abs()).sum())
    return (1 + further) / (1 + draws)


def _drawn_as_one(runs: Sequence[Answers], *, shared: bool) -> tuple[Tensor, Tensor]:
    """What is drawn as one, numbered from 0, and the run, of every pair, ``[n]`` each."""
    user = torch.cat([own.user for own in runs]).long()
    run = torch.cat([torch.full_like(own.user, k).long() for k, own in enumerate(runs)])
    key = user if shared else run * (int(user.max()) + 1) + user
    return key.unique(return_inverse=True)[1], run


def _errors(side: Sequence[Answers], who: Tensor, run: Tensor, bins: int) -> Tensor:
    """What a user's predictions exceed the outcomes by, ``[users, runs, bins]``."""
    probability, label = (
        torch.cat([getattr(own, name) for own in side]) for name in ("probability", "label")
    )
    found = torch.zeros(int(who.max()) + 1, len(side), bins, dtype=torch.float64)
    place = (who, run, _bin(probability, bins))
    return found.index_put_(place, (probability - label).double(), accumulate=True)
