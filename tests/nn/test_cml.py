import pytest
import torch
from torch.autograd import gradcheck

from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.losses import hinge
from ccdgraph.nn import CML, MF
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.objective import BPR, Hinge, ranking
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_backbone
from ccdgraph.train import embed

GRAPH = BipartiteGraph.from_interactions(
    Interactions(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3])), 3, 4
)


def inside(x):
    return x / max(1.0, float(x.norm()))


def test_scores_are_squared_distances_of_points_of_the_ball():
    model = CML(3, 4, 5, std=0.45, generator=rng("cml"))
    out, user, item = embed(model, GRAPH), model.user.detach(), model.item.detach()
    lengths = user.norm(dim=1)
    assert lengths.min() < 1 < lengths.max()
    for u in range(3):
        for i in range(4):
            distance = (inside(user[u]) - inside(item[i])).square().sum()
            assert float(out.scores(torch.tensor([u]))[0, i]) == pytest.approx(
                -float(distance), abs=1e-5
            )


def test_cml_keeps_the_contract():
    check_backbone(CML, moves=())


def test_hinge_by_hand_and_against_a_loop():
    """Margins 1 + 0.5 - 2 < 0 and 1 + 3 - 2 = 2."""
    assert float(hinge(torch.tensor([2.0]), torch.tensor([[0.5, 3.0]]))) == 2.0
    draw = rng("hinge")
    good, bad = torch.randn(5, generator=draw), torch.randn(5, 3, generator=draw)
    pairs = [(float(g), float(b)) for g, row in zip(good, bad, strict=True) for b in row]
    loop = sum(max(0.0, 1 + b - g) for g, b in pairs)
    assert float(hinge(good, bad)) == pytest.approx(loop, rel=1e-5)
    inputs = good.double().requires_grad_(), bad.double().requires_grad_()
    assert gradcheck(hinge, inputs)
    assert float(hinge(torch.tensor([1e3]), torch.tensor([[-1e3]]))) == 0.0
    assert float(hinge(torch.empty(0), torch.empty(0, 2))) == 0.0


def test_hinge_reads_triplets():
    out = Embeddings(torch.tensor([[1.0]]), torch.tensor([[2.0], [0.5], [3.0]]))
    batch = Triplets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]]))
    assert float(Hinge()(out, batch)) == 2.0


def test_a_backbone_says_how_it_learns_from_pairs():
    assert type(ranking(CML(2, 2, 2))) is Hinge and type(ranking(MF(2, 2, 2))) is BPR
