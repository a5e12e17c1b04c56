"""The demonstration: a mixed ensemble and a small student on the embedded stream."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable

from ccdgraph.config import apply_override, from_dict
from ccdgraph.run import RunConfig

DEMO = """
[data.synthetic]
num_users = 1000
num_items = 600
num_interactions = 24_000

[evaluate]
ks = [20, 50]
scorers = ["student", "teacher"]

[ccd.student]
backbone = "LightGCN"
dim = 8

[[ccd.teachers]]
backbone = "LightGCN"
dim = 32

[[ccd.teachers]]
backbone = "MF"
dim = 32

[[ccd.teachers]]
backbone = "MultVAE"
dim = 32

[ccd.base]
batch_size = 1024
fit = { epochs = 30, lr = 5e-3, patience = 3 }

[ccd.generation]
batch_size = 2048
fit = { epochs = 10, lr = 2e-2 }

[ccd.update]
fit = { epochs = 5, lr = 5e-3 }

[ccd.teacher]
fit = { epochs = 5, lr = 5e-3 }
"""


def demo_config(overrides: Iterable[str] = ()) -> RunConfig:
    """What ``ccdgraph demo`` runs.

    >>> [teacher.backbone for teacher in demo_config(["seed=1"]).ccd.teachers]
    ['LightGCN', 'MF', 'MultVAE']
    """
    table = tomllib.loads(DEMO)
    for override in overrides:
        apply_override(table, override)
    return from_dict(RunConfig, table)
