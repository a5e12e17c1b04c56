"""The report of a distillation, read back."""

import html
import shutil

import pytest
from reading_page import Page
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.config import from_dict
from ccdgraph.report import write_report
from ccdgraph.report.series import brief
from ccdgraph.run import DistillConfig, distill


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A small distillation, and its folder."""
    folder = tmp_path_factory.mktemp("distilled") / "run"
    fit = {"epochs": 1}
    table = {
        "data": {
            "source": "synthetic",
            "synthetic": {"num_users": 60, "num_items": 40, "num_interactions": 900},
        },
        "student": {"model": {"backbone": "MF", "dim": 2}, "fit": fit},
        "teachers": [{"model": {"backbone": "MF", "dim": 3}, "fit": fit}],
        "distill": ["rrd"],
        "methods": {"rrd": {"k": 5}},
        "measure": {"ks": [5], "select": "recall@5"},
    }
    return distill(from_dict(DistillConfig, table), folder), folder


def test_a_distillation_is_reported_with_its_numbers(distilled):
    result, folder = distilled
    page = Page(write_report(folder))
    rows = {row[0]: row[1:] for row in page.table("model", "recall@5")}
    assert set(rows) == set(result.notes) and "student" in rows and "reference" in rows
    for model, values in rows.items():
        metrics = result.notes[model]["metrics"]["test"]
        assert values == [f"{value:.4f}" for value in metrics.values()], model
    shown = {row[0]: row[1] for row in page.table("model", "parameters")}
    assert shown["student"] == brief(result.notes["student"]["parameters"])
    assert dict(page.table("measure", "value"))["cka_user"] == f"{result.agreement['cka_user']:.4f}"
    assert dict(page.table("key", "value"))
    for warning in result.warnings:
        assert warning in html.unescape(page.text)


def test_a_distillation_that_was_stopped_says_how_to_go_on(distilled, tmp_path):
    copy = shutil.copytree(distilled[1], tmp_path / "run")
    (copy / "run.json").unlink()
    result = CliRunner().invoke(app, ["report", str(copy)])
    assert result.exit_code == 2
    sentence = result.stderr
    assert "has not finished; go on with 'ccdgraph distill" in sentence and "--resume" in sentence
