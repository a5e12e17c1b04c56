"""Data sets: the published ones by name, and the embedded synthetic stream."""

from ccdgraph.data.datasets.catalogue import DATASETS, DatasetName
from ccdgraph.data.datasets.layouts import Dataset, Layout
from ccdgraph.data.datasets.read import read_dataset
from ccdgraph.data.datasets.skewed import skewed_interactions
from ccdgraph.data.datasets.synthetic import synthetic_stream

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetName",
    "Layout",
    "read_dataset",
    "skewed_interactions",
    "synthetic_stream",
]
