"""Which students wrote code that is more alike than their class explains. Nothing of it leaves the machine.

Only what fills the blocks is compared, wherever a student's rulers are, so that code of the handout never counts.
Comments, layout, and the names that a student chose are dropped first (`tokens`); then rapidfuzz measures which part of
the tokens of two blocks is common to both, in the same order.

Short blocks converge, so that similarity alone says nothing: what counts is how rare it is in this class. Two
students who are ALIKE in a block share log2(students / n) bits, where n counts those who are as near to either of the
two as they are to each other, the two included: what everybody writes is worth nothing, what these two alone write
most. Nothing is worth a block under SHORT tokens, or code as near to the model answer as the two are to each other.

Two students stand out in one of three ways:
- over all blocks: their bits add up to HABITS times more than those of any two students in any of DEALS classes made
  from this one by dealing out the answers to every topic anew among the students. Such classes hold no copies, but
  the same clusters of popular answers. Blocks of one topic, like 1.1a and 1.1b, are dealt together: one idea makes
  them. HABITS makes up for a student's ways, which dealing out parts and which one keeps from topic to topic.
- in one block of LONG tokens: next to nobody else, FEW of the class, has anybody nearly as near (within GAP).
- in everything: all their blocks, SAME tokens together, are equal to the letter, comments and names included.

Not found, because the class explains it: copies of a few short blocks, or of popular answers alone. Not compared:
code outside the blocks, a block whose function is gone, and comments, which stand in the code that is shown.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Indel

from grader import blocks
from grader.assignment import SOLUTION, pristine, student_files
from grader.report.likeness import BlockSimilarity, Group, Pair, Side, Similarity
from grader.submission import SubmissionError, from_files

ALIKE = 0.85  # similarity
SHORT = 16  # tokens
LONG = 80  # tokens
FEW = 0.02  # of the students
GAP = 0.1  # of similarity
ENOUGH = 10  # students, to call one block of two of them rare
DEALS = 100
HABITS = 1.15
SAME = 200  # tokens
BINS = 20
ROUNDING = 1e-6  # of similarities in single precision
MAX_TOKENS = 1000  # of a block; what comes after them is not compared
MAX_SHOWN = 10_000  # characters of a block

TOKEN = re.compile(
    r"""
      (?P<dropped> \#[^\n]* | \s+ | \\\n | ;
        | (?i:[rbfu]{0,2}) (?P<three>\"{3}|'{3}) (?:\\.|(?!(?P=three)).)* (?P=three)? )
    | (?P<string> (?i:[rbfu]{0,2}) (?P<one>["']) (?:\\.|(?!(?P=one))[^\\\n])* (?P=one)? )
    | (?P<number> \.?\d[\w.]* (?:(?<=[eE])[+-]\w+)? )
    | (?P<name> \w+ )
    | \*\* | // | -> | [=!<>:+*/%@&|^-]= | .
    """,
    re.VERBOSE | re.DOTALL,
)
IMPORTED = re.compile(r"^(?:from [\w.]+ )?import (.*)|^(?:def|class) (\w+)", re.MULTILINE)
METHOD = re.compile(r"^ +def (\w+)", re.MULTILINE)

Couple = tuple[int, int]
Matrix = NDArray[np.float32]


def similarity(sources: Mapping[str, Mapping[str, bytes]]) -> Similarity:
    """Compare the blocks of a class, given the contents of files by name, by student."""
    students = sorted(sources)
    texts = [_filled(sources[student]) for student in students]
    model = _filled({path.name: path.read_bytes() for path in SOLUTION.glob("*.py")})
    questions = sorted({question for file in student_files() for question in blocks.parse(pristine()[file])})
    compared = [_compare(q, [text.get(q, "") for text in texts], model.get(q, "")) for q in questions]
    groups = []
    for couples in _connected(_outlying(compared, len(students))):
        members = sorted({student for couple in couples for student in couple})
        once: dict[tuple[str, str, str], Pair] = {}
        for pair in (_pair(couple, compared, students) for couple in couples):
            once.setdefault((pair.question, pair.first.code, pair.second.code), pair)
        groups.append(Group(tuple(students[at] for at in members), tuple(once.values())))
    return Similarity(tuple(_reported(block, groups) for block in compared), tuple(groups))


def _outlying(compared: list[_Compared], students: int) -> list[Couple]:
    """Students who stand out, by twos, those with most bits first."""
    topics: dict[str, Matrix] = {}
    lonely = np.zeros((students, students), bool)
    for block in compared:
        topic = topics.setdefault(block.question.rstrip(ascii_lowercase), np.zeros(lonely.shape, np.float32))
        filled = np.flatnonzero(block.which >= 0)
        couples, codes = np.ix_(filled, filled), np.ix_(block.which[filled], block.which[filled])
        topic[couples] += block.bits[codes]
        lonely[couples] |= block.lonely[codes]
    bits = np.sum(list(topics.values()), axis=0)
    outlying = np.triu(lonely | (bits > _luckiest(list(topics.values()))), 1)
    for couple in _equal(compared, students):
        outlying[couple] = True
    first, second = np.nonzero(outlying)
    order = np.argsort(-bits[first, second], kind="stable")
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


def _equal(compared: list[_Compared], students: int) -> Iterator[Couple]:
    """Students whose blocks are equal but for layout: each with the next."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for student in range(students):
        if sum(len(block.codes[block.which[student]]) for block in compared if block.which[student] >= 0) >= SAME:
            words = tuple(" ".join(block.texts[student].split()) for block in compared)
            alike.setdefault(words, []).append(student)
    for members in alike.values():
        yield from pairwise(members)


def _luckiest(topics: list[Matrix]) -> float:
    """The most bits of any two students when every topic is dealt out anew among the students, DEALS times."""
    draw = np.random.default_rng(0)
    most = 0.0
    for _ in range(DEALS):
        dealt = np.zeros_like(topics[0])
        for topic in topics:
            order = draw.permutation(len(topic))
            dealt += topic[np.ix_(order, order)]
        most = max(most, float(np.triu(dealt, 1).max(initial=0)))
    return HABITS * most + ROUNDING


def tokens(code: str) -> list[str]:
    """At most MAX_TOKENS tokens of `code`, the same however names, strings, comments and layout were changed.

    Every name that a student may choose is the same token; so is every string. Names of Python, of what the handout
    imports or defines, and of attributes stay. Any text has tokens, be it Python or not.
    """
    return list(islice(_without_last_commas(_normalised(code)), MAX_TOKENS))


def _normalised(code: str) -> Iterator[str]:
    """Tokens with names and strings replaced."""
    earlier, last = "", ""
    for found in TOKEN.finditer(code):
        kind, token = found.lastgroup, found[0]
        if kind == "dropped":
            continue
        if kind == "string" or (kind == "name" and not _given(token, last, earlier)):
            token = str(kind)
        earlier, last = last, token
        yield token


def _given(name: str, last: str, earlier: str) -> bool:
    """Whether no student chose a name, after two tokens."""
    if last == ".":
        return earlier != "self" or f".{name}" in _api()
    return name in _api()


def _without_last_commas(stream: Iterable[str]) -> Iterator[str]:
    """Tokens but for commas before a closing bracket, which come and go with the layout."""
    comma = False
    for token in stream:
        if comma and token not in ")]}":
            yield ","
        comma = token == ","
        if not comma:
            yield token


@cache
def _api() -> frozenset[str]:
    """Names that no student chose: Python's, those the handout imports or defines, and its methods after a point."""
    names = {*keyword.kwlist, *dir(builtins), "self"}
    for text in map(pristine().__getitem__, student_files()):
        names |= {name for found in IMPORTED.finditer(text) for name in re.findall(r"\w+", found[1] or found[2])}
        names |= {f".{name}" for name in METHOD.findall(text)}
    return frozenset(names)


def _filled(files: Mapping[str, bytes]) -> dict[str, str]:
    """Code of the blocks that were attempted, by question. Files over MAX_FILE_BYTES have none, as in grading."""
    try:
        submission = from_files("", files)
    except SubmissionError:
        return {}
    found = {question: block for name in student_files() for question, block in submission.blocks(name).items()}
    return {question: block.body for question, block in found.items() if block.attempted}


@dataclass(frozen=True, eq=False)
class _Compared:
    """A block of a whole class, equal code compared once.

    Attributes:
        texts: as handed in, by student; "" of those who did not fill it.
        codes: different codes, one character a token.
        which: by student, the index of the code; -1 of those who did not fill it.
        histogram: numbers of pairs of students by similarity.
        bits: by two codes, (codes, codes), what two students share who wrote them.
        lonely: by two codes, whether two students stand out who wrote them, whatever they wrote elsewhere.
    """

    question: str
    texts: list[str]
    codes: list[str]
    which: NDArray[np.int64]
    histogram: tuple[int, ...]
    bits: Matrix
    lonely: NDArray[np.bool_]


def _compare(question: str, texts: list[str], model: str) -> _Compared:
    """Compare the texts of a block, one a student, with each other and with the text of the model answer."""
    *spelled, answer = _spelled([*texts, model])
    codes = list(dict.fromkeys(code for code in spelled if code))
    index = {code: at for at, code in enumerate(codes)}
    which = np.array([index.get(code, -1) for code in spelled], np.int64)
    counts = np.bincount(which[which >= 0], minlength=len(codes))
    alike = _alike(codes, codes)
    lengths = np.array([len(code) for code in codes], np.int64)
    shorter = np.minimum.outer(lengths, lengths)
    to_model = _alike(codes, [answer]) if answer else np.zeros((len(codes), 1), np.float32)
    telling = (alike >= ALIKE) & (alike > np.maximum(to_model, to_model.T))
    bits = np.where(telling & (shorter >= SHORT), _rarity(alike, counts), 0)
    lonely = telling & (shorter >= LONG) & _alone(alike, counts)
    return _Compared(question, texts, codes, which, _histogram(alike, counts), bits.astype(np.float32), lonely)


def _spelled(texts: list[str]) -> list[str]:
    """Texts as strings of one character a token, which are what rapidfuzz compares fastest."""
    letters: dict[str, int] = {}
    return ["".join(chr(letters.setdefault(t, len(letters)) % 0x110000) for t in tokens(text)) for text in texts]


def _alike(first: list[str], second: list[str]) -> Matrix:
    """Similarities of codes, (first, second): twice the tokens in common, in order, by the tokens of both."""
    return process.cdist(first, second, scorer=Indel.normalized_similarity, dtype=np.float32, workers=1)


def _rarity(alike: Matrix, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """log2(students / those as near to either of two codes as these are to each other), (codes, codes)."""
    near = np.array([_at_least(row, row, counts) for row in alike]).reshape(alike.shape)
    return np.log2(counts.sum() / np.maximum(near, near.T))


def _alone(alike: Matrix, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether next to nobody has a classmate about as near as two codes are to each other, (codes, codes)."""
    others = alike.copy()
    np.fill_diagonal(others, counts > 1)
    with_any = _at_least(alike - GAP, others.max(axis=1, initial=0), counts)
    return (with_any <= max(2, FEW * counts.sum())) & (counts.sum() >= ENOUGH)


def _at_least(levels: Matrix, values: Matrix, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many students have at least each level, where `counts` of them have each of `values`."""
    order = np.argsort(values)
    sums = np.append(counts[order][::-1].cumsum()[::-1], 0)
    return sums[np.searchsorted(values[order], levels - ROUNDING)]


def _histogram(alike: Matrix, counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Numbers of pairs of students by similarity, in BINS equal bins of [0, 1]."""
    bins = np.minimum((alike * BINS + ROUNDING * BINS).astype(np.int64), BINS - 1)
    pairs = np.triu(np.outer(counts, counts), 1) + np.diag(counts * (counts - 1) // 2)
    return tuple(int(np.sum(pairs[bins == at])) for at in range(BINS))


def _connected(couples: list[Couple]) -> list[list[Couple]]:
    """The first couples that connect whom all couples connect, by group."""
    towards: dict[int, int] = {}

    def end(student: int) -> int:
        while (nearer := towards.get(student, student)) != student:
            towards[student] = towards.get(nearer, nearer)
            student = nearer
        return student

    links = []
    for first, second in couples:
        if end(first) != end(second):
            towards[end(first)] = end(second)
            links.append((first, second))
    groups: dict[int, list[Couple]] = {}
    for first, second in links:
        groups.setdefault(end(first), []).append((first, second))
    return list(groups.values())


def _pair(couple: Couple, compared: list[_Compared], students: list[str]) -> Pair:
    """Two students side by side in the block that says most about them."""
    first, second = couple
    bits = {b: float(b.bits[b.which[first], b.which[second]]) for b in compared if min(b.which[[first, second]]) >= 0}
    block = max(bits, key=lambda block: (bits[block], len(block.codes[block.which[first]])))
    one, other = (Side(students[at], _shown(block.texts[at])) for at in couple)
    alike = Indel.normalized_similarity(*(block.codes[block.which[at]] for at in couple))
    return Pair(block.question, alike, one, other, tuple(b.question for b in bits if bits[b] and b is not block))


def _shown(code: str) -> str:
    """Code as handed in, cut to MAX_SHOWN characters."""
    return code if len(code) <= MAX_SHOWN else code[:MAX_SHOWN] + " ..."


def _reported(block: _Compared, groups: list[Group]) -> BlockSimilarity:
    """What is said of a block: the pairs of all groups about which it says most."""
    pairs = [pair for group in groups for pair in group.pairs if pair.question == block.question]
    pairs.sort(key=lambda pair: -pair.similarity)
    return BlockSimilarity(block.question, sum(block.histogram), block.histogram, tuple(pairs))
