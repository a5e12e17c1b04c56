"""PyG's LightGCN as its own example trains it, one of the peers of ``peers.py``."""

from __future__ import annotations

import torch
from parts.peers_world import BATCH, DIM, LR, tables, wait
from torch_geometric.nn import LightGCN as PyGLightGCN

from ccdgraph.config import rng
from ccdgraph.data.stream import Block
from ccdgraph.nn import Embeddings


class PyG:
    """PyG's model and its own loss over the same rows, an epoch a call."""

    def __init__(self, block: Block, seed: int) -> None:
        self.block, device = block, block.train.user.device
        self.num_nodes = block.num_users + block.num_items
        self.user, self.item = block.train.user, block.train.item + block.num_users
        self.edges = torch.stack(
            [torch.cat([self.user, self.item]), torch.cat([self.item, self.user])]
        )
        self.model = PyGLightGCN(self.num_nodes, DIM, num_layers=2)
        with torch.no_grad():
            self.model.embedding.weight.copy_(torch.cat(tables(block)))
        self.model.to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR)
        self.draw = rng("peers", "pyg", seed, device=device)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """One epoch."""
        device, draw = self.user.device, self.draw
        low, high = self.block.num_users, self.num_nodes
        started = wait(device)
        order = torch.randperm(len(self.user), generator=draw, device=device)
        for place in order.split(BATCH):
            negative = torch.randint(low, high, (len(place),), generator=draw, device=device)
            pairs = torch.stack(
                [self.user[place].repeat(2), torch.cat([self.item[place], negative])]
            )
            positive, other = self.model(self.edges, pairs).chunk(2)
            # Without its penalty, as the others train without one.
            loss = self.model.recommendation_loss(positive, other, lambda_reg=0.0)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.seconds.append(wait(device) - started)

    @torch.no_grad()
    def embeddings(self) -> Embeddings:
        """Embeddings of everybody."""
        found = self.model.get_embedding(self.edges)
        return Embeddings(*found.split([self.block.num_users, self.block.num_items]))
