import torch
from hypothesis import given
from hypothesis import strategies as st

from ccdgraph.data.chunks import Chunks


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5))
def test_chunks_hold_every_entry_of_a_row_once_and_no_more_than_their_length(counts, length):
    pointer = torch.tensor([0, *counts]).cumsum(0)
    chunks = Chunks.of(pointer, length=length)
    bounds = list(zip(chunks.begin.tolist(), chunks.end.tolist(), strict=True))
    sizes = [end - begin for begin, end in bounds]
    assert sizes == sorted(sizes, reverse=True) and max(sizes, default=0) <= length
    of_target = dict(zip(chunks.target.tolist(), bounds, strict=True))
    assert len(of_target) == len(bounds)  # no two write to one place
    partial = {
        row: [of_target.pop(len(counts) + place) for place in range(*ends)]
        for row, *ends in zip(
            chunks.row.tolist(), chunks.first.tolist()[:-1], chunks.first.tolist()[1:], strict=True
        )
    }
    assert chunks.num_partial == sum(map(len, partial.values()))
    for row, count in enumerate(counts):
        pieces = partial.get(row) or [of_target[row]]
        entries = [entry for begin, end in pieces for entry in range(begin, end)]
        assert entries == list(range(int(pointer[row]), int(pointer[row]) + count))
        assert (row in partial) == (count > length)


def test_the_plan_of_an_empty_matrix_is_empty():
    chunks = Chunks.of(torch.tensor([0]))
    assert chunks.num_rows == chunks.num_partial == len(chunks.begin) == len(chunks.row) == 0
