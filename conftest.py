"""What every test and doctest sees."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import settings

# The same examples on every run and machine; the time of one example is not what is tested.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _torch_in_doctests(doctest_namespace: dict[str, Any]) -> None:
    """Lets doctests use ``torch`` without importing it."""
    doctest_namespace["torch"] = torch


# Doctests are looked for in every module; two conftest.py are one name to the importer.
# The scripts among the documents run when the documentation is built.
collect_ignore_glob = ["*/conftest.py", "docs/*.py"]
if find_spec("triton") is None:  # comes with builds of torch for CUDA
    collect_ignore_glob.append("*/data/kernels.py")
