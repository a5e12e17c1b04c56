"""Continual learning: growth, replay, regularisers, and the strategies made of them."""

from ccdgraph.continual.adaptive import AdaptiveCCD, AdaptiveConfig
from ccdgraph.continual.ader import ADER, ADERConfig
from ccdgraph.continual.ccd import CCD
from ccdgraph.continual.config import CCDConfig
from ccdgraph.continual.contrastive import Contrastive, ContrastiveConfig
from ccdgraph.continual.experience import ExperienceReplay, ExperienceReplayConfig
from ccdgraph.continual.finetune import FineTune, FineTuneConfig
from ccdgraph.continual.fire import FIRE, FIREConfig
from ccdgraph.continual.fullbatch import FullBatch, FullBatchConfig
from ccdgraph.continual.graphsail import GraphSAIL, GraphSAILConfig
from ccdgraph.continual.growth import grow
from ccdgraph.continual.online import Online, OnlineConfig
from ccdgraph.continual.pisa import PISA, PISAConfig
from ccdgraph.continual.reloop2 import ReLoop2, ReLoop2Config
from ccdgraph.continual.spmf import SPMF, SPMFConfig
from ccdgraph.continual.strategy import Strategy

__all__ = [
    "ADER",
    "CCD",
    "FIRE",
    "PISA",
    "SPMF",
    "ADERConfig",
    "AdaptiveCCD",
    "AdaptiveConfig",
    "CCDConfig",
    "Contrastive",
    "ContrastiveConfig",
    "ExperienceReplay",
    "ExperienceReplayConfig",
    "FIREConfig",
    "FineTune",
    "FineTuneConfig",
    "FullBatch",
    "FullBatchConfig",
    "GraphSAIL",
    "GraphSAILConfig",
    "Online",
    "OnlineConfig",
    "PISAConfig",
    "ReLoop2",
    "ReLoop2Config",
    "SPMFConfig",
    "Strategy",
    "grow",
]
