import subprocess
import sys

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
