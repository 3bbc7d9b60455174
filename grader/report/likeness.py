"""Students whose code is more alike than their class explains, as the page of a class shows them."""

from __future__ import annotations

from dataclasses import dataclass

RULE = (
    "Two students are shown when their code, names, comments and layout aside, is alike in more blocks, and in rarer "
    "answers, than it would be if the same answers were dealt out again among the class; when they share one long "
    "block while next to nobody else in the class has a look-alike; or when all they wrote is the same. Each two are "
    "shown once, in the block that says most: a reason to look, never a verdict."
)


@dataclass(frozen=True)
class Side:
    """One student's code of a block, as handed in and so hostile; cut where it is too long."""

    student: str
    code: str


@dataclass(frozen=True)
class Pair:
    """Two students who stand out, in the block that says most about them.

    Attributes:
        similarity: of their code in this block, in [0, 1].
        also: the other blocks in which hardly anybody else is as near to them, in order.
    """

    question: str
    similarity: float
    first: Side
    second: Side
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockSimilarity:
    """A block of everybody who filled it.

    Attributes:
        compared: how many pairs of students that is.
        histogram: numbers of pairs by similarity, in equal bins of [0, 1].
        pairs: those of the groups' pairs about which this block says most, most similar first.
    """

    question: str
    compared: int
    histogram: tuple[int, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Group:
    """Students connected by pairs that stand out: as few pairs as connect them, those that say most first.

    Pairs that would show the same two texts again are left out, so that equal hand-ins are one pair, be they many.
    """

    students: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Similarity:
    """What is similar in a class: by block, in order, and by group, those that say most first."""

    blocks: tuple[BlockSimilarity, ...]
    groups: tuple[Group, ...]
