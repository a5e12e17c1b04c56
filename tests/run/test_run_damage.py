import json
import shutil
from dataclasses import replace

import pyarrow.parquet
import pytest

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.run import Row, open_stream, run


def test_an_unfinished_run_says_so(halted):
    assert not json.loads((halted / "run.json").read_text())["complete"]


def test_a_folder_in_use_needs_resume(config, copied, tmp_path):
    with pytest.raises(ValueError, match="is not empty; add --resume or name another folder"):
        run(config, copied)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no run, 'config\.toml' is missing"):
        run(config, tmp_path / "other", resume=True)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_resuming_with_another_configuration_names_the_key(config, halted):
    other = replace(config, ccd=replace(config.ccd, student=replace(config.ccd.student, dim=4)))
    with pytest.raises(ValueError, match=r"was begun with 'ccd\.student\.dim' = 2, not 4"):
        run(other, halted, resume=True)
    teachers = (config.ccd.teachers[0], replace(config.ccd.teachers[1], dim=9))
    other = replace(config, ccd=replace(config.ccd, teachers=teachers))
    with pytest.raises(ValueError, match=r"'ccd\.teachers\.1\.dim' = 3, not 9"):
        run(other, halted, resume=True)


def test_resuming_on_other_data_is_refused(config, halted):
    other = open_stream(replace(config.data, seed=1))
    with pytest.raises(ValueError, match="was begun on other data: 'fingerprint' is"):
        run(config, halted, resume=True, stream=other)


@pytest.mark.parametrize("file", ["meta.json", "tensors.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_flipped_byte_of_a_checkpoint_is_refused(config, copied, file, share):
    path = copied / "checkpoint" / file
    data = bytearray(path.read_bytes())
    place = int(share * len(data))
    while data[place : place + 1].isspace():
        place += 1
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=file):
        run(config, copied, resume=True)


@pytest.mark.parametrize("file", ["meta.json", "tensors.safetensors"])
def test_half_a_checkpoint_is_refused(config, copied, file):
    path = copied / "checkpoint" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=file):
        run(config, copied, resume=True)


@pytest.mark.parametrize("file", ["run.json", "metrics.parquet", "config.toml"])
def test_other_damaged_files_are_named(config, copied, file):
    (copied / file).write_bytes((copied / file).read_bytes()[: (copied / file).stat().st_size // 2])
    with pytest.raises(ValueError, match=file):
        run(config, copied, resume=True)


def test_a_flipped_byte_of_the_metrics_is_refused(config, copied):
    path = copied / "metrics.parquet"
    data = path.read_bytes()
    for place in range(4, len(data), 211):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            rows = run(config, copied, resume=True).rows
        except ValueError as error:
            assert "metrics.parquet" in str(error)
        else:  # bytes that hold no value
            expected = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
            assert list(rows) == [Row(**row) for row in expected]


def test_metrics_that_lack_a_block_are_refused(config, copied):
    (copied / "metrics.parquet").unlink()
    with pytest.raises(ValueError, match="lacks block 0, which is learnt already"):
        run(config, copied, resume=True)


def test_a_checkpoint_of_another_run_is_refused(config, straight, tmp_path):
    """Of other sizes, of another learner, of other settings, of other data."""
    wider = replace(config, ccd=replace(config.ccd, student=replace(config.ccd.student, dim=5)))
    longer = replace(config, data=replace(config.data, max_blocks=2))
    seeded = replace(config, data=replace(config.data, seed=1))
    for name, other, reason in (
        ("wider", wider, "'student.dim' = 2, not 5"),
        ("longer", longer, "users .* where .* is expected"),
        ("seeded", seeded, "fingerprint|users .* where|items .* where"),
    ):
        folder = tmp_path / name
        run(other, folder)
        shutil.rmtree(folder / "checkpoint")
        shutil.copytree(straight / "checkpoint", folder / "checkpoint")
        with pytest.raises(CheckpointError, match=reason):
            run(other, folder, resume=True)
    tensors, meta = checkpoint.load(straight / "checkpoint")
    folder = shutil.copytree(straight, tmp_path / "class")
    checkpoint.save(folder / "checkpoint", tensors, {**meta, "class_path": "my_cl:Replay"})
    with pytest.raises(CheckpointError, match="class 'my_cl:Replay' where"):
        run(config, folder, resume=True)


def test_a_checkpoint_of_a_backbone_whose_code_changed_is_refused(config, copied):
    tensors, meta = checkpoint.load(copied / "checkpoint")
    tensors["student/gate"] = tensors["student/user"]
    checkpoint.save(copied / "checkpoint", tensors, meta)
    with pytest.raises(CheckpointError, match=r"does not fit the models of this run: .*gate"):
        run(config, copied, resume=True)
