"""The contract of a strategy: reproducible, blind to what is to come, and resumable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual.strategy import Strategy
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream
from ccdgraph.ranking import Scorer
from ccdgraph.testing.require import require

# Scores of everyone, by block and name of the scorer.
Served = dict[str, Tensor]

_MOST_STAGES = 100  # of one block; a strategy that repeats a finished stage would never end


def check_strategy(build: Callable[[Stream], Strategy], stream: Stream | None = None) -> None:
    """Check that a strategy is reproducible, blind to what is to come, and resumable.

    Equal always means bitwise, after every block, of the scores of everything in
    :meth:`Strategy.scorers`, whose first is what :meth:`Strategy.update` returns. Two fresh
    strategies agree; test rows change nothing, nor does any later block; a strategy rebuilt from
    :meth:`Strategy.state` after every block, and after every stage, serves what one run serves, and
    so does one with ``BASE_NEEDS`` that takes the base models over.

    Args:
        build: makes a fresh strategy with the same seed. It is handed the stream, so that one that
            reads ahead of :meth:`Strategy.update` is caught; others ignore it.
        stream: what to learn; by default a small synthetic stream of three blocks.
    """
    if stream is None:
        stream = synthetic_stream(60, 50, 900, num_blocks=2, num_communities=5)
    straight = _learn(build, stream)
    _compare(straight, _learn(build, stream), "with the same seed a second run differs")
    blocks = [dataclasses.replace(b, test=_garbage(b.test, b)) for b in stream]
    other = dataclasses.replace(stream, blocks=tuple(blocks))
    _compare(straight, _learn(build, other), "other test rows change what is learnt")
    for last in range(len(stream) - 1):
        blocks = [b if b.index <= last else _garbage_block(b) for b in stream]
        other = dataclasses.replace(stream, blocks=tuple(blocks))
        learnt = _learn(build, other, last + 1)
        _compare(straight, learnt, "other later blocks change what is learnt")
    resumed = _learn_restored_at_blocks(build, stream)
    _compare(straight, resumed, "restored after every block, the run differs")
    resumed = _learn_restored_at_stages(build, stream)
    _compare(straight, resumed, "restored after every stage, the run differs")
    if build(stream).BASE_NEEDS:
        given = _learn_from_base(build, stream)
        _compare(straight, given, "with base models taken over, the run differs")


class _StopError(Exception):
    """Raised in ``on_stage``, as if the process were killed there."""


def _learn(
    build: Callable[[Stream], Strategy],
    stream: Stream,
    num: int | None = None,
    base: dict[str, Tensor] | None = None,
) -> Served:
    """What is served after each of the first ``num`` blocks, learnt in one run."""
    strategy = build(stream)
    if base is not None:
        strategy.take_base(base, stream.blocks)
    served: Served = {}
    for block in stream.blocks[:num]:
        served |= _serve(strategy, block, strategy.update(block))
    return served


def _learn_from_base(build: Callable[[Stream], Strategy], stream: Stream) -> Served:
    strategy, held = build(stream), list[dict[str, Tensor]]()
    strategy.on_stage = lambda: held.append(_copy(strategy.state())) if strategy.has_base else None
    strategy.update(stream[0])
    require(len(held) == 1, f"'has_base' is true after {len(held)} stages of the base block, not 1")
    return _learn(build, stream, base=held[0])


def _learn_restored_at_blocks(build: Callable[[Stream], Strategy], stream: Stream) -> Served:
    served: Served = {}
    state: dict[str, Tensor] | None = None
    for block in stream:
        strategy = build(stream)
        if state is not None:
            strategy.restore(state, stream.blocks[: block.index])
        served |= _serve(strategy, block, strategy.update(block))
        state = _copy(strategy.state())
    return served


def _learn_restored_at_stages(build: Callable[[Stream], Strategy], stream: Stream) -> Served:
    served: Served = {}
    state: dict[str, Tensor] | None = None
    for block in stream:
        begun = block.index
        for _ in range(_MOST_STAGES):
            strategy = build(stream)
            if state is not None:
                strategy.restore(state, stream.blocks[:begun])
            strategy.on_stage = _stop
            try:
                scorer = strategy.update(block)
            except _StopError:
                state, begun = _copy(strategy.state()), block.index + 1
            else:
                served |= _serve(strategy, block, scorer)
                state = _copy(strategy.state())
                break
        else:
            require(False, f"restored {_MOST_STAGES} times, block {block.index} is not learnt yet")
    return served


def _stop() -> None:
    raise _StopError


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state as a file would give it back: values alone, shared with nobody."""
    return {name: value.detach().clone() for name, value in state.items()}


def _serve(strategy: Strategy, block: Block, served: Scorer) -> Served:
    sizes, known = (served.num_users, served.num_items), (block.num_users, block.num_items)
    require(sizes == known, f"what is served knows {sizes} users and items, the block {known}")
    device = block.train.user.device
    scores = {
        f"block {block.index}, '{name}'": _scores(scorer, device)
        for name, scorer in strategy.scorers().items()
    }
    same = torch.equal(_scores(served, device), next(iter(scores.values())))
    require(same, "'update' returns something else than the first of 'scorers'")
    return scores


def _scores(scorer: Scorer, device: torch.device) -> Tensor:
    return scorer.scores(torch.arange(scorer.num_users, device=device)).detach().clone()


def _compare(straight: Served, other: Served, violation: str) -> None:
    for where, value in other.items():
        equal = where in straight and torch.equal(straight[where], value)
        require(equal, f"{violation} (after {where})")


def _garbage(events: Interactions, block: Block) -> Interactions:
    """Random pairs of the entities of ``block``, fewer than ``events`` has."""
    num, generator = len(events) // 2, rng("testing", "garbage", block.index)
    sizes = (block.num_users, block.num_items)
    user, item = (torch.randint(size, (num,), generator=generator) for size in sizes)
    place = torch.arange(num, device=events.user.device)
    return dataclasses.replace(
        events[place], user=user.to(place.device), item=item.to(place.device)
    )


def _garbage_block(block: Block) -> Block:
    """Random rows, and five more users and items."""
    users, items = block.num_users + 5, block.num_items + 5
    larger = dataclasses.replace(block, num_users=users, num_items=items)
    train, valid, test = (_garbage(x, larger) for x in (block.train, block.valid, block.test))
    return dataclasses.replace(larger, train=train, valid=valid, test=test)
