"""A run that is small enough to be repeated, and copies of it to damage."""

import shutil

import pytest

from ccdgraph.config import load
from ccdgraph.run import RunConfig, Watcher, run

CONFIG = """
[data]
num_blocks = 2
synthetic = { num_users = 60, num_items = 40, num_interactions = 900, num_communities = 4 }

[evaluate]
ks = [5]
per_user = true

[ccd]
student = { dim = 2 }
teachers = [{ dim = 3 }, { backbone = "MultVAE", dim = 3 }]
base = { fit = { epochs = 2 } }
generation = { fit = { epochs = 2 } }
update = { updates = 2, fit = { epochs = 2 } }
teacher = { fit = { epochs = 2 } }
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return load(RunConfig, path)


@pytest.fixture(scope="session")
def straight(config, tmp_path_factory):
    """A whole run that no test may change."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    run(config, folder)
    return folder


@pytest.fixture
def copied(straight, tmp_path):
    return shutil.copytree(straight, tmp_path / "run")


@pytest.fixture
def halted(config, tmp_path):
    """A run that was stopped after the first stage of block 1."""

    class Stop(Watcher):
        def stage(self, label: str, seconds: float) -> None:
            if label == "block 1 student":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", watcher=Stop())
    return tmp_path / "run"
