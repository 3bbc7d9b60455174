"""Hostile submissions, as data: one TOML file a family."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What an attack on the wire begins with: the descriptor, and a way to send frames of its own.
WIRE = """
import json, os, stat, struct
def is_socket(fd):
    try: return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError: return False
wire = next(fd for fd in range(3, 4096) if is_socket(fd))
def send(message):
    text = json.dumps(message).encode()
    os.write(wire, struct.pack("<4sII", b"DGM1", len(text), 0) + text)
"""


@dataclass(frozen=True)
class Attack:
    """One hostile submission of `loss.py`.

    Attributes:
        attempts: what it tries to do.
        code: the filling of block 2.2b; it ends in a right result only where the attack succeeded.
        prelude: code that runs when the file is imported.
        spares: whether the other questions, whose blocks are right, keep every point.
        earns: points that an honest wrong filling earns as well.
    """

    family: str
    name: str
    attempts: str
    code: str = "loss = fake"
    prelude: str = ""
    spares: bool = True
    earns: float = 0

    def __str__(self) -> str:
        return f"{self.family}-{self.name.replace(' ', '-')}"


def load_attacks() -> list[Attack]:
    """Every attack, by family."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        found += [Attack(path.stem, **entry) for entry in tomllib.loads(path.read_text("utf-8"))["attack"]]
    return found
