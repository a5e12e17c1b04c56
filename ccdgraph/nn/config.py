"""Which backbone to build, as configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ccdgraph.config import ConfigError, resolve, rng
from ccdgraph.nn.backbone import Backbone
from ccdgraph.nn.gnn import GNN


@dataclass(frozen=True)
class BackboneConfig:
    """A backbone by import path.

    Args:
        backbone: ``"module:Name"`` of a :class:`Backbone`, of a PyG module such as
            ``"torch_geometric.nn:GraphSAGE"``, or the bare name of a class in ``ccdgraph.nn``.
        dim: width of the embedding tables.
        options: further keyword arguments of the class, such as ``num_layers``.
        loss: what it learns triplets by: that of its class, or ``"softmax"``, the choice of the
            positive among the negatives of a batch (:class:`ccdgraph.train.SampledSoftmax`).
        temperature: of the softmax.
    """

    backbone: str = "LightGCN"
    dim: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: Literal["own", "softmax"] = "own"
    temperature: float = 0.2

    @property
    def path(self) -> str:
        """The import path in full."""
        return self.backbone if ":" in self.backbone else f"ccdgraph.nn:{self.backbone}"

    def kind(self) -> type[torch.nn.Module]:
        """The class.

        Raises:
            ConfigError: the path names no class of modules.
        """
        cls = resolve(self.path)
        if not isinstance(cls, type) or not issubclass(cls, torch.nn.Module):
            raise ConfigError(
                f"'{self.path}' is not a class of modules; name a Backbone or a PyG module"
            )
        return cls

    def build(
        self, num_users: int, num_items: int, *, generator: torch.Generator | None = None
    ) -> Backbone:
        """A fresh backbone on the CPU, whose initial values ``generator`` alone decides.

        Raises:
            ConfigError: the path names no class, the class refuses the options, or it has no
                cosines to learn by.

        >>> BackboneConfig("MF", dim=4).build(3, 2).user.shape
        torch.Size([3, 4])
        """
        cls = self.kind()
        softmax = self.loss == "softmax"
        own = issubclass(cls, Backbone) and (not cls.inner or cls.loss in ("hinge", "multinomial"))
        if softmax and own:
            raise ConfigError(
                f"'{self.path}' cannot learn by 'loss = \"softmax\"', which compares cosines where "
                "others use BPR; leave it out"
            )
        try:
            model = self._build(cls, num_users, num_items, generator)
        except TypeError as error:
            raise ConfigError(
                f"'{self.path}' cannot be built with {dict(self.options)}: {error}"
            ) from error
        if softmax:
            model.loss, model.temperature = "softmax", self.temperature
        return model

    def _build(
        self,
        cls: type[torch.nn.Module],
        num_users: int,
        num_items: int,
        generator: torch.Generator | None,
    ) -> Backbone:
        sizes = num_users, num_items, self.dim
        # Layers inside a backbone draw from the global generator; the fork gives it back.
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None:
                seed = rng(generator.initial_seed(), "layers").initial_seed()
                torch.default_generator.manual_seed(seed)
            if issubclass(cls, Backbone):
                return cls(*sizes, generator=generator, **self.options)
            return GNN(*sizes, module=cls, generator=generator, **self.options)
