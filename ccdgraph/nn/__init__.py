"""Backbones: MF, CML, NeuMF, LightGCN (with content or without), MultVAE of both sides, PyG."""

from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.cml import CML
from ccdgraph.nn.config import BackboneConfig
from ccdgraph.nn.content import ContentLightGCN
from ccdgraph.nn.gnn import GNN
from ccdgraph.nn.lightgcn import LightGCN
from ccdgraph.nn.mf import MF
from ccdgraph.nn.multvae import ItemMultVAE, MultVAE
from ccdgraph.nn.neumf import NeuMF

__all__ = [
    "CML",
    "GNN",
    "MF",
    "Backbone",
    "BackboneConfig",
    "ContentLightGCN",
    "Embeddings",
    "ItemMultVAE",
    "LightGCN",
    "MultVAE",
    "NeuMF",
]
