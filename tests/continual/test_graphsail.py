import math

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual import FineTune, FineTuneConfig, GraphSAIL, GraphSAILConfig
from ccdgraph.continual.graphsail import GlobalStructure, LocalStructure, SelfInformation
from ccdgraph.continual.kmeans import kmeans
from ccdgraph.continual.piw import PIW
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term
from ccdgraph.train import Term

KINDS = ("self", "local", "global")
OFF = {"weight_self": 0.0, "weight_local": 0.0, "weight_global": 0.0}


@every_setting
@pytest.mark.parametrize("personal", [False, True])
def test_keeps_the_contract(settings, personal):
    options = {"personal": personal, "num_clusters": 5, "interests": 4}
    check(lambda c: GraphSAIL(GraphSAILConfig(**c, **options), seed=3), settings)


# Four old users and items, of which user 3 and item 3 have no edge; user 4 and item 4 are new.
BEFORE = BipartiteGraph.from_interactions(
    Interactions(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 0])), 4, 4
)
NOW = UserItems.from_interactions(
    [Interactions(torch.tensor([0, 2, 2, 4, 3]), torch.tensor([1, 3, 0, 4, 0]))], 5, 6
)
BATCH = Triplets(torch.tensor([0, 2, 4, 2, 3]), torch.tensor([1, 3, 4, 0, 0]), torch.zeros(5, 1))


def random_out(num_users: int, num_items: int, seed: int) -> Embeddings:
    generator, options = rng("graphsail", seed), {"dtype": torch.float64}
    sizes = (num_users, num_items)
    return Embeddings(*(torch.randn(n, 3, generator=generator, **options) for n in sizes))


OLD, OUT = random_out(4, 4, 0), random_out(5, 6, 1)


def global_term(old: Embeddings = OLD, **options) -> GlobalStructure:
    return GlobalStructure(old, 2, temperature=0.6, generator=rng("clusters"), **options)


def test_self_information_equals_the_equation_by_hand():
    """Users: 2/1, 1/0, 2/2, 0/1 items before and now; items: 2/2, 2/1, 1/0, 0/1 users."""
    by_user, by_item = [2.0, 0.0, 1.0, 0.0], [1.0, 2.0, 0.0, 0.0]
    norm = math.sqrt(5)
    expected = 0.0
    for u in (0, 2, 2, 3):
        expected += (
            by_user[u]
            / norm
            * sum((a - b) ** 2 for a, b in zip(OUT.user[u], OLD.user[u], strict=True))
        )
    for i in (1, 3, 0, 0):
        expected += (
            by_item[i]
            / norm
            * sum((a - b) ** 2 for a, b in zip(OUT.item[i], OLD.item[i], strict=True))
        )
    assert float(SelfInformation(OLD, BEFORE, NOW)(OUT, BATCH)) == pytest.approx(float(expected))


def naive_local(user: int | None, item: int | None) -> float:
    pairs = list(zip(BEFORE.user.tolist(), BEFORE.item.tolist(), strict=True))
    if user is not None:
        near = [i for u, i in pairs if u == user]
        fits = [sum(float(e.user[user] @ e.item[i]) for i in near) for e in (OUT, OLD)]
    else:
        near = [u for u, i in pairs if i == item]
        fits = [sum(float(e.item[item] @ e.user[u]) for u in near) for e in (OUT, OLD)]
    return ((fits[0] - fits[1]) / max(len(near), 1)) ** 2


def test_local_structure_equals_a_loop_over_the_equation():
    expected = sum(naive_local(u, None) for u in (0, 2, 2, 3)) / 4
    expected += sum(naive_local(None, i) for i in (1, 3, 0, 0)) / 4
    assert float(LocalStructure(OLD, BEFORE)(OUT, BATCH)) == pytest.approx(expected)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def test_global_structure_equals_a_loop_over_the_equation():
    """KL of the new from the old, with anchors that are means of current members."""
    draws = rng("clusters")
    clusters = [kmeans(table, 2, generator=draws)[1] for table in (OLD.user, OLD.item)]

    def anchors(out: Embeddings) -> list[list[Tensor]]:
        tables = (out.user[:4], out.item[:4])
        return [
            [table[cluster == k].mean(0) for k in range(2)]
            for table, cluster in zip(tables, clusters, strict=True)
        ]

    def divergence(new: Tensor, old: Tensor) -> float:
        total = 0.0
        for now, then in zip(anchors(OUT), anchors(OLD), strict=True):
            p = softmax([float(new @ a) / 0.6 for a in now])
            q = softmax([float(old @ a) / 0.6 for a in then])
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return total

    expected = sum(divergence(OUT.user[u], OLD.user[u]) for u in (0, 2, 2, 3)) / 4
    expected += sum(divergence(OUT.item[i], OLD.item[i]) for i in (1, 3, 0, 0)) / 4
    assert float(global_term()(OUT, BATCH)) == pytest.approx(expected)


