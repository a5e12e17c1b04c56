"""Backbones: MF, LightGCN with and without content, MultVAE and the adapter for PyG modules."""

from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.config import BackboneConfig
from ccdgraph.nn.content import ContentLightGCN
from ccdgraph.nn.gnn import GNN
from ccdgraph.nn.lightgcn import LightGCN
from ccdgraph.nn.mf import MF
from ccdgraph.nn.multvae import MultVAE

__all__ = [
    "GNN",
    "MF",
    "Backbone",
    "BackboneConfig",
    "ContentLightGCN",
    "Embeddings",
    "LightGCN",
    "MultVAE",
]
