"""What holds for every method: it trains every backbone through ``fit`` and stays sparse."""

from functools import partial

import pytest
import torch
from planted import embeddings, generator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import (
    CD,
    DE,
    FTD,
    HTD,
    IRRRD,
    PHR,
    RD,
    ConCF,
    HetComp,
    Regression,
    Trajectories,
    concf,
    heads,
    hetcomp,
    observed_lists,
    teacher_lists,
)
from ccdgraph.nn import BackboneConfig
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import TripletBatches, Triplets
from ccdgraph.train import BPR, FitConfig, Objective, Part, Term, embed, fit

DIM, TEACHER_DIM = 8, 12
METHODS = ["DE", "Regression", "FTD", "HTD", "PHR", "IRRRD", "RD", "CD", "ConCF", "HetComp"]
BACKBONES = {
    "MF": BackboneConfig("MF", DIM),
    "LightGCN": BackboneConfig("LightGCN", DIM),
    "GraphSAGE": BackboneConfig(
        "torch_geometric.nn:GraphSAGE", DIM, {"hidden_channels": DIM, "num_layers": 1}
    ),
    "MultVAE": BackboneConfig("MultVAE", DIM - 1),  # serves a column of ones as well
}


def graph_of(num_users: int, num_items: int, num_interactions: int) -> BipartiteGraph:
    block = synthetic_stream(num_users, num_items, num_interactions, num_blocks=1, base=0.9)[0]
    return BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)


def make(name: str, graph: BipartiteGraph) -> Term:
    """A method with small settings, and a teacher of random embeddings."""
    seen, draw = graph.user_items, generator(3)
    teacher = embeddings(TEACHER_DIM, 1, graph.num_users, graph.num_items)
    score, listed = recommend_lists(teacher, torch.arange(graph.num_users), 20, seen)
    both = teacher_lists(teacher, seen, k=20)
    if name == "HetComp":
        steps = [embeddings(4, s, graph.num_users, graph.num_items) for s in range(2)]
        path = Trajectories.of([[*steps, teacher]], seen, k=20)
        return HetComp(path, observed_lists(teacher, seen), seen, k=20, compared=10, every=1)
    return {
        "DE": lambda: DE(teacher, DIM, num_experts=3, generator=draw),
        "Regression": lambda: Regression(teacher, DIM, generator=draw),
        "FTD": lambda: FTD(teacher),
        "HTD": lambda: HTD(teacher, DIM, num_groups=3, generator=draw),
        "PHR": lambda: PHR(teacher, DIM, seen=seen, generator=draw),
        "IRRRD": lambda: IRRRD(both, seen, k=10, k_users=5, generator=draw),
        "RD": lambda: RD(listed, seen, start=1, num_samples=20, generator=draw),
        "CD": lambda: CD(listed, score, seen, k=10, generator=draw),
        "ConCF": lambda: ConCF(seen, DIM, every=1, start=1, k=10, depth=20, generator=draw),
    }[name]()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_every_backbone(name, backbone):
    graph = graph_of(60, 50, 700)
    term, start = make(name, graph), generator(4)
    model = BACKBONES[backbone].build(graph.num_users, graph.num_items, generator=start)
    before, own = embed(model, graph), [p.detach().clone() for p in term.parameters()]
    batches = TripletBatches(
        synthetic_stream(60, 50, 700, num_blocks=1, base=0.9)[0].train,
        graph.num_items,
        graph.user_items.keys(),
        batch_size=128,
        generator=generator(5),
    )
    objective = Objective((Part(BPR(), batches), Part(term, None, 0.01)))
    result = fit(model, graph, [objective], FitConfig(epochs=4, lr=1e-2))
    after = embed(model, graph)
    assert after.user.shape[1] == DIM and after.user.isfinite().all()
    assert not torch.equal(before.item, after.item) and len(result.loss) == 4
    assert all(not torch.equal(a, b) for a, b in zip(own, term.parameters(), strict=True))


class Largest(TorchDispatchMode):
    """The most elements that anything made under it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor) and x.layout == torch.strided:
                self.size = max(self.size, x.untyped_storage().nbytes() // x.element_size())
        return made


@pytest.mark.parametrize("name", METHODS)
def test_no_method_makes_a_matrix_of_users_by_items(name, monkeypatch):
    """Three epochs, so that looks and constructions are among what is measured."""
    graph = graph_of(1500, 1300, 6000)
    small = partial(recommend_lists, budget=2**20)
    monkeypatch.setattr(concf, "recommend_lists", small)
    monkeypatch.setattr(hetcomp, "recommend_lists", small)
    monkeypatch.setattr(heads, "_CHUNK", 2**16)
    term = make(name, graph)
    model = BACKBONES["MF"].build(graph.num_users, graph.num_items, generator=generator(4))
    user, item = torch.arange(32), torch.arange(32) * 3
    out, batch = model(graph), Triplets(user, item, item.unsqueeze(1) + 1)
    with Largest() as largest:
        for epoch in range(4):
            term.begin_epoch(epoch)
            term(out, batch).backward(retain_graph=True)
    assert largest.size < graph.num_users * graph.num_items / 2
