"""The contracts of backbones, terms and strategies as checks that any test suite can call.

Each check raises an ``AssertionError`` of one sentence that says what does not hold.
"""

from ccdgraph.testing.backbone import check_backbone
from ccdgraph.testing.strategy import check_strategy
from ccdgraph.testing.term import check_term

__all__ = ["check_backbone", "check_strategy", "check_term"]