def terms(old: Embeddings, piw: PIW | None = None) -> dict[str, Term]:
    return {
        "self": SelfInformation(old, BEFORE, NOW, piw),
        "local": LocalStructure(old, BEFORE, piw),
        "global": global_term(old, weight=piw),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_personal_weights_multiply_the_loss_of_each_user(kind):
    """Item 5 is new, so users alone count."""
    piw = PIW(OLD, num_clusters=3, generator=rng("piw")).double()
    user = torch.tensor([0, 2, 2, 3])
    plain, item, expected = terms(OLD)[kind], torch.tensor([5]), 0.0
    for u, weight in zip(user, piw(OUT, user).detach(), strict=True):
        expected += float(weight * plain(OUT, Triplets(u.view(1), item, item.view(1, 1))))
    batch = Triplets(user, item.repeat(4), item.repeat(4, 1))
    loss = float(terms(OLD, piw)[kind](OUT, batch).detach())
    assert loss == pytest.approx(expected / (1 if kind == "self" else 4))


def single(out: Embeddings, *, frozen: bool = False) -> Embeddings:
    return Embeddings(*(x.detach().float().requires_grad_(frozen) for x in (out.user, out.item)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("personal", [False, True])
def test_each_is_a_term(kind, personal):
    old = single(OLD, frozen=True)
    piw = PIW(old, num_clusters=3, generator=rng("piw")) if personal else None
    check_term(terms(old, piw)[kind], single(OUT), BATCH, frozen=[old.user, old.item])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_stays_costs_nothing_and_new_entities_are_free(kind):
    term = terms(OLD)[kind]
    grown = Embeddings(torch.cat([OLD.user, OUT.user[4:]]), torch.cat([OLD.item, OUT.item[4:]]))
    assert float(term(grown, BATCH)) == pytest.approx(0.0, abs=1e-12)
    fresh = Triplets(torch.tensor([4]), torch.tensor([5]), torch.zeros(1, 1))
    assert float(term(OUT, fresh)) == 0.0


def test_clusters_by_hand_and_empty_ones():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    centre, cluster = kmeans(points, 2, rounds=20, generator=rng("k"))
    assert sorted(centre.flatten().tolist()) == [0.5, 11.0]
    assert cluster.bincount().sort().values.tolist() == [2, 3]
    same, cluster = kmeans(torch.zeros(4, 2), 3, generator=rng("k"))
    assert same.shape == (3, 2) and cluster.tolist() == [0, 0, 0, 0]
    assert kmeans(points, 50, generator=rng("k"))[0].shape == (5, 1)


def test_all_terms_off_is_fine_tuning():
    silent = learn(GraphSAIL(GraphSAILConfig(**OFF, personal=True, **SMALL)), small())
    plain = learn(FineTune(FineTuneConfig(**SMALL)), small())
    assert torch.equal(silent.served.item, plain.served.item)


@pytest.mark.parametrize(
    "weights", [{}, {"weight_self": 10.0}, {"weight_local": 1e4}, {"weight_global": 300.0}]
)
def test_keeps_what_fine_tuning_forgets(weights):
    """All terms together, and each of them alone; mutation: no term."""
    options = {"num_clusters": 10} | (OFF | weights if weights else {})
    (kept,) = recall(GraphSAIL(GraphSAILConfig(**LEARNING, **options)), planted(), 0)
    (lost,) = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    assert kept > lost + 0.25


def test_still_learns_the_new():
    """Mutation: weights so large that the model stays as it was, recall below .3."""
    (new,) = recall(GraphSAIL(GraphSAILConfig(num_clusters=10, **LEARNING)), planted(), 2)
    assert new > 0.4
