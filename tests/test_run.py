import errno
import json
import os
import shutil
from dataclasses import replace

import pyarrow.parquet
import pytest
import torch

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.config import ConfigError, from_dict, load, to_dict
from ccdgraph.data import Stream, fingerprint
from ccdgraph.run import (
    DataConfig,
    EvaluateConfig,
    Row,
    RunConfig,
    Watcher,
    detect_source,
    open_stream,
    plan,
    recommend,
    run,
)

CONFIG = """
[data]
num_blocks = 2
synthetic = { num_users = 60, num_items = 40, num_interactions = 900, num_communities = 4 }

[evaluate]
ks = [5]
per_user = true

[ccd]
student = { dim = 2 }
teachers = [{ dim = 3 }, { backbone = "MultVAE", dim = 3 }]
base = { fit = { epochs = 2 } }
generation = { fit = { epochs = 2 } }
update = { updates = 2, fit = { epochs = 2 } }
teacher = { fit = { epochs = 2 } }
"""
STAGES = 4 + 5 + 5


class StopError(Exception):
    pass


class StopAfter(Watcher):
    """Raises after ``left`` stages."""

    def __init__(self, left: int) -> None:
        self.left = left

    def stage(self, label: str, seconds: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopError


class StopWithin(Watcher):
    """Raises in the first epoch of every stage, once a stage."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()

    def epoch(self, label: str, done: int, total: int) -> None:
        if label not in self.stopped:
            self.stopped.add(label)
            raise StopError


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return load(RunConfig, path)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """A whole run that no test may change."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    run(config, folder)
    return folder


@pytest.fixture
def copied(straight, tmp_path):
    return shutil.copytree(straight, tmp_path / "run")


@pytest.fixture
def halted(config, tmp_path):
    """A run that was stopped after the first stage of block 1."""
    with pytest.raises(StopError):
        run(config, tmp_path / "run", watcher=StopAfter(5))
    return tmp_path / "run"


def until_done(config, folder, watchers) -> int:
    """How often the run had to be started."""
    for times, watcher in enumerate(watchers, start=1):
        try:
            run(config, folder, resume=True, watcher=watcher)
        except StopError:
            continue
        return times
    raise AssertionError("the run never ends")


def assert_same_run(folder, straight) -> None:
    for name in ("checkpoint", "served", "teachers"):
        tensors, expected = (checkpoint.load(f / name)[0] for f in (folder, straight))
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, expected[key]), f"{name} {key}"
    for path in straight.rglob("*.parquet"):
        mine = pyarrow.parquet.read_table(folder / path.relative_to(straight))
        assert mine.equals(pyarrow.parquet.read_table(path)), path.name
    mine, expected = (json.loads((f / "run.json").read_text()) for f in (folder, straight))
    assert mine["complete"] and mine["results"] == expected["results"]
    assert set(mine["seconds"]) == set(expected["seconds"])


def test_a_run_leaves_everything_needed_to_cite_it(config, straight):
    files = {str(path.relative_to(straight)) for path in straight.rglob("*") if path.is_file()}
    tensors = {
        f"{name}/{file}"
        for name in ("checkpoint", "served", "teachers")
        for file in ("meta.json", "tensors.safetensors")
    }
    users = {f"per_user/after_{k}.parquet" for k in range(3)}
    assert files == {"config.toml", "run.json", "metrics.parquet", *tensors, *users}
    assert load(RunConfig, straight / "config.toml") == config
    about = json.loads((straight / "run.json").read_text())
    assert about["complete"]
    assert about["data"]["fingerprint"] == fingerprint(open_stream(config.data))
    assert (about["mask"], about["protocol"], about["seed"]) == ("strict", "within", 0)
    assert set(about["versions"]) == {"python", "torch", "torch_geometric", "ccdgraph"}
    assert len(about["seconds"]) == STAGES
    assert about["peak_memory"]["host"] > 2**20


def test_the_matrix_is_that_of_the_stored_rows(config, straight):
    """Fails when rows are stored under the wrong block."""
    result = run(config, straight, resume=True)
    rows = [
        Row(**row) for row in pyarrow.parquet.read_table(straight / "metrics.parquet").to_pylist()
    ]
    assert list(result.rows) == rows
    matrix = result.matrix("teacher", "ndcg@5").values
    for k in range(3):
        for j in range(3):
            wanted = ("teacher", k, j, "test", "all", "ndcg@5")
            found = [row.value for row in rows if row[:6] == wanted]
            assert found == ([matrix[k, j]] if j <= k else [])
    summary = json.loads((straight / "run.json").read_text())["results"]["student"]
    diagonal = result.matrix("student").values.diagonal()
    assert summary["with_base"]["LA"][2] == pytest.approx(float(diagonal.mean()))
    assert summary["without_base"]["LA"][1] == pytest.approx(float(diagonal[1:].mean()))
    assert summary["matrix"][0][1] is None


