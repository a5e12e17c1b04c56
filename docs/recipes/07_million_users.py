"""
Evaluate a million users without running out of memory
======================================================

Scores of all users times all items would not fit; nothing here asks for them. Scorers are called
for a chunk of users at a time, as many as a budget in bytes allows, and what stays is lists of
``k`` items. Set ``USERS`` to a million: the largest block asked for stays the same.
"""

import torch

from ccdgraph.data import Interactions, UserItems
from ccdgraph.evaluate import evaluate

USERS, ITEMS, DIM = 20_000, 5_000, 16
draw = torch.Generator().manual_seed(0)


class Counting:
    """A scorer that remembers the largest block it was asked for."""

    num_users, num_items, largest = USERS, ITEMS, 0
    user, item = (torch.randn(n, DIM, generator=draw) for n in (USERS, ITEMS))

    def scores(self, user):
        block = self.user[user] @ self.item.T
        self.largest = max(self.largest, block.numel() * block.element_size())
        return block


scorer = Counting()
held_out = Interactions(torch.arange(USERS), torch.randint(ITEMS, (USERS,), generator=draw))
pairs = Interactions(
    torch.randint(USERS, (10 * USERS,), generator=draw),
    torch.randint(ITEMS, (10 * USERS,), generator=draw),
)
seen = UserItems.from_interactions([pairs], USERS, ITEMS)
measured = evaluate(scorer, held_out, seen, ks=(20,), budget=64 * 2**20)
print(measured.mean()["recall@20"], "by chance", 20 / ITEMS)
everything = USERS * ITEMS * 4
print(f"largest block {scorer.largest / 2**20:.0f} MiB of {everything / 2**20:.0f} MiB")

# %%
# What comes back has a row for every user, for paired tests and for a table.

print(measured.to_frame().head(3))
