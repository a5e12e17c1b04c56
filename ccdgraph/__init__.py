"""Graph learning for recommenders that never stop learning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ccdgraph.continual import CCD, CCDConfig
    from ccdgraph.data import read_interactions, split_stream, synthetic_stream
    from ccdgraph.data.graph import BipartiteGraph
    from ccdgraph.evaluate import evaluate_block
    from ccdgraph.nn import GNN, MF, BackboneConfig, LightGCN, MultVAE
    from ccdgraph.run import RunConfig, recommend
    from ccdgraph.train import embed, fit

# Where each name lives. They are imported when asked for: the command line answers --help and
# reports errors of usage without waiting for torch.
_NAMES = {
    "BackboneConfig": "ccdgraph.nn",
    "BipartiteGraph": "ccdgraph.data.graph",
    "CCD": "ccdgraph.continual",
    "CCDConfig": "ccdgraph.continual",
    "GNN": "ccdgraph.nn",
    "LightGCN": "ccdgraph.nn",
    "MF": "ccdgraph.nn",
    "MultVAE": "ccdgraph.nn",
    "RunConfig": "ccdgraph.run",
    "embed": "ccdgraph.train",
    "evaluate_block": "ccdgraph.evaluate",
    "fit": "ccdgraph.train",
    "read_interactions": "ccdgraph.data",
    "recommend": "ccdgraph.run",
    "split_stream": "ccdgraph.data",
    "synthetic_stream": "ccdgraph.data",
}

__all__ = [
    "CCD",
    "GNN",
    "MF",
    "BackboneConfig",
    "BipartiteGraph",
    "CCDConfig",
    "LightGCN",
    "MultVAE",
    "RunConfig",
    "embed",
    "evaluate_block",
    "fit",
    "read_interactions",
    "recommend",
    "split_stream",
    "synthetic_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'ccdgraph' has no attribute '{name}'")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
