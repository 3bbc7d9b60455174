"""Mutants that no check can catch, because they are right: `equivalent.toml` gives the reason for each."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROOFS = Path(__file__).with_name("equivalent.toml")


class ProofError(Exception):
    """A proof is about no mutant, or about several; the message says which and what to do."""


@dataclass(frozen=True)
class Proof:
    """Why mutants of a block are as right as the solution.

    Attributes:
        block: its name.
        reason: a sentence that holds in every case that the contract of the block allows.
        diffs: the changes of the mutants, in the form of `essence`.
    """

    block: str
    reason: str
    diffs: tuple[str, ...]


def load_proofs(path: Path = PROOFS) -> list[Proof]:
    """The proofs of a file, in order."""
    entries = tomllib.loads(path.read_text("utf-8"))["equivalent"]
    return [
        Proof(entry["block"], " ".join(entry["reason"].split()), tuple(map(essence, entry["diffs"])))
        for entry in entries
    ]


def essence(diff: str) -> str:
    """A diff without line numbers and without what editors take away: empty lines, and blanks at the end of a line."""
    lines = (line.rstrip() for line in diff.splitlines() if not line.startswith("@@"))
    return "\n".join(line for line in lines if line)


def proved(mutants: Iterable[Mutant], proofs: Iterable[Proof]) -> dict[Mutant, Proof]:
    """The mutants that are proved right, and by what.

    Raises:
        ProofError: if a diff of a proof is that of no mutant, or of several.
    """
    found: dict[Mutant, Proof] = {}
    by_change: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in mutants:
        by_change.setdefault((mutant.block, essence(mutant.diff)), []).append(mutant)
    for proof in proofs:
        for diff in proof.diffs:
            matching = by_change.get((proof.block, diff), [])
            if len(matching) != 1 or matching[0] in found:
                many = f"{len(matching)} mutants have" if len(matching) != 1 else "another proof has"
                raise ProofError(f"equivalent.toml, {proof.block}: {many} this diff; one belongs to it.\n{diff}")
            found[matching[0]] = proof
    return found
