"""A run labels its stream, and students of the labels are runs as well."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.config import from_dict, to_toml
from ccdgraph.distill.labels import label_block, read_labels, read_manifest
from ccdgraph.run import RunConfig, open_stream, run
from ccdgraph.run.label import amortised, label_run
from ccdgraph.run.learner import build

SETTINGS = {
    "backbone": {"dim": 3},
    "base": {"fit": {"epochs": 2}},
    "fit": {"epochs": 2, "lr": 1e-2},
}


@pytest.fixture(scope="module")
def taught(config, tmp_path_factory):
    """A run of CCD that keeps its states."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    run(replace(config, keep_states=True), folder)
    return folder


@pytest.fixture(scope="module")
def store(taught, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "store"
    label_run(taught, folder, k=10, lags=(0, 1))
    return folder


def student(config, store, **settings) -> RunConfig:
    table = {**SETTINGS, "labels": str(store), **settings}
    return RunConfig(
        data=config.data,
        evaluate=replace(config.evaluate, scorers=None),
        strategy="Online",
        settings=table,
    )


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_labels_are_those_of_the_learner_as_it_was_before_the_block(config, store):
    """Labelling with the last state, which has seen every block, would be refused and differ."""
    stream = open_stream(config.data)
    learner = build("CCD", config.learner, config.seed)
    for block in (1, 2):
        learner.update(stream[block - 1])
        version = f"teacher-{block - 1}"
        live = label_block(learner.ensemble(), stream, block, version=version, k=10)
        stored, _ = read_labels(store, version, block).for_users(live.user.unique())
        assert torch.equal(stored.item, live.item) and torch.equal(stored.score, live.score)
    held = {(part.version, part.block) for part in read_manifest(store).parts}
    assert held == {("teacher-0", 1), ("teacher-0", 2), ("teacher-1", 2)}


def test_cost_counts_members_and_is_shared_by_students(config, store):
    parts = read_manifest(store).parts
    for part in parts:  # every user whom the teacher knew and who trains in the block, by 2 members
        assert part.cost["forwards"] == 2 * part.users and part.cost["seconds"] > 0
    whole, quarter = amortised(parts, 1), amortised(parts, 4)
    assert quarter["seconds a student"] == whole["seconds"] / 4
    assert quarter["megabytes"] == sum(part.size for part in parts) / 1e6
    with pytest.raises(ValueError, match="'students' is 0"):
        amortised(parts, 0)


def test_students_of_any_size_and_backbone_run_on_one_store(config, store, tmp_path):
    for name, change in (
        ("mf", {"backbone": {"backbone": "MF", "dim": 4}}),
        ("lagging", {"lag": 1, "into": "served"}),
        ("frozen", {"freeze": 0}),
    ):
        found = run(student(config, store, **change), tmp_path / name)
        assert found.learnt == 2 and found.scorers == ("model",)


def test_a_student_without_its_labels_is_refused_before_it_learns(config, store, tmp_path):
    for change, message in (
        ({"teacher": "other"}, "no labels of 'other-0' for block 1"),
        ({"labels": str(tmp_path / "none")}, "is not a label store"),
        ({"lag": 0, "freeze": 5, "teacher": "teacher"}, None),
    ):
        if message is None:
            run(student(config, store, **change), tmp_path / "fine")
            continue
        with pytest.raises(ValueError, match=message):
            run(student(config, store, **change), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    other = replace(config, data=replace(config.data, seed=5))
    with pytest.raises(ValueError, match="labels of another data set"):
        run(student(other, store), tmp_path / "run")


def test_a_damaged_or_older_store_is_refused_and_named(config, store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "store")
    part = next(p for p in (copy / "parts").iterdir() if p.name.startswith("teacher-1-2"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(ValueError, match=f"{part.name}' was altered"):
        run(student(config, copy), tmp_path / "run")
    record = json.loads((copy / "labels.json").read_text())
    (copy / "labels.json").write_text(json.dumps(record | {"format": 0}))
    with pytest.raises(ValueError, match="has format version 0, this release reads 1"):
        run(student(config, copy), tmp_path / "run")


def test_a_run_that_keeps_no_states_makes_no_store(straight, tmp_path):
    with pytest.raises(ValueError, match="keeps no state after block 0; run it with keep_states"):
        label_run(straight, tmp_path / "store")
    with pytest.raises(ValueError, match="holds no run"):
        label_run(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_unknown_scorer_and_other_data_are_refused(taught, tmp_path):
    with pytest.raises(ValueError, match="'scorer' is 'best', the run has 'student', 'teacher'"):
        label_run(taught, tmp_path / "store", scorer="best")
    copy = shutil.copytree(taught, tmp_path / "run")
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("affinity = 0.8", "affinity = 0.7"))
    with pytest.raises(ValueError, match=r"the data of .* have changed|the checkpoint holds"):
        label_run(copy, tmp_path / "other")


def test_other_labels_under_the_same_name_are_refused_and_the_same_do_nothing(taught, tmp_path):
    first = label_run(taught, tmp_path / "store", k=5)
    assert label_run(taught, tmp_path / "store", k=5) == first
    with pytest.raises(ValueError, match="give the teacher a new version"):
        label_run(taught, tmp_path / "store", k=6)
    label_run(taught, tmp_path / "store", k=6, teacher="longer")


def test_the_command_labels_and_says_what_a_student_pays(config, taught, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = invoke("label", taught, "--to", "store", "--k", 10, "--lag", 0, "--students", 4)
    assert "teacher-1" in told.output and "for each of 4 students" in told.output
    (tmp_path / "student.toml").write_text(to_toml(student(config, "store")))
    invoke("run", "student.toml", "--to", "student")
    about = json.loads((tmp_path / "student" / "run.json").read_text())
    assert about["complete"] and about["config"]["settings"]["labels"] == "store"
    invoke("distill", "student.toml", "--to", "other_way", "--labels", "store")
    other = json.loads((tmp_path / "other_way" / "run.json").read_text())
    assert other["results"] == about["results"]
    refused = invoke("label", taught, "--to", "other", "--students", 0, code=2)
    assert refused.stderr == "'students' is 0; expected at least 1\n"
    assert not (tmp_path / "other").exists()


def test_settings_of_a_student_are_checked():
    with pytest.raises(ValueError, match="expected one of 'served', 'auxiliary'"):
        from_dict(RunConfig, {"strategy": "Online", "settings": {"into": "both"}})
