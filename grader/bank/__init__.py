"""Right and wrong fillings of every block: what the grader is tested with. One TOML file a question.

A right filling must earn every point of its question, a wrong one must lose some.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BANK = Path(__file__).parent


@dataclass(frozen=True)
class Filling:
    """Code for the blocks of a question.

    Attributes:
        mistake: what is wrong, in words; empty where nothing is.
        diagnosis: part of what a student must be told, because it names the mistake; empty where nothing names it.
        also: parts of the other hints that a student may be given about it, each of them true.
    """

    question: str
    name: str
    blocks: dict[str, str]
    mistake: str = ""
    diagnosis: str = ""
    also: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether it must earn every point."""
        return not self.mistake

    def __str__(self) -> str:
        return f"{self.question}-{'right' if self.right else 'wrong'}-{self.name}"


def load_bank() -> list[Filling]:
    """Every filling of the bank, in order. Raises ValueError if two of a question share a name."""
    fillings: list[Filling] = []
    for path in sorted(BANK.glob("*.toml")):
        data = tomllib.loads(path.read_text("utf-8"))
        entries = [*data["right"], *data["wrong"]]
        if len({entry["name"] for entry in entries}) != len(entries):
            raise ValueError(f"{path.name}: two fillings share a name")
        if any("mistake" in entry for entry in data["right"]) or not all(e["mistake"] for e in data["wrong"]):
            raise ValueError(f"{path.name}: a wrong filling has a mistake, and a right one has none")
        fillings += [_filling(data["question"], data.get("base", {}), **entry) for entry in entries]
    return fillings


def _filling(
    question: str,
    base: dict[str, str],
    name: str,
    mistake: str = "",
    code: str | None = None,
    blocks: dict[str, str] | None = None,
    diagnosis: str = "",
    also: tuple[str, ...] | list[str] = (),
) -> Filling:
    """A filling from its entry: `code` where the question has one block, else `blocks`, and `base` for the rest."""
    filled = {question: code} if code is not None else base | (blocks or {})
    return Filling(question, name, filled, mistake, diagnosis, tuple(also))