def test_the_plan_names_every_stage_in_order(config, tmp_path):
    class Names(Watcher):
        def __init__(self) -> None:
            self.stages: list[str] = []
            self.epochs: set[str] = set()

        def stage(self, label: str, seconds: float) -> None:
            self.stages.append(label)

        def epoch(self, label: str, done: int, total: int) -> None:
            self.epochs.add(label)
            assert 1 <= done <= total == 2

    names = Names()
    run(config, tmp_path / "run", watcher=names)
    stages = plan(config, open_stream(config.data))
    assert names.stages == [stage.label for stage in stages]
    assert names.epochs == {stage.label for stage in stages if stage.name != "evaluation"}
    assert len(stages) == STAGES


def test_stopping_after_every_stage_changes_no_bit(config, straight, tmp_path):
    """Fails when anything that a later stage reads is missing from the checkpoint."""
    watchers = (StopAfter(1) for _ in range(2 * STAGES))
    # An evaluation that was told is stored, so nothing is left to do after the last one.
    assert until_done(config, tmp_path / "run", watchers) == STAGES + 1
    assert_same_run(tmp_path / "run", straight)


def test_stopping_within_every_stage_changes_no_bit(config, straight, tmp_path):
    watcher = StopWithin()
    times = until_done(config, tmp_path / "run", [watcher] * (2 * STAGES))
    assert times == len(watcher.stopped) + 1 == STAGES - 3 + 1
    assert_same_run(tmp_path / "run", straight)


def test_a_disk_that_fills_up_at_any_write_changes_no_bit(config, straight, tmp_path, monkeypatch):
    real, left = checkpoint._write, 0

    def write(path, data):
        nonlocal left
        left -= 1
        if left == 0:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(checkpoint, "_write", write)
    failures = 0
    while True:
        left = failures + 1
        try:
            run(config, tmp_path / "run", resume=True)
        except CheckpointError as error:
            assert "the disk is full; free some space" in str(error)
            failures += 1
            continue
        break
    assert failures > 8
    assert_same_run(tmp_path / "run", straight)
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_finished_run_is_not_run_again(config, copied, straight):
    class Never(Watcher):
        def stage(self, label: str, seconds: float) -> None:
            raise AssertionError(label)

    run(config, copied, resume=True, watcher=Never())
    assert_same_run(copied, straight)


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
    for other, reason in (
        (wider, "'student.dim' = 2, not 5"),
        (longer, "users .* where .* is expected"),
        (seeded, "fingerprint|users .* where|items .* where"),
    ):
        folder = tmp_path / str(hash(other.data) if other is not wider else 0)
        with pytest.raises(StopError):
            run(other, folder, watcher=StopAfter(1))
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


