"""The one way in which a check fails."""


def require(holds: bool, violation: str) -> None:
    """Raise an ``AssertionError`` that says ``violation`` unless ``holds``.

    Unlike the statement ``assert`` it also acts under ``python -O``.

    >>> require(1 < 2, "one is not below two")
    """
    if not holds:
        raise AssertionError(violation)
