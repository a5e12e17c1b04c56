"""Lists for requests that come again and again in the same size, as a service asks for them."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.capture import own_stream
from ccdgraph.data.interactions import UserItems
from ccdgraph.ranking import Scorer, recommend_lists
from ccdgraph.topk import keyed_topk


class Recommender:
    """:func:`ccdgraph.ranking.recommend_lists` for up to ``batch_size`` users at a time.

    On a CUDA device scores, mask and lists are recorded once, so that an answer is one launch where
    it was some fifty, and several waits between them: what a small batch costs there. A scorer that
    cannot be recorded, and any on a CPU, is asked as it is.

    Args:
        scorer: scores the catalogue; its tensors are read where they are, so it must not change.
        seen: items to leave out, for every user of the scorer and on its device.
        k: length of the lists, at most the size of the catalogue.
        batch_size: most users of a request.
        device: where the scorer is.

    >>> from ccdgraph.nn import Embeddings
    >>> out = Embeddings(torch.ones(1, 1), torch.tensor([[2.0], [4.0], [3.0]]))
    >>> seen = UserItems(torch.tensor([0, 1]), torch.tensor([1]), 3)
    >>> Recommender(out, seen, k=2)(torch.tensor([0]))[1].tolist()
    [[2, 0]]
    """

    def __init__(
        self,
        scorer: Scorer,
        seen: UserItems,
        *,
        k: int = 20,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scorer, self.seen, self.k, self.batch_size = scorer, seen, k, batch_size
        self.user = torch.zeros(batch_size, dtype=torch.int64, device=device)
        recommend_lists(scorer, self.user, k, seen)  # refuses what cannot be, and warms up
        if seen.num_users < scorer.num_users:
            raise ValueError(
                f"'seen' covers {seen.num_users} users, the scorer {scorer.num_users}; give every "
                "user a row"
            )
        self.degree = seen.degree.cpu()
        # Seen entries that a batch of different users can have at most, and who fills it up.
        self.most = int(self.degree.sort(descending=True).values[:batch_size].sum())
        self.filler = self.degree.argmin(0, keepdim=True)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.lists = torch.empty(0)
        if self.user.is_cuda:
            self._record()

    def __call__(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and item ids ``[n, k]`` of users ``[n]``, both on the CPU.

        Raises:
            ValueError: too many users at once, an unknown one, or scores that are NaN.
        """
        if not 0 < len(user) <= self.batch_size:
            raise ValueError(
                f"'user' has {len(user)} entries, expected 1 to {self.batch_size}; cut the request "
                "or raise 'batch_size'"
            )
        full = torch.cat([user.cpu(), self.filler.expand(self.batch_size - len(user))])
        if self.graph is None or not self._fits(full):
            answer = recommend_lists(self.scorer, user.to(self.user.device), self.k, self.seen)
            return answer[0].cpu(), answer[1].cpu()
        self.user.copy_(full, non_blocking=True)
        self.graph.replay()
        bits, item = self.lists.cpu()[:, : len(user)]  # one transfer is one wait
        score, item = bits.view(torch.float32), item.long()
        if score.isnan().any():
            raise ValueError("'scorer' returned NaN scores; the model has diverged")
        return score, item

    def _fits(self, user: Tensor) -> bool:
        """Whether all are known, and the recorded mask has room for what they have seen."""
        known = int(user.min()) >= 0 and int(user.max()) < self.scorer.num_users
        return known and int(self.degree[user].sum()) <= self.most

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), own_stream(self.user.device):
            self._answer()
            try:
                with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                    score, item = self._answer()
                    lists = torch.stack([score.view(torch.int32), item.int()])
            except RuntimeError:
                torch.cuda.synchronize()
                return
        self.graph, self.lists = graph, lists

    def _answer(self) -> tuple[Tensor, Tensor]:
        """The lists of ``self.user`` without a wait for the device."""
        num_items = self.scorer.num_items
        # One row more takes what pads the seen entries.
        own = torch.empty(self.batch_size + 1, num_items, device=self.user.device)
        own[:-1] = self.scorer.scores(self.user)
        row, item = self.seen.padded_entries(self.user, self.most)
        own.view(-1).index_fill_(0, row * num_items + item, float("-inf"))
        score, item = keyed_topk(own[:-1], self.k)
        return score, item.masked_fill(score == float("-inf"), -1)
