"""What a run serves, as files that other programs read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ccdgraph.data import Vocabulary
from ccdgraph.run.serve import Served

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["safetensors", "parquet", "faiss", "onnx"]
_LARGEST = 2**31 - 1  # bytes of a protobuf message, and so of an ONNX file


def export(run: str | Path, format: Format, folder: str | Path) -> list[Path]:
    """Writes what ``run`` serves to ``folder``, whole or not at all; returns the files.

    ``safetensors``, ``faiss`` and ``onnx`` write ``embeddings.safetensors`` (``user [U, D]``,
    ``item [I, D]`` and the items that users have, as CSR: ``seen_indptr``, ``seen_item``) and
    ``vocabulary.json``, whose ``users`` and ``items`` are the external ids of the rows.

    * ``parquet``: ``users`` and ``items`` with the columns ``id`` and ``embedding``; ``seen`` with
      ``user`` and ``item``. External ids throughout. Of a strategy that serves no embeddings:
      ``lists`` with ``user``, ``rank``, ``item`` and ``score`` instead.
    * ``faiss``: ``items.faiss``, an exact index of inner products; needs faiss-cpu.
    * ``onnx``: ``recommend.onnx`` from ``embedding [B, D]`` (of known or folded-in users),
      ``hidden [B, H]`` (item rows to leave out, padded with ``I``) and ``k [1]`` to ``score`` and
      ``item``, ``[B, k]`` each; needs onnx.

    Args:
        run: folder of a run in which at least one block is learnt.
        format: see above.
        folder: new or empty.

    Raises:
        ValueError: ``folder`` is in use, the format cannot hold what is served, or an optional
            package is missing.
    """
    served, target = Served.load(run), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"'{target}' is not empty; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _WRITERS[format](served, temporary)
        temporary.chmod(0o755)  # mkdtemp leaves it to its owner alone
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(target.iterdir())


def _write_safetensors(served: Served, folder: Path) -> None:
    out, seen = served.embeddings, served.seen
    tensors = {
        "user": out.user,
        "item": out.item,
        "seen_indptr": seen.indptr,
        "seen_item": seen.item,
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "embeddings.safetensors")
    ids = {"users": served.users.tolist(), "items": served.items.tolist()}
    (folder / "vocabulary.json").write_text(json.dumps(ids), encoding="utf-8")


def _write_parquet(served: Served, folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    users, items = served.users, served.items
    row, item = served.seen.entries(torch.arange(len(users)))
    tables = {"seen": pa.table({"user": users[row.numpy()], "item": items[item.numpy()]})}
    if "list_item" in served.tensors:
        tables["lists"] = _lists(served)
    else:
        out = served.embeddings
        tables |= {"users": _embedded(users, out.user), "items": _embedded(items, out.item)}
    for name, table in tables.items():
        parquet.write_table(table, folder / f"{name}.parquet")


def _embedded(vocabulary: Vocabulary, rows: Tensor) -> pa.Table:
    import pyarrow as pa

    values = pa.array(rows.contiguous().numpy().ravel())
    embedding = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
    return pa.table({"id": vocabulary.ids, "embedding": embedding})


def _lists(served: Served) -> pa.Table:
    import pyarrow as pa

    item = served.tensors["list_item"]
    user, rank = (item >= 0).nonzero(as_tuple=True)
    return pa.table(
        {
            "user": served.users[user.numpy()],
            "rank": rank.numpy(),
            "item": served.items[item[user, rank].numpy()],
            "score": served.tensors["list_score"][user, rank].numpy(),
        }
    )


def _write_faiss(served: Served, folder: Path) -> None:
    faiss = _optional("faiss", "faiss-cpu")
    _write_safetensors(served, folder)
    item = served.embeddings.item.float()
    index = faiss.IndexFlatIP(item.shape[1])
    index.add(np.ascontiguousarray(item.numpy()))
    faiss.write_index(index, str(folder / "items.faiss"))


def _write_onnx(served: Served, folder: Path) -> None:
    onnx = _optional("onnx", "onnx")
    item = served.embeddings.item.float()
    size = item.numel() * item.element_size()
    if size > _LARGEST * 0.9:
        raise ValueError(
            f"the item embeddings take {size} bytes and an ONNX file holds {_LARGEST}; export to "
            "'faiss' or 'safetensors'"
        )
    _write_safetensors(served, folder)
    onnx.save_model(_recommender(onnx, item), str(folder / "recommend.onnx"))


def _recommender(onnx: Any, item: Tensor) -> Any:
    """Scores, the hidden ones at ``-inf``, and the best of them; equal scores by ascending row."""
    (num_items, dim), helper = item.shape, onnx.helper
    kinds = {"int": onnx.TensorProto.INT64, "float": onnx.TensorProto.FLOAT}
    constants = {
        "items": item.T.contiguous().numpy(),
        "one_more": np.array([0, 0, 0, 1]),  # a column for the padding of 'hidden'
        "first": np.array([0]),
        "last": np.array([num_items]),
        "axis": np.array([1]),
        "never": np.array(float("-inf"), dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["embedding", "items"], ["all"]),
        helper.make_node("Pad", ["all", "one_more"], ["padded"]),
        helper.make_node("Shape", ["hidden"], ["size"]),
        helper.make_node("Expand", ["never", "size"], ["low"]),
        helper.make_node("ScatterElements", ["padded", "hidden", "low"], ["masked"], axis=1),
        helper.make_node("Slice", ["masked", "first", "last", "axis"], ["open"]),
        helper.make_node("TopK", ["open", "k"], ["score", "item"], axis=1),
    ]
    inputs = {
        "embedding": ("float", ["B", dim]),
        "hidden": ("int", ["B", "H"]),
        "k": ("int", [1]),
    }
    outputs = {"score": ("float", ["B", "K"]), "item": ("int", ["B", "K"])}
    described = [
        [helper.make_tensor_value_info(n, kinds[kind], shape) for n, (kind, shape) in sort.items()]
        for sort in (inputs, outputs)
    ]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "recommend", *described, stored)
    opset = helper.make_opsetid("", 17)  # every operator is in its present form since 13
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _optional(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"exporting needs {package}; pip install '{package}' or 'ccdgraph[serve]'"
        ) from error


_WRITERS: dict[Format, Callable[[Served, Path], None]] = {
    "safetensors": _write_safetensors,
    "parquet": _write_parquet,
    "faiss": _write_faiss,
    "onnx": _write_onnx,
}
