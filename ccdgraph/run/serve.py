"""Recommending from a run: external ids in, external ids out, without the original data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ccdgraph import checkpoint
from ccdgraph.data import UserItems, Vocabulary
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.run.folder import SERVED


def recommend(folder: str | Path, user: int | str, k: int = 20) -> list[tuple[int | str, float]]:
    """The ``k`` best items that a user does not have yet, with their scores, best first.

    Args:
        folder: a run in which at least one block is learnt.
        user: external id.
        k: items asked for; fewer come back when fewer are left.

    Raises:
        ValueError: the folder serves nothing yet, or the user is unknown (the message names the
            closest known id), or ``k`` is above the catalogue.
    """
    served = Path(folder) / SERVED
    if not checkpoint.exists(served):
        raise ValueError(f"'{folder}' serves nothing; name the folder of a run with a learnt block")
    tensors, meta = checkpoint.load(served)
    users, items = Vocabulary(meta["users"]), Vocabulary(meta["items"])
    score, item = _listed(tensors, users.index(user), k, len(items))
    names = items[item[item >= 0].numpy()].tolist()
    return list(zip(names, score[item >= 0].tolist(), strict=True))


def _listed(tensors: dict[str, Tensor], user: int, k: int, num_items: int) -> tuple[Tensor, Tensor]:
    """Scores and items of one user, ``[k]`` each."""
    if "list_item" in tensors:
        depth = tensors["list_item"].size(1)
        if not 1 <= k <= depth:
            raise ValueError(
                f"'k' is {k}, expected 1 to {depth}: the strategy serves no embeddings, so lists "
                "of that length are stored"
            )
        return tensors["list_score"][user, :k], tensors["list_item"][user, :k]
    out = Embeddings(tensors["user"], tensors["item"])
    seen = UserItems(tensors["seen_indptr"], tensors["seen_item"], num_items)
    score, item = recommend_lists(out, torch.tensor([user]), k, seen)
    return score[0], item[0]
