from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdgraph.data import (
    Block,
    Events,
    Interactions,
    Stream,
    Vocabulary,
    append_block,
    fingerprint,
    next_protocol,
    split_stream,
)


def random_events(seed: int, num: int = 300, num_times: int = 200, num_items: int = 30) -> Events:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(20, (num,), generator=generator)
    item = torch.randint(num_items, (num,), generator=generator)
    time = torch.randint(num_times, (num,), generator=generator)
    return Events.from_rows(
        Interactions(user, item, time),
        Vocabulary([f"u{i}" for i in range(20)]),
        Vocabulary([f"i{i}" for i in range(num_items)]),
    )


def triples(rows: Interactions) -> list[tuple[int, int, int]]:
    assert rows.time is not None
    return list(zip(rows.user.tolist(), rows.item.tolist(), rows.time.tolist(), strict=True))


def same(one: Stream, other: Stream) -> bool:
    return (
        fingerprint(one) == fingerprint(other)
        and one.users == other.users
        and one.items == other.items
    )


def rows_between(events: Events, start: int, end: int) -> Events:
    return events[torch.arange(start, end)]


def test_from_rows_numbers_by_first_appearance_after_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(1)
    user, item, time = (torch.randint(9, (60,), generator=generator) for _ in range(3))
    names = [f"n{i}" for i in range(9)]
    events = Events.from_rows(Interactions(user, item, time), Vocabulary(names), Vocabulary(names))
    users: list[str] = []
    items: list[str] = []
    expected = []
    for t, row in sorted((t, row) for row, t in enumerate(time.tolist())):
        for seen, name in ((users, names[user[row]]), (items, names[item[row]])):
            if name not in seen:
                seen.append(name)
        expected.append((users.index(names[user[row]]), items.index(names[item[row]]), t))
    assert triples(events.interactions) == expected
    assert (events.users.tolist(), events.items.tolist()) == (users, items)


def test_events_out_of_order_are_refused() -> None:
    ids = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="not in time order"):
        Events(Interactions(ids, ids, ids.flip(0)), Vocabulary(["a", "b"]), Vocabulary([1, 2]))
    with pytest.raises(ValueError, match=r"'interactions.user' is not numbered"):
        Events(Interactions(ids.flip(0), ids), Vocabulary([1, 2]), Vocabulary([1, 2]))


@pytest.mark.parametrize("by", ["count", "time"])
@pytest.mark.parametrize("num_times", [200, 12])
def test_blocks_partition_the_rows_and_cut_no_time_in_two(by: str, num_times: int) -> None:
    events = random_events(0, num_times=num_times)
    stream = split_stream(events, num_blocks=3, by=by, protocol="next")  # type: ignore[arg-type]
    rows = triples(events.interactions)
    assert [row for block in stream for row in triples(block.train)] == rows
    first, last = rows[0][2], rows[-1][2]
    end = 0
    for block, share in zip(stream, [0.5, 2 / 3, 5 / 6, 1.0], strict=True):
        if by == "count":
            place = round(share * len(rows))
            expected = [row for row in rows[end:] if row[2] <= rows[place - 1][2]]
        else:
            expected = [
                row for row in rows[end:] if row[2] <= first + round((last - first) * share)
            ]
        assert triples(block.train) == expected
        end += len(expected)


@pytest.mark.parametrize("protocol", ["within", "next"])
def test_counts_are_of_entities_that_appeared(protocol: str) -> None:
    events = random_events(3, num=80)
    stream = split_stream(events, num_blocks=4, protocol=protocol)  # type: ignore[arg-type]
    whole = split_stream(events, num_blocks=4, protocol="next")
    users: set[int] = set()
    items: set[int] = set()
    for block, rows in zip(stream, whole, strict=True):
        users |= set(rows.train.user.tolist())
        items |= set(rows.train.item.tolist())
        assert (block.num_users, block.num_items) == (len(users), len(items))
    assert stream[-1].num_users > stream[0].num_users


