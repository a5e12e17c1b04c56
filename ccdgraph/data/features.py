"""Feature matrices of users or items, from npy, Parquet or safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ccdgraph.data.vocabulary import Vocabulary

_READERS = (".npy", ".parquet", ".safetensors")


def read_features(path: str | Path, vocabulary: Vocabulary | None = None) -> Tensor:
    """The matrix in a file, float32 ``[N, M]``.

    ``.npy`` holds a matrix; ``.safetensors`` a tensor ``features``; ``.parquet`` numeric columns,
    or one of lists. Rows are in the order of internal ids, unless a Parquet file has a column
    ``id`` of external ids: those are put in the order of ``vocabulary``, and who is missing has
    zeros.

    Args:
        path: the file.
        vocabulary: external ids of the stream; needed where the file has a column ``id``.

    Raises:
        ValueError: the file cannot be read, its rows are not finite numbers, or an id comes twice.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(f"'{path}' is none of {', '.join(_READERS)}; convert it to one of them")
    if not path.exists():
        raise ValueError(f"'{path}' is missing; name a file of features")
    try:
        if path.suffix == ".parquet":
            values = _from_parquet(path, vocabulary)
        else:
            values = _from_npy(path) if path.suffix == ".npy" else _from_safetensors(path)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' holds no matrix of features: {error}") from error
    if values.dim() != 2 or not values.isfinite().all():
        raise ValueError(
            f"'{path}' holds shape {list(values.shape)} or values that are not finite; expected "
            "finite numbers [N, M]"
        )
    return values.float().contiguous()


def _from_npy(path: Path) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.load(path, allow_pickle=False))


def _from_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["features"]
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _from_parquet(path: Path, vocabulary: Vocabulary | None) -> Tensor:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    try:
        table = pd.read_parquet(path)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error
    ids = table.pop("id") if "id" in table else None
    columns = table.to_numpy()
    if columns.shape[1] == 1 and columns.dtype == object:
        columns = np.stack(list(columns[:, 0]))
    values = torch.from_numpy(np.array(columns, dtype=np.float32))
    if ids is None:
        return values
    if vocabulary is None:
        raise ValueError(f"'{path}' has external ids; pass the 'vocabulary' of the stream")
    if ids.duplicated().any():
        raise ValueError(f"'{path}' has id {ids[ids.duplicated()].iloc[0]!r} twice; keep one row")
    place = pd.Index(ids).get_indexer(vocabulary.ids)
    found = torch.from_numpy(place >= 0)
    return torch.where(found[:, None], values[torch.from_numpy(place).clamp(min=0)], 0.0)
