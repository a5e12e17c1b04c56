"""Calibration: whether the sigmoid of a score is the share of positives that it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
    place = (probability * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins)
    total = [
        torch.zeros(bins, dtype=torch.float64, device=place.device).index_add_(0, place, x.double())
        for x in (probability, label)
    ]
    return Reliability(total[0] / count, total[1] / count, count)


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
