"""Recommending from a run: external ids in, external ids out, without the original data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ccdgraph import checkpoint
from ccdgraph.data import Interactions, UserItems, Vocabulary
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.run.folder import SERVED

Recommended = list[tuple[int | str, float]]  # items with their scores, best first


@dataclass(frozen=True, eq=False)
class Served:
    """What a run serves, in memory, for known and for new users.

    Args:
        tensors: embeddings ``user`` and ``item`` or stored lists, and what users have.
        users: external ids of the users.
        items: external ids of the items.
    """

    tensors: dict[str, Tensor]
    users: Vocabulary
    items: Vocabulary

    @classmethod
    def load(cls, folder: str | Path) -> Served:
        """What the run in ``folder`` serves.

        Raises:
            ValueError: it serves nothing yet.
        """
        stored = Path(folder) / SERVED
        if not checkpoint.exists(stored):
            raise ValueError(
                f"'{folder}' serves nothing; name the folder of a run with a learnt block"
            )
        tensors, meta = checkpoint.load(stored)
        return cls(tensors, Vocabulary(meta["users"]), Vocabulary(meta["items"]))

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings of all users and items.

        Raises:
            ValueError: the strategy serves no embeddings, so that lists are stored.
        """
        if "user" not in self.tensors:
            raise ValueError(
                "the strategy serves no embeddings, only a list for every known user; ask for "
                "those with 'user'"
            )
        return Embeddings(self.tensors["user"], self.tensors["item"])

    @property
    def seen(self) -> UserItems:
        """Items that users have."""
        return UserItems(self.tensors["seen_indptr"], self.tensors["seen_item"], len(self.items))

    def recommend(self, user: int | str, k: int = 20) -> Recommended:
        """The ``k`` best items that a known user does not have yet.

        Raises:
            ValueError: the user is unknown (the message names the closest known id), or ``k`` is
                above the catalogue.
        """
        place = self.users.index(user)
        if "list_item" in self.tensors:
            return self._stored_list(place, k)
        return self._named(*recommend_lists(self.embeddings, torch.tensor([place]), k, self.seen))

    def recommend_new(self, items: Sequence[int | str], k: int = 20) -> Recommended:
        """The ``k`` best other items for a user who is known by ``items`` alone.

        Raises:
            ValueError: an item is unknown, there is none, or ``k`` is above the catalogue.
        """
        place = self._places(items)
        own = Interactions(torch.zeros_like(place), place)
        seen = UserItems.from_interactions([own], 1, len(self.items))
        out = Embeddings(self._mean(place).unsqueeze(0), self.embeddings.item)
        return self._named(*recommend_lists(out, torch.tensor([0]), k, seen))

    def fold_in(self, items: Sequence[int | str]) -> Tensor:
        r"""Embedding of a user who is known by ``items`` alone, ``[D]``.

        .. math:: e_u = \frac{1}{|N_u|} \sum_{i \in N_u} e_i

        The one-hop half of CCD's initialisation (:func:`ccdgraph.continual.growth.grow`), on served
        embeddings; nothing is trained. Repeated items count once.

        Raises:
            ValueError: an item is unknown, or there is none.
        """
        return self._mean(self._places(items))

    def _places(self, items: Sequence[int | str]) -> Tensor:
        if not items:
            raise ValueError("'items' is empty; a new user is known by at least one item")
        place = self.items.codes(list(items))
        if place.min() < 0:
            self.items.index(items[int(place.argmin())])  # says which id is close
        unique: Tensor = torch.from_numpy(place).unique()
        return unique

    def _mean(self, item: Tensor) -> Tensor:
        mean: Tensor = self.embeddings.item[item].mean(0)
        return mean

    def _stored_list(self, user: int, k: int) -> Recommended:
        score, item = (self.tensors[name][user] for name in ("list_score", "list_item"))
        if not 1 <= k <= len(item):
            raise ValueError(
                f"'k' is {k}, expected 1 to {len(item)}: the strategy serves no embeddings, so "
                "lists of that length are stored"
            )
        return self._named(score[None, :k], item[None, :k])

    def _named(self, score: Tensor, item: Tensor) -> Recommended:
        """External ids and scores of a list ``[1, k]``, without its padding."""
        listed = item >= 0
        return list(
            zip(self.items[item[listed].numpy()].tolist(), score[listed].tolist(), strict=True)
        )


def recommend(folder: str | Path, user: int | str, k: int = 20) -> Recommended:
    """The ``k`` best items that a user does not have yet, with their scores, best first.

    Args:
        folder: a run in which at least one block is learnt.
        user: external id.
        k: items asked for; fewer come back when fewer are left.

    Raises:
        ValueError: the folder serves nothing yet, or the user is unknown (the message names the
            closest known id), or ``k`` is above the catalogue.
    """
    return Served.load(folder).recommend(user, k)
