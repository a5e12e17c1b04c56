import pytest
import torch

from ccdgraph.data import synthetic_stream
from ccdgraph.distill.labels import (
    LabelWriter,
    SoftLabels,
    StoreReader,
    identity,
    teacher_before,
)

STREAM = synthetic_stream(80, 60, 1500, num_blocks=2)


def write(folder, *versions, data=None, num_users=5, num_items=9, block=1) -> None:
    with LabelWriter(folder, identity(STREAM) if data is None else data) as writer:
        for version in versions:
            lists = torch.tensor([[3, 1], [2, -1]])
            labels = SoftLabels.from_lists(
                torch.tensor([0, 4]), lists, torch.rand(2, 2), version=version, block=block
            )
            writer.write(labels, num_users=num_users, num_items=num_items)


def test_lists_have_a_row_for_everyone_and_padding_for_the_missing(tmp_path):
    write(tmp_path, "teacher-0")
    scores, lists = StoreReader(tmp_path)(STREAM[1])
    assert lists.shape == scores.shape == (STREAM[1].num_users, 2)
    assert lists[[0, 4]].tolist() == [[3, 1], [2, -1]]
    rest = torch.ones(len(lists), dtype=torch.bool)
    rest[[0, 4]] = False
    assert (lists[rest] == -1).all() and (scores[rest] == -torch.inf).all()


@pytest.mark.parametrize(
    ("block", "lag", "freeze", "expected"),
    [
        (1, 0, None, 0),
        (5, 0, None, 4),
        (5, 3, None, 1),
        (2, 3, None, 0),
        (5, 0, 2, 2),
        (5, 1, 2, 1),
    ],
)
def test_age_of_the_teacher(block, lag, freeze, expected):
    assert teacher_before(block, lag=lag, freeze=freeze) == expected


@pytest.mark.parametrize("wrong", [(0, 0, None), (1, -1, None), (1, 0, -1)])
def test_ages_that_make_no_sense_are_refused(wrong):
    block, lag, freeze = wrong
    with pytest.raises(ValueError, match="expected a block of at least 1"):
        teacher_before(block, lag=lag, freeze=freeze)


def test_several_teachers_in_one_store_must_be_told_apart(tmp_path):
    write(tmp_path, "large-0", "wide-net-0")
    with pytest.raises(ValueError, match="labels of these teachers: large, wide-net; name one"):
        StoreReader(tmp_path).read(1)
    assert StoreReader(tmp_path, "wide-net").read(1).version == "wide-net-0"
    with pytest.raises(ValueError, match="no labels of 'small-0' for block 1; it has large-0/1"):
        StoreReader(tmp_path, "small").read(1)


def test_labels_of_another_data_set_are_refused(tmp_path):
    write(tmp_path / "named", "teacher-0", data={"stream": "other"})
    with pytest.raises(ValueError, match="labels of another data set: 'items, stream, users'"):
        StoreReader(tmp_path / "named", data=identity(STREAM)).read(1)
    write(tmp_path / "large", "teacher-0", num_users=STREAM[1].num_users + 1)
    with pytest.raises(ValueError, match="name the store of this data set"):
        StoreReader(tmp_path / "large")(STREAM[1])


def test_a_reader_of_deleted_labels_is_told_what_there_is(tmp_path):
    write(tmp_path, "teacher-0")
    write(tmp_path, "teacher-1", block=2)
    reader = StoreReader(tmp_path)
    held = reader.read(1)
    with LabelWriter(tmp_path, identity(STREAM)) as writer:
        writer.retain(["teacher-1"])
    assert held.coverage(torch.tensor([0, 1])) == 0.5  # in place until it lets go
    with pytest.raises(
        ValueError, match="no labels of 'teacher-0' for block 1; it has teacher-1/2"
    ):
        reader.read(1)


def test_an_empty_store_names_no_teacher(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="labels of these teachers: none"):
        StoreReader(tmp_path).read(1)
