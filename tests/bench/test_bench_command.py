import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccdgraph.bench.cell import Task
from ccdgraph.cli import app

ROOT = Path(__file__).parents[2]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def example() -> str:
    """The suite of the documentation."""
    text = (ROOT / "docs" / "benchmarks.rst").read_text(encoding="utf-8")
    block = text.split(".. code-block:: toml\n\n")[1].split("\n::\n")[0]
    return "\n".join(line.removeprefix("    ") for line in block.splitlines())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The documented suite, of one seed and one protocol, in a current directory of its own."""
    monkeypatch.chdir(tmp_path)
    text = example().replace("[0, 1, 2]", "[0]").replace(', "next"', "")
    assert len(tomllib.loads(text)["strategies"]) == 2
    Path("small.toml").write_text(text)
    return tmp_path


def test_the_documented_suite_runs(small):
    shown = invoke("small.toml")
    assert shown.stderr.startswith("small: 3 cells in runs/small\n")
    assert "planted within strict LightGCN FineTune seed 0: done, " in shown.stderr
    head = "## planted, protocol within, mask strict, backbone LightGCN"
    for words in (head, "| FineTune/block-graph | model |", "| mine | H |", "results.tex are in"):
        assert words in shown.stdout
    again = invoke("small.toml", "--to", "runs/small")
    assert again.stdout == shown.stdout and ": done" not in again.stderr


def test_ctrl_c_says_how_to_go_on(small, monkeypatch):
    def press(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Task, "done", property(press))
        stopped = invoke("small.toml", "--jobs", 2, "--to", "a suite", code=130)
    last = stopped.stderr.splitlines()[-1]
    assert last == "stopped; go on with: ccdgraph bench small.toml --to 'a suite' --jobs 2"
    assert invoke("small.toml", "--to", "a suite").exit_code == 0


def test_some_strategies_may_be_run_first(small):
    shown = invoke("small.toml", "--only", "mine", "--set", "seeds=[0]")
    assert "2 of 3 cells are not run yet" in shown.stderr
    assert "| FineTune | not run |" in shown.stdout
    assert "cells are not run yet" in invoke("small.toml", "--limit", 0).stderr


def test_failed_cells_end_the_command_with_one(small):
    text = Path("small.toml").read_text()
    Path("small.toml").write_text(text.replace("epochs = 4 }", "epochs = 4, lr = 1e30 }"))
    shown = invoke("small.toml", code=1)
    assert "1 of 3 cells failed; run again to retry them" in shown.stderr.splitlines()[-1]
    assert "mine seed 0: failed" in shown.stderr
    assert "mine seed 0: FloatingPointError: " in shown.stdout


def test_suites_that_cannot_be_read_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("data = { x = {} }\nstrategies = { FineTuen = {} }\n")
    for arguments, words in (
        (["none.toml"], "cannot read 'none.toml'"),
        (["broken.toml"], "strategy 'FineTuen': no 'FineTuen' in module 'ccdgraph.continual'; did"),
    ):
        sentence = invoke(*arguments, code=2).stderr
        assert sentence.count("\n") == 1 and words in sentence
    assert not Path("runs").exists()
