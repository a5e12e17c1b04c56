import sys
from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import GraphSAGE

from ccdgraph.config import ConfigError, from_dict, load
from ccdgraph.continual.growth import grow
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import GNN, MF, BackboneConfig, LightGCN, MultVAE
from ccdgraph.train import BPR, SampledSoftmax, ranking

PAIRS = Interactions(torch.tensor([0, 5]), torch.tensor([1, 3]))

OWN = '''
from torch_geometric.nn import GATConv

from ccdgraph.nn import Backbone


class GAT(Backbone):
    """Two attention layers over the user-item graph."""

    def __init__(self, num_users, num_items, dim, *, heads=2, generator=None):
        super().__init__(num_users, num_items, dim, generator=generator)
        self.first = GATConv(dim, dim // heads, heads=heads)

    def propagate(self, x, graph):
        return self.first(x, graph.edge_index)


def not_a_class():
    return GAT


class NotAModule:
    pass
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_backbone.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_backbone", None)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("MF", MF), ("LightGCN", LightGCN), ("MultVAE", MultVAE), ("ccdgraph.nn:MF", MF)],
)
def test_shipped_backbones_have_short_names(name, cls):
    model = BackboneConfig(name, dim=3).build(5, 4)
    assert type(model) is cls and (model.num_users, model.num_items, model.dim) == (5, 4, 3)


def test_a_module_of_pyg_is_adapted():
    config = BackboneConfig("torch_geometric.nn:GraphSAGE", dim=3, options={"num_layers": 2})
    model = config.build(5, 4)
    assert isinstance(model, GNN) and isinstance(model.module, GraphSAGE)


def test_a_backbone_of_ones_own_is_taken_by_its_path(own):
    model = BackboneConfig("own_backbone:GAT", dim=4, options={"heads": 4}).build(5, 4)
    assert type(model).__name__ == "GAT" and model.first.heads == 4
    pair = Interactions(torch.tensor([0]), torch.tensor([3]))
    assert model(BipartiteGraph.from_interactions(pair, 5, 4)).item.shape == (4, 4)


def test_the_generator_decides_the_layers_of_ones_own_backbone_too(own):
    """Fails when its layers draw from the global generator: a resumed run would differ."""
    state, models = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        models.append(BackboneConfig("own_backbone:GAT", dim=4).build(5, 4, generator=generator))
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(1 + seed)  # what else happens between two builds
        state = torch.get_rng_state()
    first, again, other = (model.first.lin.weight for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_options_and_generator_reach_the_class():
    config = BackboneConfig(dim=3, options={"num_layers": 4})
    first, again = (config.build(5, 4, generator=torch.Generator()) for _ in range(2))
    assert first.num_layers == 4 and torch.equal(first.item, again.item)


def test_a_file_names_a_backbone(tmp_path):
    path = tmp_path / "student.toml"
    path.write_text('backbone = "MF"\ndim = 8\n[options]\nstd = 0.5\n', encoding="utf-8")
    config = load(BackboneConfig, path)
    assert config == BackboneConfig("MF", 8, {"std": 0.5})
    assert config.build(400, 4).user.std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("LightGNC", {}, "no 'LightGNC' in module 'ccdgraph.nn'; did you mean 'LightGCN'"),
        ("no_such_module:GAT", {}, "cannot import 'no_such_module'"),
        ("own_backbone:", {}, "'own_backbone:' names no class"),
        ("own_backbone:not_a_class", {}, "is not a class of modules; name a Backbone or a PyG"),
        ("own_backbone:NotAModule", {}, "is not a class of modules; name a Backbone or a PyG"),
        ("MF", {"heads": 2}, "'ccdgraph.nn:MF' cannot be built with {'heads': 2}"),
        ("torch_geometric.nn:GraphSAGE", {}, "cannot be built with {}: .*num_layers"),
    ],
)
def test_what_cannot_be_built_is_refused(own, name, options, message):
    with pytest.raises(ConfigError, match=message):
        BackboneConfig(name, dim=4, options=options).build(5, 4)


@pytest.mark.parametrize("name", ["MF", "LightGCN", "torch_geometric.nn:GraphSAGE"])
def test_the_softmax_is_what_a_backbone_learns_by_where_it_is_asked(name):
    options = {"num_layers": 1} if ":" in name else {}
    plain = BackboneConfig(name, dim=4, options=options)
    asked = replace(plain, loss="softmax", temperature=0.3).build(5, 4)
    term = ranking(asked)
    assert isinstance(term, SampledSoftmax) and term.temperature == 0.3
    assert type(ranking(plain.build(5, 4))) is BPR
    grown = grow(asked, BipartiteGraph.from_interactions(PAIRS, 6, 4))
    assert isinstance(ranking(grown), SampledSoftmax)


@pytest.mark.parametrize("name", ["CML", "NeuMF", "MultVAE"])
def test_the_softmax_is_refused_by_what_has_a_loss_of_its_own(name):
    with pytest.raises(ConfigError, match="cannot learn by 'loss"):
        BackboneConfig(name, dim=4, loss="softmax").build(5, 4)


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigError, match="unknown key 'dims'; did you mean 'dim'"):
        from_dict(BackboneConfig, {"dims": 3})
