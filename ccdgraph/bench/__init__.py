"""Benchmark suites: many runs as one table, that go on where they stopped."""

from ccdgraph.bench.cell import Outcome
from ccdgraph.bench.paired import compare, holm
from ccdgraph.bench.results import Comparison, read_results
from ccdgraph.bench.run import run_suite
from ccdgraph.bench.suite import Cell, StrategyEntry, SuiteConfig, cells, load_suite

__all__ = [
    "Cell",
    "Comparison",
    "Outcome",
    "StrategyEntry",
    "SuiteConfig",
    "cells",
    "compare",
    "holm",
    "load_suite",
    "read_results",
    "run_suite",
]
