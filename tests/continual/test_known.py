import pytest
import torch

from ccdgraph.continual.known import Known, arrive, parts
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block

Edges = dict[tuple[int, int], float]
BASE = [(0, 0), (0, 1), (1, 0), (0, 1)]
FIRST = [(1, 1), (2, 0), (0, 0), (1, 3)]
SECOND = [(3, 3), (2, 0)]


def rows(pairs: list[tuple[int, int]]) -> Interactions:
    return Interactions(*torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1))


def block(index: int, pairs: list[tuple[int, int]], num_users: int, num_items: int) -> Block:
    held_out = rows([(num_users - 1, num_items - 1)])
    return Block(index, rows(pairs), held_out, held_out, num_users, num_items)


def blocks() -> list[Block]:
    return [block(0, BASE, 2, 2), block(1, FIRST, 3, 4), block(2, SECOND, 5, 4)]


def edges(graph: BipartiteGraph) -> Edges:
    columns = (graph.user.tolist(), graph.item.tolist(), graph.weight.tolist())
    return {(u, i): w for u, i, w in zip(*columns, strict=True)}


def learn(*, cumulative: bool, decay: float = 1.0, num_parts: int = 1) -> list[Known]:
    """What is known after every piece of every block."""
    known, history = None, []
    for piece in blocks():
        pieces = [piece] if known is None else parts(piece, num_parts, known)
        for place, part in enumerate(pieces):
            known = arrive(known, part, cumulative=cumulative, decay=decay, part=place)
            history.append(known)
    return history


def ones(*pairs: tuple[int, int]) -> Edges:
    return dict.fromkeys(pairs, 1.0)


def test_the_base_block_is_all_that_is_known_first():
    first = arrive(None, blocks()[0], cumulative=False)
    assert edges(first.graph) == edges(first.history) == ones(*BASE)
    assert first.before is None and (first.graph.num_users, first.graph.num_items) == (2, 2)


def test_a_cumulative_graph_holds_every_training_row_so_far():
    first, second, third = learn(cumulative=True)
    assert edges(second.graph) == edges(second.history) == ones(*BASE, *FIRST)
    assert edges(third.graph) == edges(third.history) == ones(*BASE, *FIRST, *SECOND)
    assert (third.graph.num_users, third.graph.num_items) == (5, 4)
    assert edges(second.before) == edges(first.graph)
    assert edges(third.before) == edges(second.graph)


def test_a_block_graph_holds_its_block_and_history_everything():
    first, second, third = learn(cumulative=False)
    assert edges(second.graph) == ones(*FIRST) and edges(third.graph) == ones(*SECOND)
    assert edges(third.history) == ones(*BASE, *FIRST, *SECOND)
    assert edges(second.before) == edges(first.graph)
    assert edges(third.before) == edges(second.graph)
    assert (second.graph.num_users, second.graph.num_items) == (3, 4)


def test_decay_weighs_all_older_edges_alike_and_renews_repeated_ones():
    third = learn(cumulative=True, decay=0.5)[-1]
    weight = ones(*SECOND) | dict.fromkeys([(1, 1), (0, 0), (1, 3), (0, 1), (1, 0)], 0.5)
    assert edges(third.graph) == weight
    assert edges(third.history) == ones(*BASE, *FIRST, *SECOND), "history does not age"


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("cumulative", [True, False])
@pytest.mark.parametrize("num_parts", [2, 3, 4, 9])
def test_after_its_last_part_a_block_is_known_as_if_it_came_at_once(num_parts, cumulative, decay):
    whole = learn(cumulative=cumulative, decay=decay)
    pieces = learn(cumulative=cumulative, decay=decay, num_parts=num_parts)
    ends = [0, min(num_parts, 4), min(num_parts, 4) + min(num_parts, 2)]
    assert len(pieces) == ends[-1] + 1
    for known, end in zip(whole, ends, strict=True):
        for name in ("history", "graph", "before"):
            once, apart = getattr(known, name), getattr(pieces[end], name)
            assert (once is None) == (apart is None)
            if once is not None:
                assert edges(once) == edges(apart)
                assert (once.num_users, once.num_items) == (apart.num_users, apart.num_items)


def test_a_part_adds_to_the_block_graph_of_the_parts_before_it():
    states = learn(cumulative=False, num_parts=2)
    assert edges(states[1].graph) == ones(*FIRST[:2])
    assert edges(states[2].graph) == ones(*FIRST)
    assert edges(states[1].before) == edges(states[2].before) == ones(*BASE)


def test_parts_are_consecutive_and_count_the_entities_known_by_then():
    """Rows (1, 1) (2, 0) | (0, 0) | (1, 3): user 2 comes in the first, item 3 in the last part."""
    known = arrive(None, blocks()[0], cumulative=True)
    cut = list(parts(blocks()[1], 3, known))
    pairs = [list(zip(p.train.user.tolist(), p.train.item.tolist(), strict=True)) for p in cut]
    assert pairs == [FIRST[:2], FIRST[2:3], FIRST[3:]]
    assert [(p.num_users, p.num_items) for p in cut] == [(3, 2), (3, 2), (3, 4)]
    assert all(p.index == 1 and p.valid is cut[0].valid for p in cut)


def test_the_last_part_counts_entities_that_have_no_training_row():
    known = learn(cumulative=True)[1]
    assert [(p.num_users, p.num_items) for p in parts(blocks()[2], 2, known)] == [(4, 4), (5, 4)]


def test_a_block_without_training_rows_has_no_parts():
    known = arrive(None, blocks()[0], cumulative=True)
    assert list(parts(block(1, [], 3, 3), 2, known)) == []