def test_within_holds_out_each_users_share_of_distinct_items() -> None:
    events = random_events(4, num=600, num_items=300)
    ratios = (0.7, 0.1, 0.2)
    stream = split_stream(events, num_blocks=3, ratios=ratios, seed=5)
    whole = split_stream(events, num_blocks=3, protocol="next")
    trained: set[int] = set()
    num_dropped = num_earlier = 0
    for block, rows in zip(stream, whole, strict=True):
        earlier = set(trained)
        parts = [triples(part) for part in (block.train, block.valid, block.test)]
        trained |= {item for _, item, _ in parts[0]}
        pairs = [{row[:2] for row in part} for part in parts]
        assert not pairs[0] & pairs[1] and not pairs[0] & pairs[2] and not pairs[1] & pairs[2]
        dropped = set(triples(rows.train)) - {row for part in parts for row in part}
        assert all(item not in trained for _, item, _ in dropped)
        assert all(item in trained for part in parts[1:] for _, item, _ in part)
        own = {item for _, item, _ in parts[0]}
        num_dropped += len(dropped)
        num_earlier += sum(item in earlier - own for _, item, _ in parts[2])
        for user in set(rows.train.user.tolist()):
            num = len({row[:2] for row in triples(rows.train) if row[0] == user})
            lost = len({row[:2] for row in dropped if row[0] == user})
            valid, test = (sum(pair[0] == user for pair in part) for part in pairs[1:])
            train = sum(pair[0] == user for pair in pairs[0])
            want = (max(num // 10, 1), max(num // 5, 1)) if num >= 3 else (0, 0)
            assert train == num - sum(want)
            assert valid <= want[0] and test <= want[1] and valid + test + lost == sum(want)
    assert num_dropped > 0 and num_earlier > 0


def test_within_split_is_uniform_over_a_users_items() -> None:
    """User 0 has ten items; ten others train on one each, so that none of its tests is dropped."""
    num = 10
    user = torch.cat([torch.zeros(num, dtype=torch.int64), torch.arange(num) + 1])
    rows = Interactions(user, torch.arange(num).repeat(2))
    events = Events(rows, Vocabulary(range(num + 1)), Vocabulary(range(num)))
    count = torch.zeros(num)
    for seed in range(300):
        count[split_stream(events, base=1, num_blocks=0, seed=seed)[0].test.item] += 1
    assert int(count.sum()) == 300
    assert count.min() >= 12 and count.max() <= 55  # mean 30, standard deviation 5.2


def test_shares_are_not_lost_to_binary_rounding() -> None:
    num = 100
    rows = Interactions(torch.zeros(num, dtype=torch.int64), torch.arange(num))
    other = Interactions(torch.arange(num) + 1, torch.arange(num))
    events = Events.from_rows(
        Interactions.cat([rows, other]), Vocabulary(range(num + 1)), Vocabulary(range(num))
    )
    block = split_stream(events, base=1, num_blocks=0, ratios=(0.71, 0.0, 0.29))[0]
    assert (len(block.valid), len(block.test)) == (0, 29)


def test_next_holds_out_known_entities_of_the_next_block() -> None:
    stream = split_stream(random_events(6, num=90), base=0.2, num_blocks=4, protocol="next")
    dropped = 0
    for block, following in zip(stream.blocks, stream.blocks[1:], strict=False):
        rows = triples(following.train)
        half = len(rows) // 2
        while rows[half][2] == rows[half - 1][2]:
            half += 1
        users, items = (
            {row[side] for b in stream.blocks[: block.index + 1] for row in triples(b.train)}
            for side in (0, 1)
        )
        for part, place in ((block.valid, slice(half)), (block.test, slice(half, None))):
            known = [row for row in rows[place] if row[0] in users and row[1] in items]
            dropped += len(rows[place]) - len(known)
            assert triples(part) == known
    assert dropped > 0
    assert len(stream[-1].valid) == len(stream[-1].test) == 0


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    protocol=st.sampled_from(["within", "next"]),
    num_times=st.sampled_from([20, 400]),
)
def test_appending_blocks_equals_splitting_at_once(
    seed: int, protocol: str, num_times: int
) -> None:
    events = random_events(seed, num=120, num_times=num_times)
    whole = split_stream(events, num_blocks=3, protocol=protocol, seed=seed)  # type: ignore[arg-type]
    sizes = [len(b.train) for b in split_stream(events, num_blocks=3, protocol="next")]
    base = rows_between(events, 0, sizes[0])
    stream = split_stream(base, base=1, num_blocks=0, protocol=protocol, seed=seed)  # type: ignore[arg-type]
    start = sizes[0]
    for size in sizes[1:]:
        grown = append_block(stream, rows_between(events, start, start + size), seed=seed)
        kept = len(stream) - (protocol == "next")
        assert grown.blocks[:kept] == stream.blocks[:kept]
        assert grown.users.tolist()[: len(stream.users)] == stream.users.tolist()
        stream, start = grown, start + size
    assert same(stream, whole)


@pytest.mark.parametrize("protocol", ["within", "next"])
def test_a_block_never_depends_on_later_rows(protocol: str) -> None:
    events = random_events(8)
    stream = split_stream(events, num_blocks=3, protocol=protocol)  # type: ignore[arg-type]
    whole = split_stream(events, num_blocks=3, protocol="next")
    start = sum(len(block.train) for block in whole.blocks[:3])
    rows = events.interactions
    poisoned = Interactions(rows.user.clone(), rows.item.clone(), rows.time)
    poisoned.user[start:] = rows.user[start:].flip(0)
    poisoned.item[start:] = 0
    other = split_stream(
        Events.from_rows(poisoned, events.users, events.items),
        num_blocks=3,
        protocol=protocol,  # type: ignore[arg-type]
    )
    unaffected = 3 if protocol == "within" else 2

    def head(stream: Stream) -> str:
        return fingerprint(Stream(stream.blocks[:unaffected], Vocabulary(), Vocabulary(), protocol))

    assert head(other) == head(stream)
    assert fingerprint(other) != fingerprint(stream)


def test_append_reads_frames_onto_a_stream_of_any_origin() -> None:
    rows = Interactions(torch.tensor([0, 1]), torch.tensor([0, 0]))
    none = rows[torch.tensor([], dtype=torch.int64)]
    ids = Vocabulary(range(2)), Vocabulary(range(1))
    stream = append_block(
        Stream((Block(0, rows, none, none, 2, 1),), *ids), {"user": [7, 1], "item": [0, 4]}
    )
    assert stream[1].train.user.tolist() == [2, 1]
    assert stream[1].train.item.tolist() == [0, 1]
    assert (stream[1].num_users, stream[1].num_items) == (3, 2)
    assert (stream.users.tolist(), stream.items.tolist()) == ([0, 1, 7], [0, 4])


def test_same_seed_repeats_and_another_differs() -> None:
    events = random_events(9)
    assert same(split_stream(events, seed=1), split_stream(events, seed=1))
    assert not same(split_stream(events, seed=1), split_stream(events, seed=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": 1.5}, "'base' is 1.5"),
        ({"num_blocks": 0}, "'base' is 0.5 and 'num_blocks' 0"),
        ({"by": "size"}, "'by' is 'size'"),
        ({"protocol": "all"}, "'protocol' is 'all'"),
        ({"ratios": (0.8, 0.1, 0.2)}, "'ratios' is"),
        ({"num_blocks": 5000}, "would be empty"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_stream(random_events(0), **options)  # type: ignore[arg-type]


def test_split_by_time_needs_times() -> None:
    ids = torch.arange(4)
    events = Events(Interactions(ids, ids), Vocabulary(range(4)), Vocabulary(range(4)))
    with pytest.raises(ValueError, match="no times; use by='count'"):
        split_stream(events, by="time")


def test_late_and_empty_blocks_are_refused() -> None:
    events = random_events(2)
    stream = split_stream(rows_between(events, 100, 300), num_blocks=1)
    with pytest.raises(ValueError, match="before the last block ends"):
        append_block(stream, rows_between(events, 0, 100))
    with pytest.raises(ValueError, match="no rows"):
        append_block(stream, rows_between(events, 0, 0))


def test_the_order_of_appearance_is_checked_across_pieces(monkeypatch) -> None:
    monkeypatch.setattr("ccdgraph.data.events._PIECE", 3)
    user = torch.tensor([0, 1, 0, 2, 1, 2, 2, 3, 0])
    Events(Interactions(user, torch.zeros_like(user)), Vocabulary(range(4)), Vocabulary([5]))
    for place, value in ((3, 3), (8, 5), (7, 2)):
        wrong = user.clone()
        wrong[place] = value
        with pytest.raises(ValueError, match="first appearance"):
            Events(
                Interactions(wrong, torch.zeros_like(user)), Vocabulary(range(4)), Vocabulary([5])
            )


def test_a_slice_of_interactions_is_a_view() -> None:
    rows = Interactions(torch.arange(5), torch.arange(5), torch.arange(5))
    part = rows[1:3]
    assert part.time is not None and part.time.tolist() == [1, 2]
    assert part.user.data_ptr() == rows.user[1:].data_ptr()


@pytest.mark.parametrize("timed", [True, False])
def test_blocks_learnt_whole_are_tested_on_the_halves_of_the_next(timed: bool) -> None:
    """With times the result is that of splitting under ``"next"`` at once."""
    events = random_events(3)
    within = split_stream(events, num_blocks=3, ratios=(0.6, 0.2, 0.2))
    if not timed:
        bare = [
            replace(b, **{n: Interactions(p.user, p.item) for n, p in parts(b).items()})
            for b in within
        ]
        within = replace(within, blocks=tuple(bare))
    stream = next_protocol(within, seed=1)
    assert stream.protocol == "next" and fingerprint(stream) != fingerprint(within)
    for block, own in zip(stream, within, strict=True):
        assert pairs(block.train) == pairs(Interactions.cat(parts(own).values()))
        assert (block.num_users, block.num_items) == (own.num_users, own.num_items)
    for block, following in zip(stream.blocks, stream.blocks[1:], strict=False):
        rows = following.train
        known = (rows.user < block.num_users) & (rows.item < block.num_items)
        both = Interactions.cat([block.valid, block.test])
        assert pairs(both) == pairs(rows[known])
        if timed:
            assert block.valid.time.max() < block.test.time.min()
        else:
            assert len(rows) // 2 >= len(block.valid) > len(rows) // 4
    assert len(stream[-1].valid) == len(stream[-1].test) == 0
    with pytest.raises(ValueError, match="has protocol 'next' already"):
        next_protocol(stream)


def parts(block: Block) -> dict[str, Interactions]:
    return {"train": block.train, "valid": block.valid, "test": block.test}


def pairs(rows: Interactions) -> list[tuple[int, int]]:
    return sorted(zip(rows.user.tolist(), rows.item.tolist(), strict=True))
