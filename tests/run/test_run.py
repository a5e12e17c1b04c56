import errno
import json
import os
from dataclasses import replace

import pyarrow.parquet
import pytest
import torch

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.config import load
from ccdgraph.data import fingerprint
from ccdgraph.run import Row, RunConfig, Watcher, open_stream, plan, run

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
    for name in ("checkpoint", "served", "base"):
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
        for name in ("checkpoint", "served", "base")
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


def test_base_teachers_are_taken_over_bitwise(config, straight, tmp_path):
    class Stages(Watcher):
        labels: tuple[str, ...] = ()

        def stage(self, label: str, seconds: float) -> None:
            self.labels += (label,)

    watcher = Stages()
    shared = replace(config, base_from=str(straight))
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
