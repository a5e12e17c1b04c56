import pytest
import torch
from planted import embeddings, generator, leaves, triplets

from ccdgraph.distill.auxiliary import AuxiliaryHead
from ccdgraph.distill.stored import ListwiseKD, PointwiseKD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities, Pairs
from ccdgraph.testing import check_term
from ccdgraph.train import SoftBCE

EVERYONE = Entities(torch.arange(6))
LISTS = torch.stack([torch.randperm(8, generator=generator(u))[:3] for u in range(6)])
SCORES = torch.randn(6, 3, generator=generator(4))


def turned(head: AuxiliaryHead) -> AuxiliaryHead:
    """The head with random maps."""
    draw = generator(7)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return head


def test_value_and_gradient_equal_the_formula():
    """Scores of the affine maps pair by pair; the gradient into the embeddings is scaled."""
    head = turned(AuxiliaryHead(ListwiseKD(LISTS, SCORES), 3, gradient_scale=0.25))
    out, free = leaves(embeddings(3)), leaves(embeddings(3))
    user = torch.stack([head.user.weight @ e + head.user.bias for e in free.user])
    item = torch.stack([head.item.weight @ e + head.item.bias for e in free.item])
    expected = ListwiseKD(LISTS, SCORES)(Embeddings(user, item), EVERYONE)
    loss = head(out, EVERYONE)
    torch.testing.assert_close(loss, expected)
    own = torch.autograd.grad(loss, (out.user, out.item, *head.parameters()))
    full = torch.autograd.grad(expected, (free.user, free.item, *head.parameters()))
    for found, whole in zip(own[:2], full[:2], strict=True):
        torch.testing.assert_close(found, 0.25 * whole)
    torch.testing.assert_close(own[2:], full[2:])  # the head learns at its full rate


def test_it_begins_as_direct_distillation_whatever_was_drawn_before():
    out, term = embeddings(3), PointwiseKD(LISTS, SCORES)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    head = AuxiliaryHead(term, 3, gradient_scale=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(head(out, triplets()), term(out, triplets()))


def test_contract():
    scores = SCORES.clone().requires_grad_()
    head = turned(AuxiliaryHead(ListwiseKD(LISTS, scores), 3))
    check_term(head, embeddings(3), EVERYONE, frozen=(scores,))


def test_a_scale_of_zero_leaves_the_embeddings_alone():
    out = leaves(embeddings(3))
    AuxiliaryHead(ListwiseKD(LISTS, SCORES), 3, gradient_scale=0.0)(out, EVERYONE).backward()
    assert not out.user.grad.any() and not out.item.grad.any()
    with pytest.raises(ValueError, match="'gradient_scale' is -1"):
        AuxiliaryHead(SoftBCE(), 3, gradient_scale=-1)


def test_a_wrong_level_goes_into_the_head():
    """Hard labels say 1/2 of every pair, the teacher says sigmoid(3).

    Direct distillation ends between the two; imposing the labels on the served scores fails.
    """
    user, item = torch.arange(6).repeat_interleave(8), torch.arange(8).repeat(6)
    hard, soft = (
        Pairs(user, item, torch.full((48,), v)) for v in (0.5, torch.tensor(3.0).sigmoid())
    )
    level = {}
    for name, term in (("aux", AuxiliaryHead(SoftBCE(), 4)), ("direct", SoftBCE())):
        start = embeddings(4)
        tables = [(0.3 * x).requires_grad_() for x in (start.user, start.item)]
        optimizer = torch.optim.Adam([*tables, *term.parameters()], lr=0.02)
        for _ in range(400):
            out = Embeddings(*tables)
            loss = SoftBCE()(out, hard) + term(out, soft)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        level[name] = float((tables[0] @ tables[1].T).detach().abs().mean())
    assert level["aux"] < 0.1 < 0.8 < level["direct"], level
