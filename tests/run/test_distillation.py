"""Static distillation: what it leaves and refuses, and that a student learns from a teacher."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from ccdgraph import checkpoint
from ccdgraph.cli import app
from ccdgraph.config import ConfigError, from_dict, load, rng, to_toml
from ccdgraph.data import Interactions, UserItems, read_split, synthetic_stream
from ccdgraph.distill.labels import LabelWriter, SoftLabels, identity, labels_of
from ccdgraph.distill.methods import METHODS
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.run import DistillConfig, Watcher, distill, open_stream, recommend
from ccdgraph.run.protocol import ProtocolConfig, Ruler

TABLE = {
    "data": {
        "source": "synthetic",
        "synthetic": {"num_users": 80, "num_items": 60, "num_interactions": 2400},
        "base": 0.5,
        "num_blocks": 1,
    },
    "student": {"model": {"backbone": "MF", "dim": 8}, "fit": {"epochs": 2, "lr": 0.01}},
    "teachers": [
        {"model": {"backbone": "MF", "dim": 12}, "fit": {"epochs": 3, "lr": 0.01}},
        {"model": {"backbone": "LightGCN", "dim": 12}, "fit": {"epochs": 3, "lr": 0.01}},
    ],
    "measure": {"ks": [5, 10], "select": "recall@5"},
}
SMALL = {
    **{"rrd": {"k": 5}, "ir": {"k": 5}, "htd": {"num_groups": 3}, "rd": {"k": 3, "depth": 5}},
    "sampled-rrd": {"depth": 10, "k": 4},
    "ir-rrd": {"depth": 10, "k": 4, "k_users": 4},
    "cd": {"depth": 10, "k": 4},
    "concf": {"k": 4, "depth": 10, "start": 0, "every": 1},
    "hetcomp": {"k": 10, "compared": 5, "order": 5, "every": 1},
}


def config(*names: str, **changes) -> DistillConfig:
    methods = {name: SMALL[name] for name in names if name in SMALL}
    return from_dict(DistillConfig, TABLE | {"distill": names, "methods": methods} | changes)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A whole distillation that no test may change, and its folder."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    return distill(config("rrd"), folder), folder


def test_a_folder_tells_all(taught):
    result, folder = taught
    about = json.loads((folder / "run.json").read_text())
    models = ["teacher 0", "teacher 1", "teacher", "reference", "student"]
    assert list(about["models"]) == models and about["complete"]
    rows = pd.read_parquet(folder / "metrics.parquet")
    assert set(rows.model) == set(models)
    student = rows[rows.model == "student"].set_index(["split", "metric"]).value
    for metric in ("recall@5", "ndcg@10", "hit@5"):
        assert student["test", metric] == result.value("student", metric)
    assert student["training", "seconds_per_epoch"] > 0
    assert student["training", "peak_host_bytes"] > 1e6
    assert set(result.agreement) == {"overlap@20", "kendall_tau@20", "cka_user", "cka_item"}
    assert len(recommend(folder, synthetic_stream(80, 60, 2400, num_blocks=1).users[0], 3)) == 3


@pytest.mark.parametrize(
    "names",
    [
        *(("de-rrd",), ("phr",), ("ftd",), ("htd", "rrd"), ("ir-rrd",), ("rd",), ("cd",)),
        *(("regression",), ("concf",), ("hetcomp",), ("none",)),
    ],
    ids="+".join,
)
def test_any_methods_distil(taught, tmp_path, names):
    """From the teachers of another folder."""
    asked = config(*names, teachers=[], teachers_from=str(taught[1]), reference=False)
    result = distill(asked, tmp_path / "run")
    values = result.notes["student"]["metrics"]["test"].values()
    assert all(0 <= value <= 1 for value in values)
    assert result.notes["teacher"] == taught[0].notes["teacher"]


def test_an_ensemble_is_measured_once(taught, tmp_path, monkeypatch):
    """By the folder that trained its members, unless this one measures otherwise."""
    seen = []
    measure = Ruler.measure

    def counted(self, scorer, split):
        seen.append(type(scorer).__name__)
        return measure(self, scorer, split)

    monkeypatch.setattr(Ruler, "measure", counted)
    source = {"teachers": [], "teachers_from": str(taught[1]), "reference": False}
    distill(config("rrd", **source), tmp_path / "alike")
    assert "Ensemble" not in seen
    other = distill(config("rrd", **source, measure={"ks": [7], "select": "last"}), tmp_path / "b")
    assert seen.count("Ensemble") == 2 and "recall@7" in other.notes["teacher"]["metrics"]["test"]


def test_heads_are_measured_together(tmp_path):
    """By what they agree on; not where one is trained alone, or an earlier epoch is kept."""
    last = {"ks": [5], "select": "last"}
    own = {"teachers": [], "reference": False, "base_weight": 0.0}
    found = distill(config("concf", **own, measure=last), tmp_path / "all")
    assert 0 <= found.notes["student"]["ensemble"]["valid"]["recall@5"] <= 1
    alone = {"concf": SMALL["concf"] | {"alone": True}}
    for name, changes in (("alone", {"methods": alone, "measure": last}), ("kept", {})):
        found = distill(replace(config("concf", **own), **_typed(changes)), tmp_path / name)
        assert "ensemble" not in found.notes["student"]


def _typed(changes: dict) -> dict:
    measure = changes.get("measure")
    return changes | ({"measure": from_dict(ProtocolConfig, measure)} if measure else {})


def test_resumed_it_trains_what_is_missing_alone(taught, tmp_path):
    whole = config("rrd")

    def stop(label: str, done: int, total: int) -> None:
        if label == "block 0 student":
            raise KeyboardInterrupt

    watcher = Watcher()
    watcher.epoch = stop
    with pytest.raises(KeyboardInterrupt):
        distill(whole, tmp_path / "run", watcher=watcher)
    trained = []
    watcher.epoch, watcher.stage = lambda *_: None, lambda label, _: trained.append(label)
    result = distill(whole, tmp_path / "run", resume=True, watcher=watcher)
    assert trained == ["block 0 student"]
    for name in ("student", "reference", "teacher"):
        assert result.notes[name]["metrics"] == taught[0].notes[name]["metrics"]


def test_a_folder_in_use_is_refused(taught):
    with pytest.raises(ValueError, match="is not empty; add --resume"):
        distill(config("rrd"), taught[1])
    with pytest.raises(ValueError, match="was begun with 'seed' = 0, not 1"):
        distill(config("rrd", seed=1), taught[1], resume=True)


def test_a_student_is_compared_with_itself_alone(taught):
    """Without a method the student is the reference, bit by bit; only the seed decides."""
    result, folder = taught
    again = distill(config(teachers=[], reference=True), folder.parent / "alone")
    assert again.notes["student"]["metrics"] == again.notes["reference"]["metrics"]
    assert again.notes["student"]["metrics"] == result.notes["reference"]["metrics"]


def test_a_teacher_that_the_student_beats_is_warned_of(tmp_path, caplog):
    """And one that beats it is not; the teacher here is not trained at all."""
    idle = {"model": {"backbone": "MF", "dim": 4}, "fit": {"epochs": 1, "lr": 1e-9}}
    student = {"model": {"dim": 8, "backbone": "MF"}, "fit": {"epochs": 20, "lr": 0.02}}
    result = distill(config("rrd", teachers=[idle], student=student), tmp_path / "run")
    assert len(result.warnings) == 1 and "train a better teacher" in result.warnings[0]
    assert "train a better teacher" in caplog.text
    able = student | {"model": {"dim": 16, "backbone": "MF"}}
    weak = student | {"fit": {"epochs": 1, "lr": 1e-9}}
    assert not distill(config("rrd", teachers=[able], student=weak), tmp_path / "other").warnings


def test_a_student_learns_what_its_teacher_knows(tmp_path):
    """With no loss of its own; mutation: lists of other users, .10 where the teacher has .66."""
    able = {"model": {"dim": 16, "backbone": "MF"}, "fit": {"epochs": 30, "lr": 0.02}}
    student = {"model": {"dim": 8, "backbone": "MF"}, "fit": {"epochs": 30, "lr": 0.02}}
    big = {"num_users": 200, "num_items": 150, "num_interactions": 10000, "num_communities": 6}
    data = TABLE["data"] | {"synthetic": big | {"affinity": 0.95, "drift": 0.0}}
    result = distill(
        config("rrd", teachers=[able], student=student, base_weight=0.0, data=data),
        tmp_path / "run",
    )
    assert result.value("student") > 0.8 * result.value("teacher") > 0.1


def test_lists_of_a_label_store_teach(tmp_path):
    """As the teacher does that wrote them."""
    own = config("rrd", teachers=[TABLE["teachers"][0]], reference=False)
    stream = open_stream(replace(own.data, max_blocks=1))
    first = distill(own, tmp_path / "first", stream=stream)
    tensors, _ = checkpoint.load(tmp_path / "first" / "teacher 0")
    teacher, block = Embeddings(tensors["user"], tensors["item"]), stream[0]
    seen = UserItems.from_interactions([block.train], block.num_users, block.num_items)
    everyone = torch.arange(block.num_users)
    score, item = recommend_lists(teacher, everyone, 10, seen)
    labels = SoftLabels.from_lists(everyone, item, score, version="a")
    with LabelWriter(tmp_path / "store", identity(stream)) as writer:
        writer.write(labels, num_users=block.num_users, num_items=block.num_items)
    asked = config("rrd", teachers=[], lists_from=str(tmp_path / "store"), reference=False)
    second = distill(asked, tmp_path / "second", stream=stream)
    assert second.notes["student"]["metrics"] == first.notes["student"]["metrics"]
    assert "teacher" not in second.notes and not second.agreement
    assert second.labels == {"version": "a", "coverage": 1.0} and not second.warnings
    with pytest.raises(ValueError, match="needs a teacher to ask, not stored lists"):
        distill(replace(asked, distill=("de",), methods={}), tmp_path / "third", stream=stream)


def test_of_several_versions_in_a_store_one_is_named(tmp_path, caplog):
    """Taking the newest would change the student when someone else writes to the store."""
    asked = config("rrd", teachers=[], lists_from=str(tmp_path / "store"), reference=False)
    stream = open_stream(replace(asked.data, max_blocks=1))
    sizes, draw = {"num_users": stream[0].num_users, "num_items": stream[0].num_items}, rng(0)
    half = stream[0].train.user.unique()[::2]
    with LabelWriter(tmp_path / "store", identity(stream)) as writer:
        for version, user in (("a-0", half), ("b-0", half)):
            item = torch.rand(len(user), sizes["num_items"], generator=draw).argsort(1)[:, :10]
            labels = SoftLabels.from_lists(user, item, item.float(), version=version)
            writer.write(labels, **sizes)
    with pytest.raises(ValueError, match="by these teacher versions: a-0, b-0; name one"):
        distill(asked, tmp_path / "neither", stream=stream)
    values = {}
    for version in ("a-0", "b-0"):
        done = distill(replace(asked, lists_version=version), tmp_path / version, stream=stream)
        values[version] = done.notes["student"]["metrics"]
        assert done.labels["version"] == version
    assert values["a-0"] != values["b-0"]
    covered = len(half) / len(stream[0].train.user.unique())
    assert done.labels["coverage"] == pytest.approx(covered) and covered < 0.6
    assert "of the users have no label of 'b-0'" in caplog.text
    about = json.loads((tmp_path / "b-0" / "run.json").read_text())
    assert about["labels"] == done.labels
    with pytest.raises(ValueError, match="no labels of 'c-0' for block 0; it has a-0/0, b-0/0"):
        distill(replace(asked, lists_version="c-0"), tmp_path / "other", stream=stream)
    with pytest.raises(ValueError, match="for block 1 by these teacher versions: none; write"):
        labels_of(tmp_path / "store", 1, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": ["rdd"]}, "there is no distillation method 'rdd'"),
        ({"teachers": []}, "'rrd' needs a teacher"),
        ({"lists_from": "x"}, "exclude one another"),
        ({"lists_version": "x"}, "'lists_version' is set without 'lists_from'"),
        ({"trajectory": 1}, "'trajectory' must be 0, or 2 checkpoints and more"),
        ({"distill": ["hetcomp"], "trajectory": 0}, "'hetcomp' needs a 'trajectory'"),
        ({"distill": [], "base_weight": 0.0}, "the student has no loss"),
        ({"measure": {"select": "recall@7"}}, "'select' is 'recall@7'"),
        ({"measure": {"protocol": "sampled", "select": "recall@20"}}, "expected 'last' or one of"),
        ({"measure": {"every": 0}}, "must be numbers of at least 1"),
    ],
)
def test_configurations_that_cannot_be_run_are_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        from_dict(DistillConfig, TABLE | {"distill": ["rrd"]} | changes)
    assert message in str(error.value)


def test_data_that_cannot_be_measured_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'measure' asks for 499 items, the data have"):
        distill(config(measure={"protocol": "sampled", "select": "last"}), tmp_path / "a")
    stream = synthetic_stream(80, 60, 2400, num_blocks=1)
    empty = replace(stream, blocks=(replace(stream[0], valid=Interactions.cat([])),))
    with pytest.raises(ValueError, match="no validation rows"):
        distill(config(teachers=[]), tmp_path / "b", stream=empty)


def test_other_data_than_those_of_the_teachers_are_refused(taught, tmp_path):
    data = TABLE["data"] | {"seed": 5}
    asked = config("rrd", teachers=[], teachers_from=str(taught[1]), data=data)
    with pytest.raises(ValueError, match="was trained on other data"):
        distill(asked, tmp_path / "run")


def test_the_command_distils_and_says_what_is_wrong(tmp_path):
    for split, rows in (
        ("train", "0,0\n0,1\n1,1\n1,2\n2,0\n"),
        ("valid", "0,2\n"),
        ("test", "1,0\n"),
    ):
        (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(f"user,item\n{rows}".encode()))
    assert read_split(tmp_path)[0].num_users == 3
    data = {"source": "split", "path": str(tmp_path)}
    asked = config("rrd", data=data, measure={"ks": [1, 2], "select": "recall@1"})
    asked = replace(asked, methods={"rrd": {"k": 2}})
    (tmp_path / "one.toml").write_text(to_toml(asked))
    words = ["distill", str(tmp_path / "one.toml"), "--to", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "student and teacher: overlap@20" in shown.output and "recall@2" in shown.output
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 2 and "add --resume" in failed.output


def test_the_configuration_of_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "distil.rst").read_text()
    block = page.partition("toml\n\n")[2].partition("::")[0]
    (tmp_path / "distil.toml").write_text(dedent(block))
    asked = load(DistillConfig, tmp_path / "distil.toml")
    assert asked.distill == ("de-rrd",) and asked.measure.select == "hit@5"
    overrides = ["teachers=[]", "teachers_from=a", 'distill=["phr"]', "methods={}"]
    assert load(DistillConfig, tmp_path / "distil.toml", overrides).teachers_from == "a"
    assert {name for name in METHODS if f"``{name}``" not in page} == set()


@pytest.mark.parametrize(
    ("student", "able", "why"),
    [
        ("MultVAE", {"rrd", "ir", "sampled-rrd", "ir-rrd", "rd", "cd", "hetcomp"}, "whole user"),
        ("ItemMultVAE", {"rrd", "ir"}, "item"),
        ("NeuMF", {"rrd", "ir", "sampled-rrd", "ir-rrd", "rd", "cd", "hetcomp"}, "by a network"),
    ],
)
def test_a_student_takes_a_method_or_says_why_not(student, able, why, tmp_path):
    model = {"model": {"backbone": student, "dim": 8}, "fit": {"epochs": 2, "lr": 0.01}}
    team = [TABLE["teachers"][0]]
    for name in METHODS:
        own = config(name, student=model, reference=False, teachers=team)
        if name in able:
            result = distill(own, tmp_path / name)
            assert len(result.notes["student"]["loss"]) == 2
        else:
            with pytest.raises(ConfigError, match=rf"^'{name}' [^;]*{why}[^;]*; use another"):
                distill(own, tmp_path / name)
            assert not (tmp_path / name).exists()


def test_teachers_of_every_kind_are_stored_taken_over_and_followed(tmp_path):
    kinds = ("NeuMF", "ItemMultVAE", "MultVAE", "CML")
    team = [
        {"model": {"backbone": kind, "dim": 8}, "fit": {"epochs": 4, "lr": 0.05}} for kind in kinds
    ]
    first = distill(config("hetcomp", teachers=team, reference=False), tmp_path / "first")
    assert first.agreement.keys() == {"overlap@20", "kendall_tau@20"}  # no geometry of a network
    again = from_dict(
        DistillConfig,
        TABLE
        | {"teachers": [], "teachers_from": str(tmp_path / "first"), "reference": False}
        | {"distill": ["hetcomp"], "methods": {"hetcomp": SMALL["hetcomp"]}},
    )
    second = distill(again, tmp_path / "second")
    for metric in ("recall@5", "ndcg@10"):
        assert second.value("student", metric) == first.value("student", metric)
        assert second.value("teacher", metric) == first.value("teacher", metric)
    with pytest.raises(ValueError, match="no embeddings that score by inner products"):
        distill(config("de", teachers=team[:1], reference=False), tmp_path / "third")


def test_a_network_serves_the_lists_it_scores(tmp_path):
    model = {"model": {"backbone": "NeuMF", "dim": 8}, "fit": {"epochs": 2, "lr": 0.01}}
    distill(config("rrd", student=model, reference=False), tmp_path / "run")
    user = synthetic_stream(80, 60, 2400, num_blocks=1).users[0]
    assert len(recommend(tmp_path / "run", user, 3)) == 3
