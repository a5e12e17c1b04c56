"""How a model of one static split is measured and chosen: all items, or a sample of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ccdgraph import metrics
from ccdgraph.config import rng
from ccdgraph.data import Block, Interactions, UserItems
from ccdgraph.distill.lists import draw_rest
from ccdgraph.evaluate import Split, evaluate
from ccdgraph.ranking import BUDGET, Scorer, user_chunks

FULL = ("recall", "ndcg", "hit", "mrr", "trecall")
SAMPLED = {"hit": metrics.hit_rate, "ndcg": metrics.ndcg, "mrr": metrics.mrr}


@dataclass(frozen=True)
class ProtocolConfig:
    """How models are measured.

    Args:
        protocol: ``"full"`` ranks the catalogue; ``"sampled"`` ranks each held-out item among
            ``candidates`` items that its user has in no part, one draw for all measurements.
        ks: list lengths.
        select: validation metric whose best epoch is kept, such as ``"recall@20"``; ``"last"``
            keeps the last epoch.
        patience_on: further validation metrics whose improvement is progress, for the patience of a
            training; without them ``select`` alone is.
        every: epochs between two looks at the validation rows.
        hide: items hidden in full rankings: training items and, when testing, the validation items
            (``"past"``), or the other held-out part in both cases (``"others"``), as in the code of
            several papers, which lets a validation know what is not in the test.
        candidates: see ``protocol``.
        seed: of the candidates.

    Raises:
        ValueError: ``select`` is not measured, or a number is out of range.
    """

    protocol: Literal["full", "sampled"] = "full"
    ks: tuple[int, ...] = (20, 50)
    select: str = "recall@20"
    patience_on: tuple[str, ...] = ()
    every: int = 1
    hide: Literal["past", "others"] = "past"
    candidates: int = 499
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or self.every < 1 or self.candidates < 1:
            raise ValueError("'ks', 'every' and 'candidates' must be numbers of at least 1")
        names = FULL if self.protocol == "full" else tuple(SAMPLED)
        known = [f"{name}@{k}" for name in names for k in self.ks]
        named = [("select", self.select)] if self.select != "last" else []
        for option, name in (*named, *(("patience_on", name) for name in self.patience_on)):
            if name not in known:
                last = "'last' or " if option == "select" else ""
                raise ValueError(
                    f"'{option}' is {name!r}, which protocol '{self.protocol}' does not measure; "
                    f"expected {last}one of {', '.join(known)}"
                )
        if self.patience_on and self.select == "last":
            raise ValueError("'patience_on' has no effect with 'select' = 'last'; leave it out")

    @property
    def headline(self) -> str:
        """The metric that models are compared by."""
        first = "recall" if self.protocol == "full" else "hit"
        return f"{first}@{self.ks[0]}" if self.select == "last" else self.select


class Ruler:
    """Measures scorers on the held-out parts of one block.

    Args:
        block: on the device of the scorers.
        config: how.

    Raises:
        ValueError: a list is longer than the catalogue.
    """

    def __init__(self, block: Block, config: ProtocolConfig) -> None:
        sizes = block.num_users, block.num_items
        length = max(config.ks) if config.protocol == "full" else config.candidates
        if length > block.num_items:
            raise ValueError(
                f"'measure' asks for {length} items, the data have {block.num_items}; lower "
                "'ks' or 'candidates'"
            )
        self.config, self.targets = config, {"valid": block.valid, "test": block.test}
        past = {"valid": [block.train], "test": [block.train, block.valid]}
        if config.hide == "others":
            past["valid"] = [block.train, block.test]
        self.seen = {k: UserItems.from_interactions(v, *sizes) for k, v in past.items()}
        self.candidates = torch.empty(0)
        if config.protocol == "sampled":
            parts = [block.train, block.valid, block.test]
            self.candidates = draw_candidates(
                UserItems.from_interactions(parts, *sizes), config.candidates, config.seed
            )

    def measure(self, scorer: Scorer, split: Split) -> dict[str, float]:
        """Means over users by metric; empty where nothing is held out."""
        targets = self.targets[split]
        if len(targets) == 0:
            return {}
        if self.config.protocol == "full":
            return evaluate(scorer, targets, self.seen[split], ks=self.config.ks).mean()
        return rank_among(scorer, targets, self.candidates, self.config.ks)

    def select(self, scorer: Scorer) -> tuple[float, ...]:
        """The validation value that decides which epoch is kept, and those of ``patience_on``."""
        found = self.measure(scorer, "valid")
        return tuple(found[name] for name in (self.config.headline, *self.config.patience_on))


def draw_candidates(known: UserItems, size: int, seed: int) -> Tensor:
    """Distinct items that a user has nowhere, ``[U, size]``; ``-1`` where there are too few."""
    generator = rng(seed, "candidates", device=known.item.device)
    return draw_rest(known.keys(), known.num_users, known.num_items, size, generator=generator)


@torch.no_grad()
def rank_among(
    scorer: Scorer,
    targets: Interactions,
    candidates: Tensor,
    ks: tuple[int, ...],
    *,
    budget: int = BUDGET,
) -> dict[str, float]:
    r"""Means over held-out items of metrics of their rank among sampled candidates.

    With rank :math:`r \ge 1`: hit :math:`1[r \le k]`, ndcg :math:`1[r \le k] / \log_2(r + 1)`, mrr
    :math:`1[r \le k] / r`. Of equal scores the smaller id comes first, as everywhere.

    Args:
        scorer: the model.
        targets: held-out interactions.
        candidates: items each is ranked against, by user ``[U, n]``; ``-1`` is none.
        ks: list lengths.
        budget: bytes that score blocks may take at once.
    """
    hits = []
    place = torch.arange(max(ks), device=candidates.device)
    everything = torch.arange(len(targets), device=candidates.device)
    for chunk in user_chunks(everything, scorer.num_items, budget=budget):
        user, item = targets.user[chunk], targets.item[chunk].unsqueeze(1)
        scores = scorer.scores(user)
        others = candidates[user]
        theirs, own = scores.gather(1, others.clamp(min=0)), scores.gather(1, item)
        if own.isnan().any():
            raise ValueError("'scorer' returned NaN scores; the model has diverged")
        before = (theirs > own) | ((theirs == own) & (others < item))
        hits.append((before & (others >= 0)).sum(1, keepdim=True) == place)
    found = torch.cat(hits)
    one = torch.ones(len(found), dtype=torch.int64, device=found.device)
    return {f"{m}@{k}": float(f(found, one, k).mean()) for m, f in SAMPLED.items() for k in ks}
