"""How much of its tolerance each comparison of a check uses: what `make calibrate` makes its table of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from torch import Tensor

RTOL, ATOL = 1e-4, 1e-5


class Ledger(dict[str, float]):
    """For every kind of tolerance in a check, the largest share of it that was used; 1 is all of it."""

    def within(self, kind: str, used: float) -> bool:
        """Keep a share that was used. Returns whether it is less than all; nan is not."""
        if not used <= self.get(kind, -1.0):
            self[kind] = used
        return used < 1


_current: ContextVar[Ledger] = ContextVar("ledger")


@contextmanager
def kept_in(ledger: Ledger) -> Iterator[None]:
    """Keep in `ledger` what the comparisons made meanwhile use."""
    token = _current.set(ledger)
    try:
        yield
    finally:
        _current.reset(token)


def within(kind: str, used: float) -> bool:
    """`Ledger.within` of the check that runs, if any does."""
    return _current.get(Ledger()).within(kind, used)


@cache
def _kind(rtol: float, atol: float) -> str:
    return f"{atol:.0e} + {rtol:.0e} of the value"


def close(actual: Tensor, expected: Tensor, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Whether two tensors agree, elementwise to atol + rtol |expected|. If they do, how closely is kept."""
    if actual.shape != expected.shape:
        return False
    used = float(((actual - expected).abs() / (expected.abs() * rtol + atol)).max())
    if not used <= 1:
        return False
    within(_kind(rtol, atol), used)
    return True
