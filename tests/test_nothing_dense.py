"""No tensor of users times items, or of either squared, is held at any moment of a stream."""

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccdgraph import checkpoint, evaluate, ranking
from ccdgraph.continual import CCD, CCDConfig, ccd, lwckd, neighbours, replay, scene, stages
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.stream import Stream
from ccdgraph.distill import teacher
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig

BATCH, LENGTH = 64, 20
FIT = FitConfig(epochs=1, lr=1e-2)
REPLAY = (ReplayConfig(depth=LENGTH, stability=2, plasticity=2, student=2),)
CONFIG = CCDConfig(
    student=BackboneConfig(dim=4),
    teachers=(BackboneConfig(dim=8), BackboneConfig("MF", 8), BackboneConfig("MultVAE", 8)),
    base=BaseConfig(batch_size=BATCH, fit=FIT),
    generation=GenerationConfig(list_length=LENGTH // 2, batch_size=BATCH, fit=FIT),
    update=StudentConfig(replay=REPLAY, batch_size=BATCH, fit=FIT),
    teacher=TeacherConfig(replay=REPLAY, batch_size=BATCH, fit=FIT),
)
MODULES = (ranking, evaluate, teacher, replay, lwckd, neighbours, ccd, scene, stages)


@cache
def world() -> Stream:
    return synthetic_stream(1500, 1100, 9000, num_blocks=1)


@cache
def learnt() -> CCD:
    learner = CCD(CONFIG)
    for block in world():
        learner.update(block)
    return learner


class Largest(TorchDispatchMode):
    """Records the most elements that any storage read or made under it holds, and by which op."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.op = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(elements(tensor), str(func))
        return out

    def note(self, size: int, op: str) -> None:
        if size > self.elements:
            self.elements, self.op = size, op


def elements(tensor: Tensor) -> int:
    """Elements in memory: an expanded view holds few, a sparse matrix its entries."""
    if tensor.layout != torch.strided:
        return tensor._nnz()
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def functions() -> Iterator[Callable[..., Any]]:
    """Everything in the modules of CCD that takes a memory budget."""
    for module in MODULES:
        for value in vars(module).values():
            function = value.__init__ if inspect.isclass(value) else value
            function = inspect.unwrap(function) if callable(function) else function
            if inspect.isfunction(function) and "budget" in (function.__kwdefaults__ or {}):
                yield function


@pytest.fixture
def bound(monkeypatch) -> int:
    """Budgets of a block of ``BATCH`` rows everywhere, and the elements of such a block.

    One row more takes what pads the seen entries of a batch.
    """
    block = world()[1]
    rows = max(block.num_users, block.num_items)
    for function in functions():
        monkeypatch.setitem(function.__kwdefaults__, "budget", 4 * BATCH * rows)
    monkeypatch.setitem(lwckd._BUDGET, "cpu", 4 * BATCH * rows)
    return (BATCH + 1) * rows


def test_the_world_tells_dense_from_batches():
    block = world()[1]
    users, items = block.num_users, block.num_items
    assert min(users, items) > 1000 and users - items > 200
    assert 10 * BATCH * users < items**2, "a batch is far from the smallest dense matrix"
    assert {f.__qualname__ for f in functions()} >= {
        *("recommend_lists", "user_chunks", "evaluate", "evaluate_block", "teacher_lists"),
        *("memorise", "ReplayBatches.__init__", "similar"),
    }


def test_the_recorder_sees_what_is_dense_for_a_moment():
    """Products, sorts in place, indices of a mask and gradients; not views or sparse matrices."""
    x = torch.randn(300, 2, requires_grad=True)
    with Largest() as seen:
        torch.zeros(1).expand(1000, 1000)
        torch.eye(300).to_sparse_csr() @ x
    assert seen.elements == 300 * 300  # eye
    with Largest() as seen:
        (x @ x.T).exp().sum().backward()
    assert seen.elements == 300 * 300
    with Largest() as seen:
        (x.detach() @ x.detach().T > 0).nonzero()
    assert seen.elements >= 300 * 150


def test_ccd_holds_nothing_dense_in_any_stage(bound, monkeypatch, tmp_path):
    """Largest: the scores of a batch or of a chunk of users, within the documented budgets.

    One [U, I] or [U, U] matrix anywhere, in a backward too, is ten times the bound. Arrays of
    NumPy, in which the ensemble sorts, are watched as well.
    """
    arrays, sort = Largest(), teacher._sort

    def watched(values: Tensor) -> tuple[Tensor, Tensor]:
        arrays.note(values.numel(), "numpy sort")
        return sort(values)

    monkeypatch.setattr(teacher, "_sort", watched)
    learner, by_stage = CCD(CONFIG), {}
    with Largest() as seen:

        def finished() -> None:
            by_stage[next(reversed(learner.seconds))] = (seen.elements, seen.op)
            seen.elements = 0

        learner.on_stage = finished
        for block in world():
            learner.update(block)
    assert len(by_stage) == 4 + 5
    too_large = {stage: found for stage, found in by_stage.items() if found[0] > bound}
    assert not too_large
    assert max(size for size, _ in by_stage.values()) > bound // 4, "batches are seen"
    assert 0 < arrays.elements <= bound

    state = learner.state()
    checkpoint.save(tmp_path / "stored", state, {})
    width = max(teacher.dim for teacher in CONFIG.teachers) + 1
    rows = world()[1].num_users + world()[1].num_items
    for tensors in (state, checkpoint.load(tmp_path / "stored")[0]):
        assert max(map(elements, tensors.values())) <= rows * width
    size = sum(file.stat().st_size for file in (tmp_path / "stored").iterdir())
    assert size < 4 * world()[1].num_users * world()[1].num_items / 2


def test_evaluation_holds_nothing_dense(bound):
    for name, scorer in learnt().scorers().items():
        for tested in (0, 1):
            with Largest() as seen:
                groups = evaluate.evaluate_block(scorer, world(), tested, 1, ks=(5, 20))
            assert seen.elements <= bound, (name, seen.op)
            assert len(groups["all"]) > 100


def test_lists_of_everyone_hold_nothing_dense(bound):
    """As a served run makes them: the best items of every user, and of the ensemble too."""
    everyone = torch.arange(world()[1].num_users)
    for scorer in (learnt().knowledge["student"], learnt().ensemble()):
        with Largest() as seen:
            ranking.recommend_lists(scorer, everyone, LENGTH, learnt().known.seen)
        assert seen.elements <= bound, seen.op


def test_similar_entities_of_a_dense_matrix_are_few_at_any_moment():
    """Everybody has half of the catalogue, so nearly every pair passes the lowest threshold."""
    num, budget = 1000, 4 * 1000 * BATCH
    pairs = (torch.rand(num, 60, generator=torch.Generator().manual_seed(0)) < 0.5).nonzero()
    lists = UserItems.from_interactions([Interactions(*pairs.T)], num, 60)
    with Largest() as seen:
        joined = neighbours.similar(lists, budget=budget)
    assert 5 * num < joined.item.numel() < 20 * num
    assert seen.elements <= num**2 // 6, seen.op
