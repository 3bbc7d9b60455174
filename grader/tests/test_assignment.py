"""Every number of the texts that the rubric decides is the rubric's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import HANDOUT, REPOSITORY, SOLUTION
from grader.rubric import DUE, RUBRIC, load

QUESTIONS = load()
POINTS = r"(?P<points>\d+(?:\.\d+)?) points?"
SAID = [  # how a text says what a question, a section or a part is worth
    rf"^## (?P<id>\d(?:\.\d)?) .*\((?:a bonus of )?{POINTS}\)$",
    rf"\*\*(?P<id>\d\.\d\w?)(?: [^*(]*)?\({POINTS}\)\*\*",
    rf"\((?P<id>\d\.\d\w), {POINTS}\)",
    rf"\((?P<id>)Part (?P<part>\d), (?:a bonus of )?{POINTS}\)",
]
EACH = re.compile(rf"^{POINTS} each", re.MULTILINE)
ROW = re.compile(r"^\| (?P<files>`[^|]+`) \|[^|]+\| (?P<blocks>[^|]+) \|$", re.MULTILINE)


def worth(beginning: str) -> float:
    """The points of the questions whose id begins so."""
    return sum(question.points for question in QUESTIONS if question.id.startswith(beginning))


def text() -> str:
    return (SOLUTION / "README.md").read_text("utf-8")


def test_points_in_the_assignment_text_are_those_of_the_rubric() -> None:
    found = [match for pattern in SAID for match in re.finditer(pattern, text(), re.MULTILINE)]
    wrong = [m[0] for m in found if float(m["points"]) != worth(m["id"] or m["part"] + ".")]
    assert wrong == []
    each = [(m, section_of(m.start())) for m in EACH.finditer(text())]
    assert [m[0] for m, ids in each if {float(m["points"])} != {worth(name) for name in ids}] == []
    assert len(found) + len(each) == len(re.findall(POINTS, text())), "points are said in a way that is not tested"


def section_of(place: int) -> list[str]:
    """The questions of the section that a place of the text is in."""
    number = re.findall(r"^## (\d\.\d)", text()[:place], re.MULTILINE)[-1]
    return [question.id for question in QUESTIONS if question.id.startswith(number)]


def test_the_text_says_what_every_question_is_worth() -> None:
    said = {match["id"] for pattern in SAID[:3] for match in re.finditer(pattern, text(), re.MULTILINE)}
    silent = [question.id for question in QUESTIONS if not {question.id, question.id[:3]} & said]
    assert silent == []


@pytest.mark.parametrize("folder", [SOLUTION, HANDOUT], ids=lambda folder: folder.name)
def test_the_table_of_files_has_their_blocks(folder: Path) -> None:
    rows = [(re.findall("`([^`]+)`", row["files"]), row["blocks"]) for row in ROW.finditer(text())]
    assert sorted(name for names, _ in rows for name in names) == sorted(path.name for path in HANDOUT.glob("*.py"))
    for names, said in rows:
        held = {block for name in names for block in blocks.parse((folder / name).read_text("utf-8"))}
        assert named(said, every_block()) == held, names


def every_block() -> list[str]:
    return [block for path in SOLUTION.glob("*.py") for block in blocks.parse(path.read_text("utf-8"))]


def named(said: str, known: Iterable[str]) -> set[str]:
    """The blocks that are meant by a list like `2.3a; 3.1 to 3.3`."""
    if said.strip() == "none":
        return set()
    ranges = [item.strip().partition(" to ")[::2] for item in re.split("[,;]", said)]
    return {block for block in known for first, last in ranges if first <= block[: len(first)] <= (last or first)}


def test_the_readme_says_what_hidden_checks_are_worth() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    required = [question for question in QUESTIONS if not question.optional]
    hidden = sum(points for q in required for name, points in q.checks.items() if q.audiences[name] == DUE)
    assert f"hold {hidden:g} of the {sum(q.points for q in required):g} points" in " ".join(readme.split())


def test_the_table_in_the_readme_has_the_points_of_the_rubric() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    rows = re.findall(r"^│ (\d\.\d\w?) +│ (\S.*?) +│ +([\d.]+) / ([\d.]+) │", readme, re.MULTILINE)
    shown = {question.id: question for question in QUESTIONS if question.id in {row[0] for row in rows}}
    assert [(id_, title, float(most)) for id_, title, _, most in rows] == [
        (question.id, question.title, question.points) for question in shown.values()
    ]
    total = f"Score: {sum(float(row[2]) for row in rows):g} of {sum(q.points for q in shown.values()):g} points"
    assert rows
    assert total in readme


def test_the_rubric_says_what_parts_are_worth() -> None:
    said = re.findall(r"Part (\d) is worth (\d+)", RUBRIC.read_text("utf-8"))
    assert said
    assert [(part, float(points)) for part, points in said] == [(part, worth(f"{part}.")) for part, _ in said]
