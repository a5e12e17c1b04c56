from dataclasses import replace

import pytest
import torch
from small_labels import assert_same

from ccdgraph.data import Interactions, synthetic_stream
from ccdgraph.data.stream import Stream
from ccdgraph.distill.labels import LabelWriter, SoftLabels, label_block, read_labels
from ccdgraph.nn import Embeddings

INDEX, K = 2, 12
STREAM = synthetic_stream(80, 60, 1500, num_blocks=3)


def teacher(users: int | None = None, items: int | None = None) -> Embeddings:
    before, draw = STREAM[INDEX - 1], torch.Generator().manual_seed(1)
    users, items = users or before.num_users, items or before.num_items
    return Embeddings(torch.randn(users, 4, generator=draw), torch.randn(items, 4, generator=draw))


def label(stream: Stream = STREAM, scorer: Embeddings | None = None) -> SoftLabels:
    return label_block(scorer or teacher(), stream, INDEX, version="a", k=K)


def poisoned() -> Stream:
    """Other items in the block's training rows, and other rows from its held-out part on."""

    def other(rows: Interactions, num_items: int) -> Interactions:
        return replace(rows, item=(rows.item + 1) % num_items)

    blocks = list(STREAM.blocks)
    for place in range(INDEX, len(blocks)):
        block = blocks[place]
        rows = [other(part, block.num_items) for part in (block.train, block.valid, block.test)]
        blocks[place] = replace(block, train=rows[0], valid=rows[1], test=rows[2])
    return Stream(tuple(blocks), STREAM.users, STREAM.items, STREAM.protocol)


def test_labels_do_not_depend_on_what_the_block_holds():
    """Leaving the block's own items out of the lists would tell which they are, and fails."""
    assert_same(label(poisoned()), label())


def test_labels_equal_a_loop_over_users():
    found, scorer = label(), teacher()
    past = {
        pair
        for block in STREAM.blocks[:INDEX]
        for pair in zip(block.train.user.tolist(), block.train.item.tolist(), strict=True)
    }
    rows = []
    for user in sorted(set(STREAM[INDEX].train.user.tolist())):
        if user < scorer.num_users:
            score = (scorer.user[user] @ scorer.item.T).tolist()
            free = [i for i in range(scorer.num_items) if (user, i) not in past]
            best = sorted(free, key=lambda i: (-score[i], i))[:K]
            rows += [(user, item, rank) for rank, item in enumerate(best)]
    columns = (found.user.tolist(), found.item.tolist(), found.rank.tolist())
    assert list(zip(*columns, strict=True)) == rows
    torch.testing.assert_close(found.score, scorer.pairs(found.user, found.item))
    block = STREAM[INDEX].train
    pairs = set(zip(block.user.tolist(), block.item.tolist(), strict=True))
    assert pairs & set(zip(*columns[:2], strict=True))  # items of the block stay


def test_new_users_are_missing_and_coverage_says_so(tmp_path):
    scorer, train = teacher(), STREAM[INDEX].train
    with LabelWriter(tmp_path, {}) as writer:
        writer.write(label(), num_users=scorer.num_users, num_items=scorer.num_items)
    stored, user = read_labels(tmp_path, "a", INDEX), train.user.unique()
    new = user >= scorer.num_users
    assert new.any()
    assert torch.equal(stored.has(user), ~new)
    assert stored.coverage(user) == pytest.approx(1 - float(new.double().mean()))


def test_a_teacher_that_knows_the_block_is_refused():
    before, block = STREAM[INDEX - 1], STREAM[INDEX]
    assert block.num_users > before.num_users
    message = f"before block 2 there were {before.num_users} and {before.num_items}"
    for grown in (teacher(users=block.num_users), teacher(items=before.num_items + 1)):
        with pytest.raises(ValueError, match=message):
            label(scorer=grown)
    for index in (0, len(STREAM)):
        with pytest.raises(ValueError, match=f"'index' is {index}, expected 1 to"):
            label_block(teacher(), STREAM, index, version="a")


def test_an_older_and_smaller_teacher_labels_whom_it_knows():
    base = STREAM[0]
    found = label(scorer=teacher(base.num_users, base.num_items))
    assert int(found.user.max()) < base.num_users
    assert int(found.item.max()) < base.num_items
    nobody = Embeddings(torch.zeros(0, 4), torch.zeros(base.num_items, 4))
    assert len(label(scorer=nobody)) == 0
