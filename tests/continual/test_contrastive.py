import math

import pytest
import torch
from small_learner import (
    LEARNING,
    SETTINGS,
    SMALL,
    check,
    learn,
    planted,
    ranking_settings,
    recall,
    small,
)

from ccdgraph.config import rng
from ccdgraph.continual import Contrastive, ContrastiveConfig, FineTune, FineTuneConfig
from ccdgraph.continual import contrastive as module
from ccdgraph.continual.contrastive import Served, edges, served_layer
from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term

FORMS = ("sgct", "mgct", "lwc-kd")


@ranking_settings
@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_keeps_the_contract(settings, form, personal):
    options = {"form": form, "personal": personal, "mean_degree": 4.0, "num_clusters": 4}
    check(lambda c: Contrastive(ContrastiveConfig(**c, **options), seed=3), settings)


def test_keeps_the_contract_with_a_variational_model():
    options = {"form": "mgct", "mean_degree": 4.0}
    check(lambda c: Contrastive(ContrastiveConfig(**c, **options)), SETTINGS[2])


def test_a_model_without_layers_is_refused_where_layers_count():
    learner = Contrastive(ContrastiveConfig(**SMALL | SETTINGS[2]))
    learner.update(small()[0])
    with pytest.raises(ValueError, match=r"MultVAE has no layers; take 'mgct'"):
        learner.update(small()[1])


def random_out(num_users: int, num_items: int, seed: int) -> Embeddings:
    generator = rng("contrastive", seed)
    layers = [
        torch.randn(num_users + num_items, 3, generator=generator, dtype=torch.float64)
        for _ in range(3)
    ]
    return Embeddings(*layers[2].split([num_users, num_items]), tuple(layers[:2]))


GRAPH = BipartiteGraph.from_interactions(
    Interactions(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 0])), 4, 4
)
BATCH = Triplets(torch.tensor([0, 2, 4, 2]), torch.tensor([1, 3, 4, 0]), torch.zeros(4, 1).long())


def sgct() -> tuple[Served, Embeddings, Embeddings]:
    old, out = random_out(4, 4, 0), random_out(5, 6, 1)
    return Served(LWCKD(served_layer(old), edges(GRAPH), temperature=0.7)), old, out


def test_sgct_equals_a_loop_over_the_equation():
    """Frozen anchors, current neighbours; user 4 and item 4 are new, item 3 has no neighbour."""
    term, old, out = sgct()
    pairs = set(zip(GRAPH.user.tolist(), GRAPH.item.tolist(), strict=True))

    def contrast(anchor, entities, near) -> float:
        score = [float(anchor @ h) / 0.7 for h in entities]
        partition = math.log(sum(math.exp(s) for s in score))
        return partition - sum(score[n] for n in near) / len(near)

    by_user = [
        contrast(old.user[u], out.item[:4], [i for i in range(4) if (u, i) in pairs])
        for u in (0, 2, 2)
    ]
    by_item = [
        contrast(old.item[i], out.user[:4], [u for u in range(4) if (u, i) in pairs])
        for i in (1, 0)
    ]
    expected = sum(by_user) / 3 + sum(by_item) / 2
    assert float(term(out, BATCH)) == pytest.approx(expected)


def test_sgct_is_a_term():
    old = random_out(4, 4, 0)
    frozen = [old.user.float().requires_grad_(), old.item.float().requires_grad_()]
    past = served_layer(Embeddings(*frozen))
    term = Served(LWCKD(past, edges(GRAPH)))
    out = Embeddings(*(x.float() for x in (random_out(5, 6, 1).user, random_out(5, 6, 1).item)))
    check_term(term, out, BATCH, frozen=frozen)


def test_mgct_and_lwckd_are_one_where_there_is_one_layer():
    """Matrix factorisation has one; SGCT is another thing, and so is LWC-KD with LightGCN."""
    for settings, same in ((SETTINGS[1], True), (SETTINGS[0], False)):
        served = {
            form: learn(
                Contrastive(ContrastiveConfig(form=form, **SMALL | settings)), small()
            ).served.user
            for form in FORMS
        }
        assert torch.allclose(served["mgct"], served["lwc-kd"]) == same
        assert not torch.allclose(served["sgct"], served["mgct"])


def test_nothing_is_left_of_it_at_a_weight_of_nought():
    silent = learn(Contrastive(ContrastiveConfig(weight=0.0, **SMALL)), small())
    plain = learn(FineTune(FineTuneConfig(**SMALL)), small())
    assert torch.allclose(silent.served.item, plain.served.item, atol=1e-6)


def test_personal_weights_take_part():
    """Mutation: the weights broadcast to a constant, or never reach the term."""
    plain, personal = (
        learn(Contrastive(ContrastiveConfig(personal=p, **LEARNING)), planted()).served.user
        for p in (False, True)
    )
    assert not torch.allclose(plain, personal, atol=0.05)


@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_keeps_what_fine_tuning_forgets(form, personal, monkeypatch):
    """Mutations: no contrast; and old neighbours that are those of other entities."""
    options = {"form": form, "personal": personal}

    def base() -> float:
        return recall(Contrastive(ContrastiveConfig(**LEARNING, **options)), planted(), 0)[0]

    kept, (lost,) = base(), recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    assert kept > lost + 0.25
    if form == "sgct" and not personal:

        def wrong(graph):
            order = torch.randperm(len(graph.item), generator=rng("wrong"))
            pairs = Interactions(graph.user, graph.item[order])
            sizes = (graph.num_users, graph.num_items)
            return edges(BipartiteGraph.from_interactions(pairs, *sizes))

        monkeypatch.setattr(module, "edges", wrong)
        assert kept > base() + 0.2
