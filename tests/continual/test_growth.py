import pytest
import torch
from torch import Tensor

from ccdgraph.continual.growth import grow
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import MF, ItemMultVAE, LightGCN, MultVAE

Pairs = set[tuple[int, int]]


def graph_of(pairs: Pairs, num_users: int, num_items: int) -> BipartiteGraph:
    user, item = torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).unbind(1)
    return BipartiteGraph.from_interactions(Interactions(user, item), num_users, num_items)


def random_pairs(seed: int, num_users: int, num_items: int, density: float) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    hit = torch.rand(num_users, num_items, generator=generator) < density
    return {(u, i) for u, i in hit.nonzero().tolist()}


def flip(pairs: Pairs) -> Pairs:
    return {(i, u) for u, i in pairs}


def one_hop(pairs: Pairs, entity: int, neighbours: Tensor) -> Tensor | None:
    near = [i for u, i in pairs if u == entity and i < len(neighbours)]
    return torch.stack([neighbours[i] for i in near]).mean(0) if near else None


def two_hop(pairs: Pairs, entity: int, own: Tensor, topk: int) -> Tensor:
    """Mean of the ``topk`` most frequent known entities two hops away, filled up by all others."""
    items = {i for u, i in pairs if u == entity}
    near = {u for u, i in pairs if i in items and u < len(own)}
    frequency = [sum(u == known for u, _ in pairs) for known in range(len(own))]
    ranked = sorted(range(len(own)), key=lambda u: (u not in near, -frequency[u], u))
    return torch.stack([own[u] for u in ranked[:topk]]).mean(0)


def expected_row(pairs: Pairs, entity: int, own: Tensor, neighbours: Tensor, topk: int) -> Tensor:
    one, two = one_hop(pairs, entity, neighbours), two_hop(pairs, entity, own, topk)
    return two if one is None else (one + two) / 2


def model_of(kind: type[MF], num_users: int, num_items: int) -> MF:
    generator = torch.Generator().manual_seed(5)
    return kind(num_users, num_items, 3, std=1.0, generator=generator)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [MF, LightGCN])
def test_new_rows_equal_a_loop_over_the_definition(kind, seed):
    old, now, topk = (12, 10), (17, 15), (1, 2, 3, 5, 12, 40)[seed]
    pairs = random_pairs(seed, *now, 0.18)
    model = model_of(kind, *old)
    grown = grow(model, graph_of(pairs, *now), topk=topk)
    user, item = model.user.detach(), model.item.detach()
    for u in range(old[0], now[0]):
        torch.testing.assert_close(grown.user[u].detach(), expected_row(pairs, u, user, item, topk))
    for i in range(old[1], now[1]):
        row = expected_row(flip(pairs), i, item, user, topk)
        torch.testing.assert_close(grown.item[i].detach(), row)


@pytest.mark.parametrize(("num_near", "fill"), [(0, [0, 1, 2]), (2, [0]), (3, []), (5, [])])
def test_two_hops_take_topk_of_the_near_and_fill_up_with_the_most_frequent(num_near, fill):
    """User 9 shares item 0 with the last ``num_near`` users; users 0, 1, 2 are the busiest.

    With exactly ``topk`` near users the mean is over those; the released slice took everyone.
    """
    topk, near = 3, list(range(9 - num_near, 9))
    pairs = {(u, 1 + i) for u in range(3) for i in range(6 - u)}
    pairs |= {(u, 0) for u in near} | {(9, 0)}
    model = model_of(MF, 9, 7)
    grown = grow(model, graph_of(pairs, 10, 7), topk=topk)
    chosen = near[:topk] + fill
    two = model.user[chosen].detach().mean(0)
    torch.testing.assert_close(grown.user[9].detach(), (model.item[0].detach() + two) / 2)


def test_new_items_start_as_new_users_do():
    pairs = random_pairs(1, 11, 8, 0.3)
    model = model_of(MF, 11, 6)
    mirror = model_of(MF, 6, 11)
    with torch.no_grad():
        mirror.user.copy_(model.item)
        mirror.item.copy_(model.user)
    grown = grow(model, graph_of(pairs, 11, 8), topk=3)
    turned = grow(mirror, graph_of(flip(pairs), 8, 11), topk=3)
    assert torch.equal(grown.item, turned.user)


def test_an_entity_whose_neighbours_are_all_new_starts_from_two_hops_alone():
    """New user 4 knows only new item 3, which known users 1 and 2 have."""
    pairs = {(0, 0), (0, 1), (1, 3), (2, 3), (4, 3), (3, 2)}
    model = model_of(MF, 4, 3)
    grown = grow(model, graph_of(pairs, 5, 4), topk=2)
    torch.testing.assert_close(grown.user[4].detach(), model.user[[1, 2]].detach().mean(0))


