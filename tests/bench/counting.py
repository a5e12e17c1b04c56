"""A strategy that counts, fails or dies as it is told: cheap enough for many cells."""

import os
from dataclasses import dataclass, field

import torch

from ccdgraph.continual import Strategy
from ccdgraph.nn import BackboneConfig, Embeddings


@dataclass(frozen=True)
class CountingConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    sign: float = 1.0
    fails: str = ""


class Counting(Strategy):
    """Serves the item counts of the blocks so far, and a little of the seed."""

    def __init__(self, config: CountingConfig, *, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.count, self.num_users = torch.zeros(0), 0

    def update(self, block):
        if self.config.fails == "raise" and block.index == 1:
            raise RuntimeError("counting is not allowed here")
        if self.config.fails == "die" and block.index == 1:
            os._exit(9)
        count = torch.bincount(block.train.item, minlength=block.num_items).float()
        count[: len(self.count)] += self.count
        self.count, self.num_users = count, block.num_users
        return self.scorers()["counts"]

    def scorers(self):
        noise = torch.rand(len(self.count), generator=torch.Generator().manual_seed(self.seed))
        item = self.config.sign * self.count + self.seed * noise
        return {"counts": Embeddings(torch.ones(self.num_users, 1), item[:, None])}

    def state(self):
        return {"count": self.count, "users": torch.tensor([self.num_users])}

    def restore(self, state, blocks):
        self.count, self.num_users = state["count"], int(state["users"])


@dataclass(frozen=True)
class TwofoldConfig(CountingConfig):
    second: BackboneConfig = field(default_factory=BackboneConfig)


class Twofold(Counting):
    """The same with two backbones to choose."""

    def __init__(self, config: TwofoldConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)


@dataclass(frozen=True)
class BareConfig:
    sign: float = 1.0
    fails: str = ""


class Bare(Counting):
    """The same without a backbone."""

    def __init__(self, config: BareConfig, *, seed: int = 0) -> None:
        super().__init__(CountingConfig(sign=config.sign), seed=seed)
