"""The contract of a term: a finite scalar whose gradient is right and reaches no teacher."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ccdgraph.nn.backbone import Embeddings
from ccdgraph.testing.require import require
from ccdgraph.train import Term


def check_term(
    term: Term,
    out: Embeddings,
    batch: Any,
    *,
    frozen: Sequence[Tensor] = (),
    wrt: Sequence[str] = ("user", "item", "layers", "posterior", "parameters"),
) -> None:
    """Check that a term is a finite scalar with the right gradient, and none to its teacher.

    Args:
        term: the term; its :meth:`Term.begin_epoch` is called once.
        out: embeddings to evaluate it on; keep them small, gradients are checked numerically.
        batch: a batch of the kind the term reads.
        frozen: tensors the term was made from that must not learn (a teacher's); they require
            gradient, so that one that gets through is seen.
        wrt: what the gradient is checked for: fields of ``out`` and the term's ``"parameters"``;
            leave out what the term treats as constant on purpose.

    >>> from ccdgraph.sampling import Pairs
    >>> from ccdgraph.train import SoftBCE
    >>> place, out = torch.tensor([0, 1]), Embeddings(torch.rand(2, 3), torch.rand(2, 3))
    >>> check_term(SoftBCE(), out, Pairs(place, place, torch.tensor([0.0, 1.0])))
    """
    if not all(tensor.requires_grad for tensor in frozen):
        raise ValueError("'frozen' has a tensor without 'requires_grad'; it could not be caught")
    term.begin_epoch(0)
    largest = float((out.user @ out.item.T).detach().abs().max())
    for scale, size in ((1.0, "the given scores"), ((1e3 / largest) ** 0.5, "scores of 1e3")):
        _check_value(term, _leaves(out, scale), batch, frozen, size)
    double = _copy_in_double(term)
    leaves = _double(_leaves(out))
    inputs = [
        x.requires_grad_() for name in wrt if name != "parameters" for x in _field(leaves, name)
    ]
    inputs += double.parameters() if "parameters" in wrt else []
    batch = _double(batch)
    right = not inputs or torch.autograd.gradcheck(
        lambda *_: double(leaves, batch), inputs, raise_exception=False, nondet_tol=1e-10
    )
    require(right, "the gradient differs from the numerical one in float64")


def _check_value(
    term: Term, leaves: Embeddings, batch: Any, frozen: Sequence[Tensor], size: str
) -> None:
    loss = term(leaves, batch)
    require(loss.shape == (), f"the loss has shape {tuple(loss.shape)}, not that of a scalar")
    require(bool(loss.isfinite()), f"the loss is {loss.item()} at {size}")
    require(loss.requires_grad, "the loss has no gradient at all")
    names = ("user", "item", "layers", "posterior")
    learning = [x for name in names for x in _field(leaves, name)] + list(term.parameters())
    grads = torch.autograd.grad(loss, [*learning, *frozen], allow_unused=True)
    caught = any(grad is not None for grad in grads[len(learning) :])
    require(not caught, "gradient reaches a frozen tensor; detach it where it enters")
    finite = all(bool(grad.isfinite().all()) for grad in grads if grad is not None)
    require(finite, f"a gradient is not finite at {size}")


def _leaves(out: Embeddings, scale: float = 1.0) -> Embeddings:
    """Independent leaves with the values of ``out``; what is scored is scaled."""
    user, item, *layers = (
        (x.detach() * scale).requires_grad_() for x in (out.user, out.item, *out.layers)
    )
    posterior = None
    if out.posterior is not None:
        mean, log_variance = (x.detach().clone().requires_grad_() for x in out.posterior)
        posterior = (mean, log_variance)
    return Embeddings(user, item, tuple(layers), posterior)


def _field(out: Embeddings, name: str) -> tuple[Tensor, ...]:
    fields = {
        "user": (out.user,),
        "item": (out.item,),
        "layers": out.layers,
        "posterior": out.posterior or (),
    }
    return fields[name]


def _copy_in_double(term: Term) -> Term:
    """A copy of ``term`` in float64, with the teachers and graphs that are plain attributes."""
    memo = {
        id(value): _double(value)
        for module in term.modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and (isinstance(value, Tensor) or _is_value(value))
    }
    return copy.deepcopy(term, memo).double()


def _double(value: Any) -> Any:
    """``value`` with every floating tensor in float64, those in its fields included."""
    if isinstance(value, Tensor):
        return value.detach().double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_double(part) for part in value)
    if _is_value(value):
        fields = {f.name: _double(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _is_value(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
