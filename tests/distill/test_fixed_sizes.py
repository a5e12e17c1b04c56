"""Off the CPU a step asks the device for no size: the same losses from places that repeat."""

import sys

import pytest
import torch
from planted import embeddings
from test_methods import DIM, graph_of, make
from torch.utils._python_dispatch import TorchDispatchMode

from ccdgraph.distill.lists import each_once, padded_distinct, sorted_once
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets

METHODS = ["DE", "Regression", "FTD", "HTD", "PHR", "IRRRD", "RD", "CD", "ConCF", "HetComp"]
READERS = ("hints", "topology", "ir", "lists")
ASKING = {
    *("aten::nonzero", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
    *("aten::_local_scalar_dense", "aten::masked_select", "aten::item", "aten::bincount"),
    *("aten::repeat_interleave.Tensor", "aten::equal"),
}


class NothingAsked(TorchDispatchMode):
    """Refuses what makes a host wait for its device: sizes that depend on values, and values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name not in ASKING and func.name() not in ASKING, func
        if func._schema.name in ("aten::index", "aten::index_put_", "aten::index_put"):
            by_mask = any(x is not None and x.dtype == torch.bool for x in args[1])
            assert not by_mask, "a mask as index"
        return func(*args, **(kwargs or {}))


def batch_of(graph) -> Triplets:
    """Users and items that repeat, and an item that is a positive and a negative."""
    user = torch.tensor([4, 7, 4, 30, 4, 7])
    return Triplets(
        user, torch.tensor([1, 2, 1, 9, 5, 2]), torch.tensor([[3], [1], [9], [8]] * 2)[:6]
    )


def loss_and_gradient(name: str) -> tuple[torch.Tensor, ...]:
    graph = graph_of(60, 50, 700)
    term = make(name, graph)
    term.begin_epoch(1)
    student = embeddings(DIM, 9, graph.num_users, graph.num_items)
    user, item = student.user.requires_grad_(), student.item.requires_grad_()
    if name in ("DE", "HTD"):  # noise of rows that repeat shifts that of the others
        for side in (term.user_experts, term.item_experts):
            side.choose = lambda x, *_, side=side: side.logits(x).softmax(-1)
    if name == "ConCF":
        settle(term, student)
    if name == "HetComp":
        term(Embeddings(user, item), batch_of(graph))  # the construction, once an epoch
    loss = term(Embeddings(user, item), batch_of(graph))
    return loss, *torch.autograd.grad(loss, [user, item, *term.parameters()], allow_unused=True)


def settle(term, student: Embeddings) -> None:
    """A consensus, looked at already, and no dropout, whose draws would fall on other rows."""
    term.epoch, term.due = 99, False
    term.look(student.detach())
    term.heads.eval()


@pytest.fixture
def off_the_cpu(monkeypatch):
    for name in READERS:
        module = sys.modules[f"ccdgraph.distill.{name}"]
        monkeypatch.setattr(module, "each_once", sorted_once)
    monkeypatch.setattr(sys.modules["ccdgraph.distill.concf"], "distinct", padded_distinct)


@pytest.mark.parametrize("name", METHODS)
def test_places_that_repeat_count_once(name, request):
    """Fails where a mask is left out: user 4 would count three times."""
    wanted = loss_and_gradient(name)
    request.getfixturevalue("off_the_cpu")
    found = loss_and_gradient(name)
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_asks_for_no_size(name, off_the_cpu):
    graph = graph_of(60, 50, 700)
    term, student = make(name, graph), embeddings(DIM, 9, graph.num_users, graph.num_items)
    term.begin_epoch(0)
    if name == "ConCF":
        settle(term, student)
    out = Embeddings(student.user.requires_grad_(), student.item.requires_grad_())
    with NothingAsked():
        term(out, batch_of(graph)).backward()


@pytest.mark.parametrize("name", METHODS)
def test_a_recorded_step_finds_everything_where_it_was(name, off_the_cpu):
    """While ``fixed`` stays, a term may change its tensors in place alone, and no number.

    Fails where an epoch puts a new tensor in the place of one that the recorded step reads.
    """
    graph = graph_of(60, 50, 700)
    term, student = make(name, graph), embeddings(DIM, 9, graph.num_users, graph.num_items)
    out, before, stayed = Embeddings(student.user, student.item), (object(), {}), 0
    out = Embeddings(out.user.requires_grad_(), out.item.requires_grad_())
    if name in ("ConCF", "HetComp"):
        term.every = 3
    for epoch in range(8):
        term.begin_epoch(epoch)
        term(out, batch_of(graph))  # the first batch of an epoch that changes is not recorded
        now = term.fixed(epoch), where_things_are(term)
        if now[0] == before[0]:
            stayed += 1
            assert now[1] == before[1]
        before = now
    assert stayed


def where_things_are(value, name: str = "") -> dict:
    """Address of every tensor, and every number, below an object; what steps write is left out."""
    if isinstance(value, torch.Tensor):
        return {name: value.data_ptr()}
    if isinstance(value, (int, float, str)) or value is None:
        return {name: value}
    if not hasattr(value, "__dict__") or isinstance(value, type):
        return {}
    own = {k: v for k, v in vars(value).items() if k not in ("epoch", "due", "looks", "training")}
    found = {}
    for key, part in own.items():
        members = part.items() if isinstance(part, dict) else [("", part)]
        for k, v in members:
            found |= where_things_are(v, f"{name}.{key}.{k}")
    return found


def test_the_mode_sees_what_it_refuses():
    for ask in (torch.nonzero, torch.unique, lambda x: x.sum().item(), lambda x: x[x > 0]):
        with pytest.raises(AssertionError), NothingAsked():
            ask(torch.arange(3))
    assert each_once(torch.tensor([2, 2]))[0].tolist() == [2]
