"""Every clause of a term's contract has a mutant that breaks it alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.distill.rrd import RRD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities, Pairs, Triplets
from ccdgraph.testing import check_term
from ccdgraph.train import BPR, MultinomialVAE, SoftBCE, Term

USERS, ITEMS, WIDTH = 5, 6, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def graph_of(*pairs: tuple[int, int]) -> BipartiteGraph:
    user, item = torch.tensor(pairs).unbind(1)
    return BipartiteGraph.from_interactions(Interactions(user, item), USERS, ITEMS)


GRAPH = graph_of((0, 0), (0, 2), (1, 0), (1, 1), (2, 2), (2, 3), (3, 3), (3, 0), (4, 5))
TRIPLETS = Triplets(torch.tensor([0, 3, 3]), torch.tensor([2, 0, 3]), torch.tensor([[1], [4], [5]]))


def embeddings(seed: int = 0, *, num_layers: int = 2, latent: int = 0) -> Embeddings:
    layers = tuple(random(USERS + ITEMS, WIDTH, seed=seed + n) for n in range(num_layers))
    posterior = (random(USERS, latent, seed=8), random(USERS, latent, seed=9)) if latent else None
    return Embeddings(
        random(USERS, WIDTH, seed=seed), random(ITEMS, WIDTH, seed=seed + 5), layers, posterior
    )


def test_shipped_losses_keep_the_contract():
    out, label = embeddings(), torch.tensor([1.0, 0.3, 0.0])
    check_term(BPR(), out, TRIPLETS)
    check_term(SoftBCE(), out, Pairs(TRIPLETS.user, TRIPLETS.positive, label))
    vae = embeddings(latent=2)
    check_term(MultinomialVAE(GRAPH), vae, Entities(torch.tensor([4, 0, 2])))


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("num_rest", [0, 3])
def test_ranking_distillation_keeps_the_contract(side, num_rest):
    rows, seen = (USERS, GRAPH.user_items) if side == "user" else (ITEMS, GRAPH.item_users)
    lists = torch.tensor([[4, 3, 1]]).repeat(rows, 1)
    lists[1, 2], lists[2] = -1, -1
    generator = torch.Generator().manual_seed(0)
    term = RRD(lists, seen, side=side, num_rest=num_rest, generator=generator)
    check_term(term, embeddings(), Entities(torch.arange(rows)))


def old_embeddings() -> tuple[Embeddings, list[Tensor]]:
    """A past whose every tensor would learn if it were let."""
    old = embeddings(20)
    tensors = [x.requires_grad_() for x in (old.user, old.item, *old.layers)]
    return old, tensors


@pytest.mark.parametrize("personal", [False, True])
def test_distillation_from_the_past_keeps_the_contract(personal):
    old, tensors = old_embeddings()
    generator = torch.Generator().manual_seed(1)
    weight = PIW(old, num_clusters=2, hidden=4, generator=generator) if personal else None
    term = LWCKD(old, Neighbours.of(GRAPH, mean_degree=2.0), weight=weight)
    check_term(term, embeddings(), TRIPLETS, frozen=tensors)


def test_the_cluster_loss_keeps_the_contract_with_its_target_held_constant():
    old, tensors = old_embeddings()
    weight = PIW(old, num_clusters=2, generator=torch.Generator().manual_seed(1))
    check_term(ClusterLoss(weight, torch.arange(4)), embeddings(), None, frozen=tensors, wrt=())


class Distance(Term):
    """To a teacher's user rows; mutants break one step of it."""

    def __init__(self, teacher: Tensor) -> None:
        super().__init__()
        self.teacher = teacher.detach()

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user - self.teacher).square().mean()


class LeaksToItsTeacher(Distance):
    def __init__(self, teacher: Tensor) -> None:
        super().__init__(teacher)
        self.teacher = teacher


class OneValueAUser(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user - self.teacher).square().mean(1)


class NoGradient(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(out.detach(), batch)


class HalfTheGradient(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(replace(out, user=(out.user + out.user.detach()) / 2), batch)


class Overflows(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user @ out.item.T).exp().sum(1).log().sum()


class MasksAnOverflow(Distance):
    """The value is finite, the gradient of the branch not taken is not."""

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        scores = out.user @ out.item.T
        return torch.where(scores > 30, scores, scores.exp().log1p()).sum()


class WrongParameterGradient(Distance):
    def __init__(self, teacher: Tensor) -> None:
        super().__init__(teacher)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(out, batch) * self.scale * self.scale.detach()


@pytest.mark.parametrize(
    ("mutant", "violation"),
    [
        (LeaksToItsTeacher, "gradient reaches a frozen tensor"),
        (OneValueAUser, r"the loss has shape \(5,\)"),
        (NoGradient, "the loss has no gradient at all"),
        (HalfTheGradient, "the gradient differs from the numerical one"),
        (WrongParameterGradient, "the gradient differs from the numerical one"),
        (Overflows, "the loss is inf at scores of 1e3"),
        (MasksAnOverflow, "a gradient is not finite at scores of 1e3"),
    ],
)
def test_a_broken_term_is_caught(mutant, violation):
    teacher = random(USERS, WIDTH, seed=3).requires_grad_()
    check_term(Distance(teacher), embeddings(), None, frozen=[teacher])
    with pytest.raises(AssertionError, match=violation):
        check_term(mutant(teacher), embeddings(), None, frozen=[teacher])


def test_what_is_treated_as_constant_on_purpose_can_be_left_out():
    teacher = random(USERS, WIDTH, seed=3).requires_grad_()
    check_term(HalfTheGradient(teacher), embeddings(), None, wrt=("item", "layers"))


def test_a_frozen_tensor_that_could_not_be_caught_is_refused():
    with pytest.raises(ValueError, match="'frozen' has a tensor without 'requires_grad'"):
        check_term(BPR(), embeddings(), TRIPLETS, frozen=[torch.zeros(1)])


def test_what_a_term_draws_at_the_start_of_an_epoch_is_there():
    class Draws(Distance):
        epochs: tuple[int, ...] = ()

        def begin_epoch(self, epoch: int) -> None:
            self.epochs = (*self.epochs, epoch)
            self.chosen = torch.tensor([3, 0])

        def forward(self, out: Embeddings, batch: Any) -> Tensor:
            return out.user[self.chosen].square().sum()

    term = Draws(random(USERS, WIDTH))
    check_term(term, embeddings(), None)
    assert term.epochs == (0,)