def test_base_teachers_are_taken_over_bitwise(config, straight, tmp_path):
    class Stages(Watcher):
        labels: tuple[str, ...] = ()

        def stage(self, label: str, seconds: float) -> None:
            self.labels += (label,)

    watcher = Stages()
    shared = replace(config, teachers_from=str(straight))
    result = run(shared, tmp_path / "run", watcher=watcher)
    assert watcher.labels[0] == "block 0 generation"
    assert result.rows == run(config, straight, resume=True).rows
    evaluated = replace(config.evaluate, mask="block")
    other = replace(shared, ccd=replace(config.ccd, mask="block"), evaluate=evaluated)
    with pytest.raises(CheckpointError, match="is of another run: 'mask' = 'strict', not 'block'"):
        run(other, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_next_block_protocol_runs_to_its_end(config, tmp_path):
    """The last block has nothing to be tested on, and is learnt and served all the same."""
    after = replace(config, data=replace(config.data, protocol="next"))
    watchers = (StopAfter(3) for _ in range(2 * STAGES))
    until_done(after, tmp_path / "halting", watchers)
    result = run(after, tmp_path / "straight")
    assert_same_run(tmp_path / "halting", tmp_path / "straight")
    assert {(row.learnt, row.tested) for row in result.rows if row.split == "test"} == {
        (0, 0),
        (1, 1),
    }
    assert checkpoint.load(tmp_path / "straight" / "served")[1]["learnt"] == 2


def test_the_future_is_never_read(config, straight, tmp_path):
    """Fails when a stage reads a later block: the first blocks alone give the same numbers."""
    first = replace(config, data=replace(config.data, max_blocks=2))
    result = run(first, tmp_path / "run")
    rows = [row for row in run(config, straight, resume=True).rows if row.learnt < 2]
    assert list(result.rows) == rows


def test_recommendations_are_external_ids_and_new_to_the_user(config, straight):
    stream = open_stream(config.data)
    user = stream.users[3]
    listed = recommend(straight, user, 10)
    scores = [score for _, score in listed]
    assert len(listed) == 10 and scores == sorted(scores, reverse=True)
    parts = [part for block in stream for part in (block.train, block.valid, block.test)]
    had = {stream.items[int(i)] for part in parts for i in part.item[part.user == 3]}
    assert had and not had & {item for item, _ in listed}
    assert {item for item, _ in listed} <= set(stream.items.tolist())
    tensors, _ = checkpoint.load(straight / "served")
    by_hand = tensors["item"] @ tensors["user"][3]
    for item, score in listed:
        assert score == pytest.approx(float(by_hand[stream.items.index(item)]), abs=1e-6)
    everything = recommend(straight, user, stream[2].num_items)
    assert {item for item, _ in everything} == set(stream.items.tolist()) - had


def test_recommending_refuses_what_it_cannot_serve(straight, tmp_path):
    with pytest.raises(ValueError, match="serves nothing"):
        recommend(tmp_path, "c0u0001")
    with pytest.raises(ValueError, match=r"'nobody' is not among the .* known ids"):
        recommend(straight, "nobody")
    with pytest.raises(ValueError, match=r"'k' is 1000, expected 1 to \d+, the size of the cata"):
        recommend(
            straight, open_stream(load(RunConfig, straight / "config.toml").data).users[0], 1000
        )


def cut(stream: Stream, index: int, part: str) -> Stream:
    """``stream`` with an empty ``part`` in one block."""
    block = stream[index]
    empty = block.train[torch.zeros(0, dtype=torch.int64)]
    blocks = list(stream.blocks)
    blocks[index] = replace(block, **{part: empty})
    return replace(stream, blocks=tuple(blocks))


def test_streams_that_cannot_be_run_leave_no_folder(config, tmp_path):
    stream = open_stream(config.data)
    long = replace(config, evaluate=replace(config.evaluate, ks=(5, 1000)))
    alone = replace(config, ccd=replace(config.ccd, teachers=()))
    for settings, data, reason in (
        (config, cut(stream, 1, "train"), "block 1 of 'synthetic' has no training rows"),
        (config, cut(stream, 2, "test"), "block 2 of 'synthetic' has no test rows to evaluate"),
        (long, stream, r"'evaluate\.ks' asks for 1000 items, but the base block .* has \d+"),
        (alone, stream, r"'ccd\.teachers' is empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            run(settings, tmp_path / "run", stream=data)
    assert not (tmp_path / "run").exists()


def test_a_stream_without_validation_runs(config, tmp_path):
    stream = open_stream(config.data)
    for index in range(3):
        stream = cut(stream, index, "valid")
    result = run(config, tmp_path / "run", stream=stream)
    assert {row.split for row in result.rows} == {"test"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ccd": {"studnet": {}}}, "unknown key 'ccd.studnet'; did you mean 'student'"),
        ({"evaluate": {"ks": []}}, "'ks' is"),
        ({"evaluate": {"ks": [0]}}, "at least 1"),
        ({"evaluate": {"scorers": []}}, "'scorers' is empty"),
        (
            {"evaluate": {"scorers": ["techer"]}},
            "'evaluate.scorers.0' is 'techer', expected one of",
        ),
        ({"evaluate": {"mask": "block"}, "ccd": {"mask": "strict"}}, None),
        ({"evaluate": {"mask": "strict"}, "ccd": {"mask": "block"}}, "set one of them"),
        ({"data": {"source": "events"}}, "needs a 'path'"),
        ({"data": {"path": "x"}}, "'path' has no effect on source 'synthetic'"),
        ({"data": {"source": "presplit", "path": "x", "k_core": 5}}, "'k_core' has no effect"),
        ({"data": {"max_blocks": -1}}, "must be at least 0"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(table, message):
    if message is None:
        assert from_dict(RunConfig, table).mask == "block"
        return
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, table)


def test_configurations_survive_their_dictionary(config):
    assert from_dict(RunConfig, to_dict(config)) == config
    assert config.evaluate.headline == "recall@5"
    assert EvaluateConfig(ks=(20,)).headline == "recall@20"


def test_sources_are_told_apart(config, tmp_path):
    from ccdgraph.data import write_stream

    stream = open_stream(config.data)
    native = write_stream(stream, tmp_path / "native")
    assert detect_source(native) == "stream"
    again = open_stream(DataConfig(source="stream", path=str(native)))
    assert fingerprint(again) == fingerprint(stream)
    (tmp_path / "block_0.csv").write_text("user,item,split\n0,0,train\n0,1,test\n")
    assert detect_source(tmp_path) == "presplit"
    assert len(open_stream(DataConfig(source="presplit", path=str(tmp_path)))) == 1
    rows = "".join(f"{u},{i},{10 * i}\n" for u in range(4) for i in range(6))
    (tmp_path / "rows.csv").write_text("uid,iid,time\n" + rows)
    assert detect_source(tmp_path / "rows.csv") == "events"
    events = DataConfig(
        source="events", path=str(tmp_path / "rows.csv"), user="uid", num_blocks=1, k_core=2
    )
    assert len(open_stream(events)) == 2


def test_a_device_that_is_not_there_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'device' is 'cuda', but torch finds none"):
        run(replace(config, device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
