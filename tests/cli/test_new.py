import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.cli.new import module_name


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, ["new", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("kind", ["backbone", "term", "strategy"])
def test_what_is_written_passes_the_test_written_with_it(kind, tmp_path):
    said = invoke(kind, "MyOwn", "--to", tmp_path).stdout
    assert f"python -m pytest {tmp_path / 'test_my_own.py'}" in said
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_own.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("kind", ["backbone", "term", "strategy"])
def test_what_is_written_keeps_the_style_of_the_package(kind, tmp_path):
    ruff = pytest.importorskip("ruff", reason="ruff is not installed")
    invoke(kind, "MyOwn", "--to", tmp_path)
    command = [ruff.find_ruff_bin(), "check", "--line-length", "100", "--isolated", tmp_path]
    subprocess.run([*command, "--select", "E,F,B,UP,N,SIM", "--ignore", "B008"], check=True)


def test_without_pytest_it_is_the_first_thing_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("ccdgraph.cli.new.find_spec", lambda name: None)
    said = invoke("backbone", "MyOwn", "--to", tmp_path).stdout
    assert said.index("pip install pytest") < said.index("python -m pytest")


def test_nothing_is_overwritten(tmp_path):
    invoke("term", "MyOwn", "--to", tmp_path)
    (tmp_path / "my_own.py").write_text("mine")
    said = invoke("backbone", "MyOwn", "--to", tmp_path, code=2).stderr
    assert "'--to'" in said or "--to folder" in said
    assert (tmp_path / "my_own.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["my_gat", "My-GAT", "../Up", ""])
def test_a_name_that_is_no_class_is_refused(name, tmp_path):
    assert "as in 'MyGAT'" in invoke("backbone", name, "--to", tmp_path, code=2).stderr
    assert not any(tmp_path.iterdir())


def test_modules_are_named_after_their_class():
    names = {"MyGAT": "my_gat", "GAT": "gat", "LightGCN2": "light_gcn2", "RRD": "rrd"}
    assert {name: module_name(name) for name in names} == names
