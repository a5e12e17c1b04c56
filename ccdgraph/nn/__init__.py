"""Backbones: MF, LightGCN, MultVAE and the adapter for PyG modules."""

from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.gnn import GNN
from ccdgraph.nn.lightgcn import LightGCN
from ccdgraph.nn.mf import MF
from ccdgraph.nn.multvae import MultVAE

__all__ = ["GNN", "MF", "Backbone", "Embeddings", "LightGCN", "MultVAE"]
