"""What the page of a class needs of every result, and the numbers made of it.

Results pass by one at a time; of each a row is kept, and of a text that many share one copy.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from grader.checks.runner import STATUSES

from .entry import Entry
from .result import CheckResult, QuestionResult, Result

BINS = 20  # of the distribution of scores
MAX_REASON = 400  # characters of a reason that are kept
FINE = ("passed", "skipped", "not_attempted")
OURS = "grader_error"
UNFINISHED = "unfinished"  # of whom there is no result, though something was handed in
NUMBERS = re.compile(r"[\[(][-\d., e+]*(?:\.\.\.)?[\])]|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")  # or a list of them, or a shape
CHANGED = re.compile(r"code outside the blocks was changed|the rulers around .* are gone|was changed; the one of the")
TRIPPED = re.compile(
    r"PermissionError|Operation not permitted|Permission denied|Resource temporarily unavailable"
    r"|broke the rules of the wire|SIGSYS"
)


@dataclass(frozen=True)
class Cell:
    """One question of one student.

    Attributes:
        status, score: of the question.
        max_score: what it is worth.
        first: the first mistake, as a sentence; "" where there is none.
    """

    status: str
    score: float
    max_score: float
    first: str


@dataclass(frozen=True)
class Row:
    """One student.

    Attributes:
        number: place in the class, counted from 0.
        student: as of `Entry`, and so are `name`, `late`, `attempt`, `error` and `members`.
        unfinished: whether there is no result though something was handed in; `error` says why.
        notes: sentences on what was handed in.
        score: points; None where nothing was graded.
        cells: by the id of a question.
    """

    number: int
    student: str
    name: str
    late: bool
    attempt: int
    error: str
    unfinished: bool
    members: tuple[str, ...]
    notes: tuple[str, ...]
    score: float | None
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Reason:
    """Why checks of a question failed, the same for everybody in it.

    Attributes:
        text: the hint, or without one the message, of the first of them.
        students: numbers of rows.
    """

    text: str
    students: list[int]


@dataclass(frozen=True)
class QuestionSummary:
    """One question in a class. Rates leave out whom the grader failed, who left a bonus alone, and all if
    nobody was asked.

    Attributes:
        id, title, max_score, optional: of the question.
        counts: of students, by status, from best to gravest; none is 0.
        graded: how many students count.
        passed: how many of them passed.
        median: of their points; None where nobody counts.
        discrimination: see `point_biserial`.
        reasons: the commonest first.
    """

    id: str
    title: str
    max_score: float
    optional: bool
    counts: dict[str, int]
    graded: int
    passed: int
    median: float | None
    discrimination: float | None
    reasons: list[Reason]

    @property
    def left_alone(self) -> bool:
        """Whether it is optional, and nobody attempted it."""
        return self.optional and set(self.counts) <= {"not_attempted"}


@dataclass(frozen=True)
class Sign:
    """Something to look at: who, and what was said, of which question ("" where it is of all)."""

    row: int
    question: str
    text: str


@dataclass
class ClassSummary:
    """A class, told result by result.

    Attributes:
        rows: everybody, in the order in which they came.
        max_score: what can be earned.
        titles, worth, optional: of questions, by id, in order: titles, points, and whether they are a bonus.
        seed, device: of the last result.
        signs: what to look at: by status what is grave, and under UNFINISHED, "sandbox" and "outside" the others.
    """

    rows: list[Row] = field(default_factory=list)
    max_score: float = 0.0
    titles: dict[str, str] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)
    optional: dict[str, bool] = field(default_factory=dict)
    seed: int | None = None
    device: str = ""
    signs: dict[str, list[Sign]] = field(default_factory=dict)
    _reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Entry, result: Result | None, unfinished: bool = False) -> Row:
        """Take in one student; `result` is None where nothing was graded, or could not be to its end."""
        number = len(self.rows)
        cells = {}
        for question in result.questions if result else ():
            self.titles.setdefault(question.id, question.title)
            self.worth[question.id] = question.max_score
            self.optional[question.id] = question.optional
            cells[question.id] = self._cell(number, question)
        if result:
            self.max_score, self.seed, self.device = max(self.max_score, result.max_score), result.seed, result.device
        notes = tuple(self._once(note) for note in (result.notes if result else entry.notes))
        row = Row(
            number, entry.student, entry.name, entry.late, entry.attempt, entry.error, unfinished,
            tuple(entry.members), notes,
            result.score if result else None, cells,
        )  # fmt: skip
        self.rows.append(row)
        if unfinished:
            self._sign(UNFINISHED, number, "", entry.error)
        for note in notes:
            if CHANGED.search(note):
                self._sign("outside", number, "", note)
        if result and (line := tripping(result.output)):
            self._sign("sandbox", number, "", line)
        return row

    def _cell(self, number: int, question: QuestionResult) -> Cell:
        """A question of a row; its reasons and signs are kept on the way."""
        first, signed, told = "", set(), set()
        for check in question.checks:
            if check.status in FINE:
                continue
            key, text = reason_of(check)
            first = first or self._once(text)
            if check.status == OURS:
                self._sign(OURS, number, question.id, check.message)
                continue
            if (same := NUMBERS.sub("0", key)) not in told:  # checks say the same of inputs of their own
                told.add(same)
                self._reasons.setdefault((question.id, key), Reason(self._once(text), [])).students.append(number)
            if check.status != "wrong" and check.status not in signed:
                signed.add(check.status)
                self._sign(check.status, number, question.id, gist(check))
            if "sandbox" not in signed and (line := tripping(check.message)):
                signed.add("sandbox")
                self._sign("sandbox", number, question.id, line)
        return Cell(question.status, question.score, question.max_score, first)

    def _sign(self, kind: str, number: int, question: str, text: str) -> None:
        self.signs.setdefault(kind, []).append(Sign(number, question, self._once(text)))

    def _once(self, text: str) -> str:
        """The one copy of a text, cut to MAX_REASON characters."""
        cut = text if len(text) <= MAX_REASON else text[:MAX_REASON] + " ..."
        return self._texts.setdefault(cut, cut)

    @property
    def scores(self) -> list[float]:
        """Of everybody who was graded, in the order of the rows."""
        return [row.score for row in self.rows if row.score is not None]

    def question(self, question: str) -> QuestionSummary:
        """The numbers of one question."""
        cells = [(row, row.cells[question]) for row in self.rows if question in row.cells]
        counts = Counter(cell.status for _, cell in cells)
        aside = {OURS} | ({"not_attempted"} if self.optional[question] else set())
        aside |= {"skipped"} if set(counts) == {"skipped"} else set()
        valid = [(row, cell) for row, cell in cells if cell.status not in aside]
        passed = [cell.status == "passed" for _, cell in valid]
        rest = [(row.score or 0.0) - cell.score for row, cell in valid]
        reasons = [reason for (of, _), reason in self._reasons.items() if of == question]
        return QuestionSummary(
            id=question,
            title=self.titles[question],
            max_score=self.worth[question],
            optional=self.optional[question],
            counts={status: counts[status] for status in STATUSES if counts[status]},
            graded=len(valid),
            passed=sum(passed),
            median=statistics.median(cell.score for _, cell in valid) if valid else None,
            discrimination=point_biserial(passed, rest),
            reasons=sorted(reasons, key=lambda reason: -len(reason.students)),
        )


def reason_of(check: CheckResult) -> tuple[str, str]:
    """Why a check failed: what makes reasons the same, and the sentence.

    That is the hint, or where it shows; without one the exception, or the message, where numbers make no difference.
    """
    if found := check.hint or check.where:
        return found, found
    text = gist(check)
    return NUMBERS.sub("0", text), text


def gist(check: CheckResult) -> str:
    """The line of a check's message that says most: the exception, or else the first."""
    lines = check.message.strip().splitlines() or [check.status.replace("_", " ")]
    return lines[-1 if check.status == "error" else 0].strip()


