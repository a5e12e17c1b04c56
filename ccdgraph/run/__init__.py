"""One run from configuration to results: the stream, the learner, the measurements, the files."""

from ccdgraph.run.config import DataConfig, EvaluateConfig, RunConfig, SyntheticConfig
from ccdgraph.run.distill_config import DistillConfig, Learner
from ccdgraph.run.distillation import distill
from ccdgraph.run.distilled import Distilled
from ccdgraph.run.export import export
from ccdgraph.run.loop import run
from ccdgraph.run.plan import Stage, Watcher, plan
from ccdgraph.run.protocol import ProtocolConfig
from ccdgraph.run.record import Row, RunResult
from ccdgraph.run.serve import Served, recommend
from ccdgraph.run.signatures import Signature
from ccdgraph.run.source import detect_source, open_stream

__all__ = [
    "DataConfig",
    "DistillConfig",
    "Distilled",
    "EvaluateConfig",
    "Learner",
    "ProtocolConfig",
    "Row",
    "RunConfig",
    "RunResult",
    "Served",
    "Signature",
    "Stage",
    "SyntheticConfig",
    "Watcher",
    "detect_source",
    "distill",
    "export",
    "open_stream",
    "plan",
    "recommend",
    "run",
]
