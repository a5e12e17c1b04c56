"""Vocabulary: external ids, used only where data enters and where recommendations leave."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

_SUGGESTION_LIMIT = 100_000


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """External ids by internal id; internal id ``i`` is the ``i``-th entity that appeared.

    Ids are kept as int64 when all are whole numbers, otherwise as strings. Two ids are the same
    when their text is the same, so the string ``"196"`` finds the integer ``196``.

    Args:
        ids: distinct external ids, ``[N]``; any array-like, stored read-only. ``tolist`` and
            ``Vocabulary(list)`` are the JSON form, ``pyarrow.array(vocabulary.ids)`` the Arrow one.

    Raises:
        ValueError: an id is missing, repeated or a fraction.

    >>> vocabulary = Vocabulary(["ada", "bob"]).extend(["bob", "eve"])
    >>> len(vocabulary), vocabulary.index("eve"), vocabulary[0]
    (3, 2, 'ada')
    >>> vocabulary.codes(["eve", "dan"]).tolist()
    [2, -1]
    """

    ids: NDArray[Any]

    def __init__(self, ids: ArrayLike = ()) -> None:
        array = as_ids(ids).copy()
        array.setflags(write=False)
        object.__setattr__(self, "ids", array)
        if not self._index.is_unique:
            repeated = array[self._index.duplicated()][0]
            raise ValueError(f"id {str(repeated)!r} occurs twice; a vocabulary lists each id once")

    @cached_property
    def _index(self) -> pd.Index:
        import pandas as pd

        index: pd.Index = pd.Index(self.ids)
        return index

    @cached_property
    def _text_index(self) -> pd.Index:
        import pandas as pd

        index: pd.Index = pd.Index(_as_text(self.ids))
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.ids.dtype == other.ids.dtype and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((len(self), *self.ids[:8].tolist()))

    @overload
    def __getitem__(self, index: int) -> int | str: ...
    @overload
    def __getitem__(self, index: ArrayLike) -> NDArray[Any]: ...
    def __getitem__(self, index: int | ArrayLike) -> int | str | NDArray[Any]:
        """The external id of an internal id, or the array of those of several ``[n]``."""
        if isinstance(index, int):
            external: int | str = self.ids[index : index + 1 or None].tolist()[0]
            return external
        chosen: NDArray[Any] = self.ids[np.asarray(index)]
        return chosen

    def index(self, external: int | str) -> int:
        """The internal id of one external id.

        Raises:
            ValueError: the id is unknown; the message names the closest known one.
        """
        code = int(self.codes([external])[0])
        if code < 0:
            raise ValueError(
                f"id {str(external)!r} is not among the {len(self)} known ids{self._hint(external)}"
            )
        return code

    def _hint(self, external: int | str) -> str:
        if len(self) > _SUGGESTION_LIMIT:
            return ""
        close = difflib.get_close_matches(str(external), _as_text(self.ids).tolist(), n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def codes(self, external: ArrayLike) -> NDArray[np.int64]:
        """The internal ids of external ids ``[n]``, int64 ``[n]``; -1 where unknown."""
        import pandas as pd

        ids = as_ids(external)
        if ids.dtype == self.ids.dtype:
            codes = self._index.get_indexer(pd.Index(ids))
        else:
            codes = self._text_index.get_indexer(pd.Index(_as_text(ids)))
        return np.asarray(codes, dtype=np.int64)

    def extend(self, external: ArrayLike) -> Vocabulary:
        """A vocabulary with the unseen ids of ``external`` appended in order of first appearance.

        Internal ids of known entities do not change.
        """
        import pandas as pd

        ids = as_ids(external)
        unseen = pd.unique(ids[self.codes(ids) < 0])
        if len(unseen) == 0:
            return self
        if len(self) and unseen.dtype != self.ids.dtype:
            return Vocabulary(np.concatenate([_as_text(self.ids), _as_text(unseen)]))
        return Vocabulary(np.concatenate([self.ids, unseen]) if len(self) else unseen)

    def tolist(self) -> list[int] | list[str]:
        """The external ids as a list that JSON can hold."""
        external: list[int] | list[str] = self.ids.tolist()
        return external


def as_ids(values: ArrayLike) -> NDArray[Any]:
    """External ids ``[n]`` in their stored form: int64 if all are whole numbers, else strings.

    Raises:
        ValueError: an id is missing (``None``, NaN) or a fraction.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"ids have {array.ndim} dimensions; pass a flat list or array")
    if array.dtype.kind in "iu" or array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        whole = array.astype(np.int64, casting="unsafe") if np.isfinite(array).all() else None
        if whole is None or not np.array_equal(whole, array):
            raise ValueError("ids hold a fraction or NaN; ids must be whole numbers or text")
        return whole
    if array.dtype.kind == "U":
        return array.astype(object)
    missing = [place for place, value in enumerate(array) if value is None or value != value]
    if missing:
        raise ValueError(f"id at position {missing[0]} is missing; drop or fill it")
    return _as_text(array)


def _as_text(ids: NDArray[Any]) -> NDArray[Any]:
    text = np.empty(len(ids), dtype=object)
    text[:] = [str(value) for value in ids.tolist()]
    return text
