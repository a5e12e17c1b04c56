import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ccdgraph


def test_every_offered_name_is_there():
    for name in ccdgraph.__all__:
        assert getattr(ccdgraph, name).__name__ == name
    assert set(ccdgraph.__all__) == set(ccdgraph._NAMES) <= set(dir(ccdgraph))


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'LightGNC'"):
        ccdgraph.LightGNC  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, ccdgraph; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_takes_less_than_three_tenths_of_a_second():
    """Beyond torch and PyG, imported first; of the processor, so that load does not count."""
    code = (
        "import time, torch, torch_geometric; start = time.process_time(); import ccdgraph; "
        "print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) <= 0.3


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == ccdgraph.__version__
