"""Data sets: the embedded synthetic stream."""

from ccdgraph.data.datasets.synthetic import synthetic_stream

__all__ = ["synthetic_stream"]
