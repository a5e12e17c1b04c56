"""Looking for signs of failure after a block: lists of a sample of users, and a popularity list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccdgraph.data import Stream
from ccdgraph.evaluate import evaluate_block
from ccdgraph.ranking import Scorer, recommend_lists
from ccdgraph.run.record import RunResult
from ccdgraph.run.signatures import PROXIES, Signature, collapsed, signatures, spread
from ccdgraph.run.source import tested_blocks

SAMPLE = 1000  # users whose lists are compared


class Popularity:
    """A scorer that ranks items by their training interactions so far, for every user alike.

    Args:
        stream: where they are counted.
        learnt: the last block counted.

    >>> from ccdgraph.data import synthetic_stream
    >>> Popularity(synthetic_stream(30, 20, 400), 0).scores(torch.tensor([0, 3])).shape[0]
    2
    """

    def __init__(self, stream: Stream, learnt: int) -> None:
        self.num_users, self.num_items = stream[learnt].num_users, stream[learnt].num_items
        item = torch.cat([stream[k].train.item for k in range(learnt + 1)])
        self.count = torch.bincount(item, minlength=self.num_items).float()

    def scores(self, user: Tensor) -> Tensor:
        """The counts, ``[B] -> [B, I]``."""
        return self.count.expand(len(user), -1)


def diagnose(
    name: str, served: Scorer, stream: Stream, learnt: int, result: RunResult
) -> tuple[dict[str, Any], list[Signature]]:
    """What was looked at after a block, and the signs of failure found in it.

    Args:
        name: the scorer that serves.
        served: the same itself.
        stream: on the device of the scorer.
        learnt: the block.
        result: the results up to this block.

    Returns:
        ``coverage`` and ``effective`` items of the served lists, ``popularity`` recall by tested
        block (only where proxies are measured), and the signatures.
    """
    length = result.config.evaluate.ks[0]
    step = -(-served.num_users // SAMPLE)
    user = torch.arange(0, served.num_users, step, device=stream[0].train.user.device)
    lists = recommend_lists(served, user, length)[1]
    found = [collapsed(name, lists, served.num_items, learnt)]
    popularity = _popularity(stream, learnt, result) if {*PROXIES} & {*result.scorers} else []
    found += signatures(
        {scorer: result.matrix(scorer) for scorer in result.scorers},
        learnt,
        served=name,
        popularity=popularity,
        chance=length / served.num_items,
    )
    seen = {**spread(lists, served.num_items)._asdict(), "popularity": popularity}
    return seen, [signature for signature in found if signature is not None]


def _popularity(stream: Stream, learnt: int, result: RunResult) -> list[float | None]:
    config, scorer = result.config.evaluate, Popularity(stream, learnt)
    values: list[float | None] = [None] * (learnt + 1)
    for tested in tested_blocks(stream, learnt):
        measured = evaluate_block(
            scorer, stream, tested, learnt, mask=result.config.mask, ks=config.ks[:1]
        )
        values[tested] = measured["all"].mean()[config.headline]
    return values
