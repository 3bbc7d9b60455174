"""The report of one submission: one page that needs no network, no script and no other file.

Everything a submission had a hand in is hostile: the template escapes it, after what cannot be seen was spelled out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grader.engine.text import printable

from .pictures import curve, picture
from .result import OUTPUT_CHARACTERS, CheckResult, QuestionResult, Result, number, write_whole

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
SHOWN_OUTPUT = 8 << 10

SYMBOLS = {"passed": "\u2713", "skipped": "\u2013", "not_attempted": "\u25cb"}  # a tick, a dash, a ring
FAILED = "\u2717"
LATER = (  # what comes below the questions that need attention
    ("Waiting for other questions", "skipped"),
    ("Not attempted yet", "not_attempted"),
    ("Passed", "passed"),
)


@dataclass(frozen=True)
class Formula:
    """What a question is about, as a paper states it.

    Attributes:
        math: MathML, each a `math` element on a line of its own.
        where: what the symbols mean.
        source: the paper, and where in it.
    """

    math: tuple[Markup, ...]
    where: str
    source: str


@cache
def formulas() -> dict[str, Formula]:
    """The formulas by question."""
    data = tomllib.loads((HERE / "formulas.toml").read_text("utf-8"))
    return {
        question: Formula(tuple(Markup(line) for line in entry["math"]), entry["where"], entry["source"])
        for question, entry in data.items()
    }


def render(result: Result) -> str:
    """The page of a result: the same text for the same result."""
    passed = sum(question.status == "passed" for question in result.shown)
    template = environment().get_template("report.html")
    return template.render(
        result=result,
        passed=passed,
        sections=sections(result),
        formulas=formulas(),
        output=result.output[-SHOWN_OUTPUT:],
        cut=len(result.output) > SHOWN_OUTPUT,
    )


def render_message(*sentences: str) -> str:
    """A page that has only sentences to say, in place of a result."""
    return environment().get_template("message.html").render(sentences=sentences)


def write(result: Result, path: Path) -> None:
    """Write the page. Raises OSError."""
    write_whole(path, render(result))


@cache
def environment() -> Environment:
    """Finds templates. Whatever they print was made printable and is escaped, but for the markup made here."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "status": status, "points": points}
    found.filters |= {"picture": picture, "curve": curve}
    return found


def visible(value: Any) -> Any:
    """Text with its invisible characters spelled out; anything else as it is."""
    return printable(value, OUTPUT_CHARACTERS) if type(value) is str else value


# ---------------------------------------------------------------- questions


def sections(result: Result) -> list[tuple[str, list[QuestionResult]]]:
    """The questions under headings, those that need attention first; headings without questions are left out."""
    later = {status: title for title, status in LATER}
    titles = ["Look at these first", *later.values()]
    grouped: dict[str, list[QuestionResult]] = {title: [] for title in titles}
    for question in result.shown:
        grouped[later.get(question.status, titles[0])].append(question)
    return [(title, questions) for title, questions in grouped.items() if questions]


def status(name: str) -> Markup:
    """A status in words, with a symbol for the eye."""
    symbol, words = SYMBOLS.get(name, FAILED), name.replace("_", " ")
    return Markup('<span class="status {}"><span aria-hidden="true">{}</span> {}</span>').format(name, symbol, words)


def points(graded: CheckResult | QuestionResult) -> str:
    """Points earned, in words."""
    return graded.points if graded.max_score else "no points to earn"