def test_an_entity_without_any_edge_starts_as_the_most_frequent_ones():
    pairs = {(0, 0), (2, 0), (2, 1), (1, 0), (1, 1), (1, 2)}
    model = model_of(MF, 3, 3)
    grown = grow(model, graph_of(pairs, 4, 4), topk=2)
    torch.testing.assert_close(grown.user[3].detach(), model.user[[1, 2]].detach().mean(0))
    torch.testing.assert_close(grown.item[3].detach(), model.item[[0, 1]].detach().mean(0))


@pytest.mark.parametrize("kind", [MF, LightGCN, MultVAE, ItemMultVAE])
@pytest.mark.parametrize("init", ["two-hop", "two-hop-any", "one-hop", "random"])
def test_old_rows_keep_their_bits(kind, init):
    pairs = random_pairs(2, 14, 12, 0.3)
    model = model_of(kind, 9, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grown = grow(model, graph_of(pairs, 14, 12), init=init, generator=torch.Generator())
    assert (grown.num_users, grown.num_items) == (14, 12)
    assert (model.num_users, model.num_items) == (9, 8)
    for name, value in grown.state_dict().items():
        assert torch.equal(value[: len(before[name])], before[name])
        assert torch.equal(model.state_dict()[name], before[name])
        assert value.isfinite().all()
    out = grown(graph_of(pairs, 14, 12))
    assert (out.num_users, out.num_items) == (14, 12)


def test_every_item_table_of_a_variational_model_starts_from_prominent_items():
    pairs = random_pairs(3, 10, 9, 0.3)
    model = model_of(MultVAE, 7, 6)
    with torch.no_grad():
        model.bias.normal_(generator=torch.Generator().manual_seed(0))
    grown = grow(model, graph_of(pairs, 10, 9), topk=2)
    for name in ("encoder", "decoder", "bias"):
        old = model.get_parameter(name).detach()
        for i in range(6, 9):
            row = grown.get_parameter(name)[i].detach()
            torch.testing.assert_close(row, two_hop(flip(pairs), i, old, 2))


def test_one_hop_is_the_mean_of_the_known_neighbours():
    pairs = {(0, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2)}
    model = model_of(MF, 2, 2)
    generator = torch.Generator().manual_seed(0)
    grown = grow(model, graph_of(pairs, 4, 3), init="one-hop", generator=generator)
    torch.testing.assert_close(grown.user[2].detach(), model.item.detach().mean(0))
    # User 3 and item 2 know no one: their rows are drawn, small and not zero.
    for row in (grown.user[3], grown.item[2]):
        assert 0 < row.detach().abs().max() < 0.1


def test_without_prominence_any_entity_two_hops_away_counts_alike():
    """User 9 shares item 0 with users 4 to 8, the idle ones; mutation: the busiest are taken."""
    pairs = {(u, 0) for u in range(4, 10)} | {(4, i) for i in range(1, 7)}
    model = model_of(MF, 9, 7)
    with torch.no_grad():
        model.user.copy_(torch.eye(9)[:, :3])
        model.user[:, 0] = 2.0 ** torch.arange(9)  # a sum of two tells which two
        model.item.zero_()
    drawn = []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        graph = graph_of(pairs, 10, 7)
        grown = grow(model, graph, init="two-hop-any", topk=2, generator=generator)
        total = round(4 * float(grown.user[9, 0].detach()))
        drawn += [u for u in range(9) if total >> u & 1]
    share = torch.tensor([drawn.count(user) for user in range(9)]) / 400
    assert share[:4].sum() == 0 and share.sum() == 2
    assert share[4:].sub(0.4).abs().max() < 0.1


def test_random_rows_have_the_asked_deviation_and_follow_the_generator():
    graph = graph_of({(0, 0)}, 3000, 1)
    rows = [
        grow(model_of(MF, 1, 1), graph, init="random", std=0.5, generator=g).user[1:].detach()
        for g in (torch.Generator().manual_seed(s) for s in (0, 0, 1))
    ]
    assert float(rows[0].std()) == pytest.approx(0.5, rel=0.03)
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_growth_by_nothing_is_a_copy():
    pairs = random_pairs(4, 5, 5, 0.4)
    model = model_of(LightGCN, 5, 5)
    grown = grow(model, graph_of(pairs, 5, 5))
    assert torch.equal(grown.user, model.user) and torch.equal(grown.item, model.item)
    assert grown.user is not model.user


def test_grown_tables_are_trained():
    pairs = random_pairs(4, 6, 6, 0.4)
    grown = grow(model_of(LightGCN, 4, 4), graph_of(pairs, 6, 6))
    assert {name for name, _ in grown.named_parameters()} == {"user", "item"}
    assert all(p.requires_grad and p.is_leaf and len(p) == 6 for p in grown.parameters())


def test_a_model_does_not_shrink():
    with pytest.raises(ValueError, match=r"4 users and 9 items.* 5 and 9; a model cannot shrink"):
        grow(model_of(MF, 5, 9), graph_of({(0, 0)}, 4, 9))
