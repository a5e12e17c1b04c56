"""One run from configuration to results: the stream, the learner, the measurements, the files."""

from ccdgraph.run.config import DataConfig, EvaluateConfig, RunConfig, SyntheticConfig
from ccdgraph.run.loop import run
from ccdgraph.run.plan import Stage, Watcher, plan
from ccdgraph.run.record import Row, RunResult
from ccdgraph.run.serve import recommend
from ccdgraph.run.signatures import Signature
from ccdgraph.run.source import detect_source, open_stream

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "Row",
    "RunConfig",
    "RunResult",
    "Signature",
    "Stage",
    "SyntheticConfig",
    "Watcher",
    "detect_source",
    "open_stream",
    "plan",
    "recommend",
    "run",
]
