"""Reports that no test may change."""

import pytest
from handmade_suite import write_suite

from ccdgraph.config import load
from ccdgraph.report import write_report
from ccdgraph.run import RunConfig, run

CONFIG = """
[data]
num_blocks = 2
synthetic = { num_users = 60, num_items = 40, num_interactions = 900, num_communities = 4 }

[evaluate]
ks = [5]
scorers = ["student", "teacher", "stability"]

[ccd]
student = { dim = 2 }
teachers = [{ dim = 3 }, { backbone = "MF", dim = 3 }]
base = { fit = { epochs = 1 } }
generation = { fit = { epochs = 1 } }
update = { fit = { epochs = 1 } }
teacher = { fit = { epochs = 1 } }
"""


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return load(RunConfig, path)


@pytest.fixture(scope="session")
def reported_run(tiny_config, tmp_path_factory):
    """The folder of a real run with its report."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    run(tiny_config, folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def reported_suite(tmp_path_factory):
    """The folder of the suite written by hand with its report."""
    folder = tmp_path_factory.mktemp("reported") / "suite"
    write_suite(folder)
    write_report(folder)
    return folder
