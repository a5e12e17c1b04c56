from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ccdgraph.continual import grow
from ccdgraph.data import Interactions, Vocabulary
from ccdgraph.data.features import read_features
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn import BackboneConfig, ContentLightGCN, LightGCN
from ccdgraph.testing import check_backbone
from ccdgraph.train import BPR, embed

DRAW = torch.Generator().manual_seed(0)
FEATURES = torch.randn(12, 3, generator=DRAW)
USER = torch.tensor([0, 0, 1, 2, 3, 3, 4, 0])
ITEM = torch.tensor([0, 1, 1, 2, 3, 0, 5, 6])


def graph(num_users: int = 6, num_items: int = 8) -> BipartiteGraph:
    return BipartiteGraph.from_interactions(Interactions(USER, ITEM), num_users, num_items)


def model(**options) -> ContentLightGCN:
    made = ContentLightGCN(6, 8, 4, item_features=FEATURES, std=1.0, **options)
    with torch.no_grad():
        made.gate["item"].copy_(torch.tensor([0.3, 0.7]))
    return made


def test_forward_equals_the_formula():
    """A gate on the wrong degree, or of the users, fails."""
    made, edges, rows = model(), graph(), []
    for item in range(8):
        degree = sum(other == item for other in ITEM.tolist())
        gate = torch.sigmoid(0.3 - 0.7 * torch.log(torch.tensor(1.0 + degree)))
        rows.append(made.item[item] + gate * (made.project["item"].T @ FEATURES[item]))
    plain = LightGCN(6, 8, 4)
    plain.user, plain.item = nn.Parameter(made.user.detach()), nn.Parameter(torch.stack(rows))
    out, expected = made(edges), plain(edges)
    torch.testing.assert_close(out.user, expected.user)
    torch.testing.assert_close(out.item, expected.item)


def test_contract():
    """Features by id would tell permuted entities apart, so all items have the same."""

    def build(num_users, num_items, dim, *, generator=None):
        same = torch.ones(num_items + 50, 3)
        return ContentLightGCN(num_users, num_items, dim, item_features=same, generator=generator)

    check_backbone(build)


def test_the_gradient_reaches_projection_and_gate():
    made = model()
    batch = type("Batch", (), {"user": USER, "positive": ITEM, "negative": ITEM.flip(0)[:, None]})
    BPR()(made(graph()), batch).backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def test_a_new_item_without_known_neighbour_starts_from_similar_items():
    """Item 8 has a known user; items 9 and 10 have none and look like items 2 and 5."""
    features = FEATURES.clone()
    features[9], features[10] = 3 * features[2], 0.5 * features[5]
    made = ContentLightGCN(6, 8, 4, item_features=features, similar=1, std=1.0)
    plain = LightGCN(6, 8, 4, std=1.0)
    plain.load_state_dict({"user": made.user, "item": made.item})
    arrived = Interactions(torch.tensor([0, 6, 6]), torch.tensor([8, 9, 10]))
    edges = graph().grow(arrived, 7, 11)
    grown, other = grow(made, edges, topk=3), grow(plain, edges, topk=3)
    assert torch.equal(grown.item[:8], made.item) and torch.equal(grown.item[8], other.item[8])
    torch.testing.assert_close(grown.item[9:], made.item[[2, 5]])
    assert torch.equal(grown.user, other.user)  # users have no features
    assert embed(grown, edges).num_items == 11


def test_too_few_rows_are_refused():
    made = ContentLightGCN(6, 8, 4, item_features=FEATURES[:7])
    with pytest.raises(ValueError, match="'item_features' has 7 rows, the stream 8 items"):
        made(graph())
    made = ContentLightGCN(6, 8, 4, item_features=FEATURES[:8])
    rows = Interactions(torch.tensor([6]), torch.tensor([8]))
    with pytest.raises(ValueError, match="'item_features' has 8 rows, the stream 9 items"):
        grow(made, BipartiteGraph.from_interactions(rows, 7, 9))
    with pytest.raises(ValueError, match="pass one or both"):
        ContentLightGCN(6, 8, 4)


def write(kind: str, folder):
    path, values = folder / f"features.{kind}", FEATURES.numpy()
    if kind == "npy":
        np.save(path, values)
    elif kind == "safetensors":
        save_file({"features": FEATURES}, path)
    else:
        pd.DataFrame(values, columns=["a", "b", "c"]).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["npy", "parquet", "safetensors"])
def test_files_hold_the_same_matrix_and_a_configuration_names_them(kind, tmp_path):
    path = write(kind, tmp_path)
    assert torch.equal(read_features(path), FEATURES)
    config = BackboneConfig("ContentLightGCN", 4, {"item_features": str(path)})
    built = partial(config.build, 6, 8)
    first, second = (built(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.item_features, FEATURES)
    assert {"user", "item", "project.item", "gate.item"} == set(first.state_dict())
    assert torch.equal(first.project["item"], second.project["item"])


def test_parquet_with_external_ids_follows_the_vocabulary(tmp_path):
    table = pd.DataFrame({"id": ["b", "a", "z"], "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]})
    path = tmp_path / "features.parquet"
    table.to_parquet(path)
    found = read_features(path, Vocabulary(["a", "b", "c"]))
    assert found.tolist() == [[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="pass the 'vocabulary'"):
        read_features(path)
    pd.concat([table, table]).to_parquet(path)
    with pytest.raises(ValueError, match="has id 'b' twice"):
        read_features(path, Vocabulary(["a"]))


def test_bad_files_are_refused_and_named(tmp_path):
    for name, message in (("x.csv", "is none of .npy"), ("x.npy", "is missing")):
        with pytest.raises(ValueError, match=message):
            read_features(tmp_path / name)
    np.save(tmp_path / "nan.npy", np.array([[np.nan]]))
    np.save(tmp_path / "flat.npy", np.ones(3))
    for name in ("nan", "flat"):
        with pytest.raises(ValueError, match=r"expected finite numbers \[N, M\]"):
            read_features(tmp_path / f"{name}.npy")
    save_file({"other": FEATURES}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    for name in ("other.safetensors", "cut.safetensors", "cut.parquet"):
        with pytest.raises(ValueError, match="holds no matrix of features"):
            read_features(tmp_path / name)
