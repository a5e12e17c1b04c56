"""Recommending from a run: external ids in, external ids out, without the original data."""

from __future__ import annotations

from pathlib import Path

import torch

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
    out = Embeddings(tensors["user"], tensors["item"])
    seen = UserItems(tensors["seen_indptr"], tensors["seen_item"], out.num_items)
    users, items = Vocabulary(meta["users"]), Vocabulary(meta["items"])
    score, item = recommend_lists(out, torch.tensor([users.index(user)]), k, seen)
    listed = item[0] >= 0
    names = items[item[0][listed].numpy()].tolist()
    return list(zip(names, score[0][listed].tolist(), strict=True))
