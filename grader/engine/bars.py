"""Stands in for tqdm, which a worker need not have: what is wrapped passes through, and nothing is shown."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Sized
from importlib.machinery import ModuleSpec
from typing import Any

MODULES = ("tqdm", "tqdm.auto", "tqdm.autonotebook", "tqdm.notebook", "tqdm.std", "tqdm.asyncio", "tqdm.contrib")


class Bar:
    """A progress bar that shows nothing; iterating over it iterates over `iterable`.

    Attributes:
        n: how far it has come.
        total: how far there is to go, if that is known.
    """

    def __init__(
        self, iterable: Iterable | None = None, desc: str | None = None, total: Any = None, *_: Any, **more: Any
    ):
        self.iterable = iterable
        self.desc = desc or ""
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.n = more.get("initial", 0)
        self.leave = more.get("leave", True)
        self.disable = True
        self.postfix: Any = None

    def __iter__(self) -> Iterator:
        for item in self.iterable or ():
            yield item
            self.n += 1

    def __len__(self) -> int:
        return len(self.iterable) if isinstance(self.iterable, Sized) else self.total

    def __bool__(self) -> bool:
        return bool(self.total) if self.total is not None else self.iterable is not None

    def __reversed__(self) -> Iterator:
        return reversed(self.iterable)  # type: ignore[call-overload]

    def __contains__(self, item: Any) -> bool:
        return item in self.iterable  # type: ignore[operator]

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def update(self, n: float = 1) -> bool:
        """Count `n` more."""
        self.n += n
        return False

    def reset(self, total: Any = None) -> None:
        """Start again."""
        self.n, self.total = 0, self.total if total is None else total

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        """Keep a title, which is not shown."""
        self.desc = desc or ""

    def _ignore(self, *_: Any, **more: Any) -> None:
        """Shows nothing."""

    set_description_str = set_description
    set_postfix = set_postfix_str = close = clear = refresh = display = unpause = moveto = _ignore

    @classmethod
    def write(cls, s: str, *_: Any, **more: Any) -> None:
        """Print a line, as a bar does beside itself."""
        print(s)


def bar_of_range(*arguments: int, **more: Any) -> Bar:
    """A bar over range(*arguments)."""
    return Bar(range(*arguments), **more)


def bar_of_pairs(iterable: Iterable, start: int = 0, **more: Any) -> Iterator:
    """enumerate(iterable, start)."""
    return enumerate(Bar(iterable, **more), start)


def bar_of_tuples(first: Iterable, *others: Iterable, **more: Any) -> Iterator:
    """zip of several."""
    return zip(Bar(first, **more), *others, strict=False)


def install() -> None:
    """Have `import tqdm`, and its modules, give what is here."""
    names = {"tqdm": Bar, "trange": bar_of_range, "tqdm_notebook": Bar, "tnrange": bar_of_range}
    names |= {"tenumerate": bar_of_pairs, "tzip": bar_of_tuples}
    for name in MODULES:
        module = types.ModuleType(name, __doc__)
        module.__spec__ = ModuleSpec(name, None, is_package=name == "tqdm")
        vars(module).update(names, __path__=[])
        sys.modules[name] = module
        _, _, last = name.rpartition(".")
        if name != "tqdm":
            setattr(sys.modules["tqdm"], last, module)
