"""Teacher labels, written once and read by many students."""

from ccdgraph.distill.labels.score import label_block
from ccdgraph.distill.labels.soft import SoftLabels, StoredLabels
from ccdgraph.distill.labels.source import (
    StoreReader,
    labels_of,
    teacher_before,
    version_after,
)
from ccdgraph.distill.labels.store import (
    LabelManifest,
    LabelPart,
    identity,
    read_labels,
    read_manifest,
)
from ccdgraph.distill.labels.writer import LabelWriter

__all__ = [
    "LabelManifest",
    "LabelPart",
    "LabelWriter",
    "SoftLabels",
    "StoreReader",
    "StoredLabels",
    "identity",
    "label_block",
    "labels_of",
    "read_labels",
    "read_manifest",
    "teacher_before",
    "version_after",
]
