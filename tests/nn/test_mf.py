import torch

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import MF


def test_the_tables_are_served_as_they_are_on_any_graph():
    model = MF(3, 2, 4, generator=torch.Generator())
    for user in (0, 2):
        edge = Interactions(torch.tensor([user]), torch.tensor([1]))
        out = model(BipartiteGraph.from_interactions(edge, 3, 2))
        assert torch.equal(out.user, model.user) and torch.equal(out.item, model.item)
    expected = model.user[[1]] @ model.item.T
    torch.testing.assert_close(out.scores(torch.tensor([1])), expected)
