"""NeuMF: its forward pass by hand, and every method on a network that is an inner product."""

import pytest
import torch

from ccdgraph.config import ConfigError
from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.data import Interactions
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import (
    CD,
    DE,
    FTD,
    IRRRD,
    RD,
    RRD,
    HetComp,
    Trajectories,
    observed_lists,
    teacher_lists,
)
from ccdgraph.nn import BackboneConfig, Embeddings, NeuMF, pair
from ccdgraph.nn.pair import PairNetwork
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Entities, Triplets

USERS, ITEMS, DIM = 12, 9, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def graph() -> BipartiteGraph:
    user = torch.arange(USERS).repeat(2)
    pairs = Interactions(user, torch.randint(ITEMS, user.shape, generator=generator()))
    return BipartiteGraph.from_interactions(pairs, USERS, ITEMS)


def model_of(seed: int = 0) -> NeuMF:
    """Every parameter random, the biases too."""
    model, draw = NeuMF(USERS, ITEMS, DIM, generator=generator(seed)), generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return model


@torch.no_grad()
def score(model: NeuMF, user: int, item: int) -> float:
    """The equation, one number at a time."""
    half = DIM // 2
    p, m = model.user[user, :half], model.user[user, half:]
    q, n = model.item[item, :half], model.item[item, half:]
    hidden = [
        max(0.0, float(a @ m + b @ n + c))
        for a, b, c in zip(model.of_user, model.of_item, model.biases[0], strict=True)
    ]
    for weight, bias in zip(model.weights, model.biases[1:], strict=True):
        hidden = [
            max(0.0, sum(float(w) * h for w, h in zip(row, hidden, strict=True)) + float(b))
            for row, b in zip(weight, bias, strict=True)
        ]
    total = sum(float(w * a * b) for w, a, b in zip(model.last[:half], p, q, strict=True))
    return total + sum(float(w) * h for w, h in zip(model.last[half:], hidden, strict=True))


def test_scores_equal_the_equation_pair_by_pair():
    model = model_of()
    out = model(graph()).detach()
    expected = torch.tensor([[score(model, u, i) for i in range(ITEMS)] for u in range(USERS)])
    user, item = torch.arange(USERS), torch.arange(ITEMS)
    torch.testing.assert_close(out.scores(user), expected, rtol=1e-4, atol=1e-4)
    pairs = out.pairs(user.unsqueeze(1), item)
    torch.testing.assert_close(pairs, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.flipped().scores(item), expected.T, rtol=1e-4, atol=1e-4)


def test_a_catalogue_is_scored_in_pieces_with_the_same_gradient(monkeypatch):
    model, weight = model_of(), torch.randn(USERS, ITEMS, generator=generator())
    found = []
    for chunk in (2**20, 1):
        monkeypatch.setattr(pair, "_CHUNK", chunk)
        loss = (model(graph()).scores(torch.arange(USERS)) * weight).sum()
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_the_numerical_one():
    network = model_of().double().network().map(lambda x: x.detach().requires_grad_())
    draw = generator(3)
    rows = [torch.randn(n, DIM, generator=draw, dtype=torch.float64) for n in (4, 3)]
    named = network.tensors()
    given = [x.requires_grad_() for x in (*rows, *named.values())]

    def scores(user, item, *weights):
        own = PairNetwork.of(dict(zip(named, weights, strict=True)))
        return own.block(user, item), own(user.unsqueeze(1), item)

    assert torch.autograd.gradcheck(scores, given)


def as_inner_product(out: Embeddings) -> tuple[Embeddings, Embeddings]:
    """A network that only multiplies the first halves, and those halves as plain embeddings."""
    half = DIM // 2
    last = torch.cat([torch.ones(half), torch.zeros(len(out.network.last) - half)])
    network = PairNetwork(
        out.network.user, out.network.item, out.network.bias, out.network.layers, last
    )
    user, item = (x.detach().requires_grad_() for x in (out.user, out.item))
    plain = Embeddings(user[:, :half], item[:, :half])
    return Embeddings(user, item, network=network), plain


def terms():
    own = graph()
    seen, draw = own.user_items, generator(5)
    teacher = Embeddings(*(torch.randn(n, 4, generator=draw) for n in (USERS, ITEMS)))
    value, listed = recommend_lists(teacher, torch.arange(USERS), 4, seen)
    both = teacher_lists(teacher, seen, k=4)
    path = Trajectories.of([[teacher, teacher]], seen, k=4)
    return {
        "RRD": RRD(listed, seen),
        "RRD drawn": RRD(listed, seen, num_rest=8, generator=draw),
        "RRD items": RRD(both.users, own.item_users, side="item"),
        "IRRRD": IRRRD(both, seen, k=3, k_users=2, generator=draw),
        "RD": RD(listed, seen, k=4, start=0, num_samples=5, generator=draw),
        "CD": CD(listed, value, seen, k=3, generator=draw),
        "HetComp": HetComp(path, observed_lists(teacher, seen, k=3), seen, k=4, compared=3),
    }


@pytest.mark.parametrize("name", terms())
def test_a_term_reads_scores_wherever_they_come_from(name):
    """Fails where a term multiplies the embeddings itself."""
    term, out = terms()[name].eval(), model_of()(graph()).detach()
    network, plain = as_inner_product(out)
    user = torch.tensor([0, 3, 3, 5])
    batch = Triplets(user, user, user.unsqueeze(1) + 1)
    if name.startswith("RRD"):
        batch = Entities(torch.tensor([0, 3, 5]))
    term.begin_epoch(0)
    losses = [term(one, batch) for one in (network, plain)]
    torch.testing.assert_close(*losses)
    ours, theirs = (
        torch.autograd.grad(loss, [one.user, one.item])
        for loss, one in zip(losses, (network, plain), strict=True)
    )
    for grad, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(grad[:, : DIM // 2], wanted, rtol=1e-4, atol=1e-5)


def test_methods_that_need_inner_products_refuse_it_in_one_sentence():
    out = model_of()(graph())
    teacher = Embeddings(torch.randn(USERS, 4), torch.randn(ITEMS, 4))
    user = torch.tensor([0, 1])
    batch = Triplets(user, user, user.unsqueeze(1))
    for term in (DE(teacher, DIM, generator=generator()), FTD(teacher)):
        with pytest.raises(ValueError, match="score by inner products, but the student scores"):
            term(out, batch)
    with pytest.raises(ValueError, match="moving averages of embeddings; take another student"):
        CCD(CCDConfig(student=BackboneConfig("NeuMF", 8)))


def test_ccd_takes_it_as_a_teacher():
    small = (BackboneConfig("NeuMF", 6), BackboneConfig("ItemMultVAE", 4), BackboneConfig("MF", 4))
    learner = CCD(CCDConfig(student=BackboneConfig("MF", 4), teachers=small))
    stream = synthetic_stream(40, 30, 900, num_blocks=2)
    for block in stream:
        learner.update(block)
    scores = learner.ensemble().scores(torch.arange(3))
    assert scores.isfinite().all() and learner.teachers[0].num_items == stream[1].num_items


def test_a_width_that_cannot_be_halved_is_refused():
    with pytest.raises((ValueError, ConfigError), match="halves an even 'dim'"):
        BackboneConfig("NeuMF", 7).build(3, 3)
