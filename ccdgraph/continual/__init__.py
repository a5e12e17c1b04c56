"""Continual learning: growth, replay, regularisers, and the strategies made of them."""

from ccdgraph.continual.ccd import CCD
from ccdgraph.continual.config import CCDConfig
from ccdgraph.continual.growth import grow
from ccdgraph.continual.strategy import Strategy

__all__ = ["CCD", "CCDConfig", "Strategy", "grow"]
