"""Small worlds and wrappers that the tests of the distillation methods share."""

import copy

import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term

NUM_USERS, NUM_ITEMS = 6, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(dim: int, seed: int = 0, users: int = NUM_USERS, items: int = NUM_ITEMS):
    draw = generator(seed)
    return Embeddings(
        torch.randn(users, dim, generator=draw), torch.randn(items, dim, generator=draw)
    )


def leaves(out: Embeddings) -> Embeddings:
    """The same values as tensors that could learn, to be caught when they do."""
    return Embeddings(out.user.clone().requires_grad_(), out.item.clone().requires_grad_())


def double(out: Embeddings) -> Embeddings:
    return Embeddings(out.user.double(), out.item.double())


def triplets() -> Triplets:
    """Users that repeat, and an item that is a positive and a negative."""
    return Triplets(
        torch.tensor([0, 3, 3, 5]), torch.tensor([1, 2, 1, 7]), torch.tensor([[4], [1], [6], [4]])
    )


def user_items(pairs, num_users: int = NUM_USERS, num_items: int = NUM_ITEMS) -> UserItems:
    user, item = torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], num_users, num_items)


class SameNoise(Term):
    """A term that draws the same noise in every call, so that numerical gradients exist."""

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.term = term

    def begin_epoch(self, epoch: int) -> None:
        self.term.begin_epoch(epoch)

    def forward(self, out: Embeddings, batch) -> Tensor:
        self.term.generator.manual_seed(11)
        return self.term(out, batch)


def learn(term: Term, student: Embeddings, batch, *, steps: int, lr: float = 0.05) -> Embeddings:
    """The student's tables after ``steps`` of Adam on ``term`` alone; what went in stays."""
    user, item = (x.detach().clone().requires_grad_() for x in (student.user, student.item))
    out, term = Embeddings(user, item), copy.deepcopy(term)
    optimizer = torch.optim.Adam([user, item, *term.parameters()], lr=lr)
    for epoch in range(steps):
        term.begin_epoch(epoch)
        loss = term(out, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return out.detach()


def everyone(users: int = NUM_USERS, items: int = NUM_ITEMS) -> Triplets:
    """A batch in which every user and every item occurs."""
    n = max(users, items)
    user, item = torch.arange(n) % users, torch.arange(n) % items
    return Triplets(user, item, item.flip(0).unsqueeze(1))


def similarity(student: Tensor, teacher: Tensor) -> float:
    """Correlation of the two cosine matrices off the diagonal."""
    unit = [torch.nn.functional.normalize(x.double()) for x in (student, teacher)]
    off = ~torch.eye(len(student), dtype=torch.bool)
    pair = torch.stack([(x @ x.T)[off] for x in unit])
    return float(torch.corrcoef(pair)[0, 1])
