"""What is installed, what computes with it, and what would be faster."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from torch_geometric.typing import WITH_TORCH_SCATTER

from ccdgraph import __version__
from ccdgraph.data.sparse import SWITCH, without_kernels

_REQUIRED = (
    *("torch", "torch-geometric", "numpy", "pandas", "networkx"),
    *("pyarrow", "safetensors", "typer", "rich"),
)


def findings() -> list[tuple[str, str]]:
    """Names and what was found, a line each.

    >>> dict(findings())["sparse products"]
    'torch CSR, ...'
    """
    library = "with MKL" if torch.backends.mkl.is_available() else "without MKL"
    scatter = f"torch-scatter {_version('torch-scatter')}" if WITH_TORCH_SCATTER else "torch alone"
    return [
        ("ccdgraph", __version__),
        ("python", platform.python_version()),
        *((name, _version(name)) for name in _REQUIRED),
        ("torch-scatter", _version("torch-scatter")),
        ("sparse products", f"torch CSR, {library}; LightGCN, MultVAE and initialisation use it"),
        ("sparse products on CUDA", _kernels()),
        ("ragged reductions", f"{scatter}, through PyG; layers with attention use them"),
        (
            "threads",
            f"{torch.get_num_threads()} of {_cores()} cores; products and ranking share them",
        ),
        ("CUDA", _cuda()),
    ]


def advice() -> list[str]:
    """What would make runs faster here; one sentence each."""
    threads, cores = torch.get_num_threads(), _cores()
    sentences = []
    if not torch.cuda.is_available():
        sentences.append("a CUDA device and a torch built for it; every stage then runs there")
    if threads < cores:
        sentences.append(f"OMP_NUM_THREADS={cores}, if nothing else needs the cores")
    if threads > cores:
        sentences.append(f"OMP_NUM_THREADS={cores}; more threads than cores wait for one another")
    if not WITH_TORCH_SCATTER:
        sentences.append("torch-scatter ('make scatter'), for layers with attention only")
    return sentences or ["nothing that this command knows of"]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _kernels() -> str:
    reason = without_kernels(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return f"torch CSR: {reason}" if reason else f"Triton kernels; {SWITCH}=0 takes torch CSR"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none; device = 'auto' computes on the CPU"
    name, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    return f"{name}, {count} in all; device = 'auto' computes on the first"
