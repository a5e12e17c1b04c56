"""What environment.yml names is what pyproject.toml asks for."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONDA = {"torch": "pytorch", "torch-geometric": "pytorch_geometric"}  # where the names differ


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def environment():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; the extra docs brings it")
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def conda_range(requirement):
    """``torch>=2.6`` as conda-forge has it: ``pytorch >=2.6``."""
    name, comparison, version = requirement.partition(">=")
    assert not {"<", "=", "!", "~", ";", "["} & set(name), "teach this test the new form"
    return f"{CONDA.get(name, name)} {comparison}{version}".strip()


def test_conda_gets_every_required_package_in_the_same_range(project, environment):
    listed = [line for line in environment["dependencies"] if isinstance(line, str)]
    assert f"python {project['requires-python']}" in listed
    for requirement in project["dependencies"]:
        assert conda_range(requirement) in listed


def test_conda_gets_nothing_else_but_pip_the_package_and_torch_scatter(project, environment):
    required = {conda_range(requirement) for requirement in project["dependencies"]}
    required |= {f"python {project['requires-python']}", "pip", "pytorch_scatter"}
    *listed, pip = environment["dependencies"]
    assert set(listed) == required and len(listed) == len(set(listed))
    assert pip == {"pip": ["--editable ."]}
    assert environment["channels"] == ["conda-forge"]


def test_pinned_versions_lie_within_the_ranges_of_the_project(project):
    """A pin below a lower bound, or of a package that is not required, would be a slip."""
    version = pytest.importorskip("packaging.version", reason="packaging is not installed")
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "requirements/constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pins["torch"] = (ROOT / "Makefile").read_text().split("torch==")[-1].split()[0].strip('"')
    pins = {name.lower().replace("_", "-"): pin for name, pin in pins.items()}
    extras = project["optional-dependencies"]
    installed = [*project["dependencies"], *extras["report"], *extras["test"], *extras["docs"]]
    for line in installed:
        requirement = requirements.Requirement(line)
        pin = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version.Version(pin)), line
