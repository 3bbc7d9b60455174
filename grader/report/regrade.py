"""What is other in the grades of a class than it was after the run before, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .result import Result

NAMES = {  # of settings that are told with their values
    "seed": "seed",
    "device": "device",
    "audience": "checks of the audience",
    "only": "questions",
}
NEW_FILES = "new hand-in"
SETTINGS = "settings"
ANEW = "graded anew"


@dataclass(frozen=True)
class CheckChange:
    """One check that ended otherwise."""

    id: str
    title: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """One student whose grade, or a check of whose, is another.

    Attributes:
        row: the student's place in the class.
        before, after: points.
        why: NEW_FILES, SETTINGS, both, or ANEW.
        checks: those that ended otherwise, of the questions that both runs graded.
    """

    row: int
    before: float
    after: float
    why: tuple[str, ...]
    checks: list[CheckChange]


@dataclass(frozen=True)
class Before:
    """The run before.

    Attributes:
        settings: what was asked.
        keys: of its results, by student.
        result: gives the fields of a result that is kept still.
        unchanged: whether a student's files, by name, are those that a key is of.
    """

    settings: Mapping[str, Any]
    keys: Mapping[str, str]
    result: Callable[[str], Mapping[str, Any] | None]
    unchanged: Callable[[Mapping[str, bytes], str], bool]


@dataclass
class Changes:
    """The difference of two runs, told student by student.

    Attributes:
        before: the run before.
        settings: what is asked now.
        changed: who has another grade or check.
        same: how many have the same.
        new: rows of those who had nothing graded before.
        lost: how many of the results before are no longer kept.
    """

    before: Before
    settings: Mapping[str, Any]
    changed: list[Change] = field(default_factory=list)
    same: int = 0
    new: list[int] = field(default_factory=list)
    lost: int = 0

    def add(self, row: int, student: str, files: Mapping[str, bytes], key: str, result: Result) -> None:
        """Compare one student's result, of some files and under some key, with that of the run before."""
        earlier = self.before.keys.get(student)
        if earlier is None:
            self.new.append(row)
        elif earlier == key:
            self.same += 1
        elif (fields := self.before.result(earlier)) is None:
            self.lost += 1
        else:
            checks = changed_checks(fields, result)
            if checks or fields["score"] != result.score:
                self.changed.append(Change(row, fields["score"], result.score, self._why(files, earlier), checks))
            else:
                self.same += 1

    def _why(self, files: Mapping[str, bytes], earlier: str) -> tuple[str, ...]:
        why = () if self.before.unchanged(files, earlier) else (NEW_FILES,)
        return (why + ((SETTINGS,) if self.other_settings() else ())) or (ANEW,)

    def other_settings(self) -> list[str]:
        """What is asked otherwise than before, each as a sentence without its end."""
        was, now = self.before.settings, self.settings
        said = [
            f"{name}: {shown(now.get(key))}, before {shown(was.get(key))}"
            for key, name in NAMES.items()
            if was.get(key) != now.get(key)
        ]
        if was.get("training") != now.get("training"):
            said.append("models are trained now" if now.get("training") else "models are no longer trained")
        return said + (["the grader, the rubric or the data changed"] if was.get("grader") != now.get("grader") else [])


def shown(value: Any) -> str:
    """A setting in words."""
    return "all" if value in ("", None) else str(value)


def changed_checks(before: Mapping[str, Any], after: Result) -> list[CheckChange]:
    """The checks that ended otherwise than in the fields of an earlier result; one that only one has is left out."""
    was = {check["id"]: check["status"] for question in before["questions"] for check in question["checks"]}
    return [
        CheckChange(check.id, check.title, was[check.id], check.status)
        for question in after.questions
        for check in question.checks
        if was.get(check.id, check.status) != check.status
    ]