def tripping(text: str) -> str:
    """The first line that tells of something that isolation refused, and the one before; "" if none does."""
    before = ""
    for line in text.splitlines():
        if TRIPPED.search(line):
            return f"{before}\n{line.strip()}".strip()
        before = line.strip()
    return ""


# ---------------------------------------------------------------- numbers


def quartiles(scores: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of at least one score, interpolated between neighbours."""
    if len(scores) == 1:
        return scores[0], scores[0], scores[0]
    low, middle, high = statistics.quantiles(scores, n=4, method="inclusive")
    return low, middle, high


def histogram(scores: Sequence[float], highest: float, bins: int = BINS) -> list[int]:
    """How many scores lie in each of equal parts of [0, highest]; what lies beyond is in the outermost."""
    counts = [0] * bins
    for score in scores:
        at = math.floor(score / highest * bins) if highest > 0 else 0
        counts[min(max(at, 0), bins - 1)] += 1
    return counts


def point_biserial(passed: Sequence[bool], rest: Sequence[float]) -> float | None:
    """The correlation of passing a question with the points in all the others.

    r = (M1 - M0) / s * sqrt(p (1 - p)): the mean rest of those who passed and of those who did not, the standard
    deviation of the rest over all of them, and the share p who passed.

    Returns:
        A number in [-1, 1], or None where everybody passed, or nobody, or all have the same rest.
    """
    ones = [x for x, won in zip(rest, passed, strict=True) if won]
    zeros = [x for x, won in zip(rest, passed, strict=True) if not won]
    if not ones or not zeros or min(rest) == max(rest):
        return None
    share = len(ones) / len(rest)
    gap = statistics.fmean(ones) - statistics.fmean(zeros)
    return gap / statistics.pstdev(rest) * math.sqrt(share * (1 - share))
