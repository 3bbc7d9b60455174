"""The page of a class: one file that needs no network, and of which only sorting and searching need a script.

Everything students had a hand in is hostile: names, notes, messages, code. The templates escape it, after what cannot
be seen was spelled out; the script is one that the page's policy names by its digest, and holds no text of theirs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from grader.checks.runner import STATUSES

from .class_summary import OURS, UNFINISHED, ClassSummary, Row, histogram, quartiles
from .html import FAILED, HERE, SYMBOLS, environment
from .likeness import RULE, Similarity
from .pictures import Strip, address
from .regrade import Changes
from .result import number, write_whole

MARKS = SYMBOLS | {"error": "!", "out_of_memory": "M", "timeout": "T", "crashed": "C", OURS: "?"}
REASONS = 5  # of a question that are shown at once
GIVEN = ("Data", "New")  # how titles of pictures begin that show data, the same for everybody
BEFORE = "What the generator made of noise before"  # and of one that shows nothing learned
VISIBLE = 28  # pixels an image is high at least, or nearly
BAR, BARS_HEIGHT = 10, 60  # of histograms
EARLY = 'document.documentElement.classList.add("js");'  # what the script will hide is not laid out first
LOOK = {  # what there is to look at, ours first; of whom nothing could be graded come third
    UNFINISHED: "Grading did not end. problems.log says why, and the same command grades them again",
    OURS: "The grader failed. This is not the students' fault: find out why, and grade them again",
    "crashed": "Ended the Python process",
    "out_of_memory": "Asked for more memory than there is",
    "timeout": "Did not come to an end",
    "sandbox": "Did something that the sandbox refuses, or speaks of it",
    "outside": "Changed code outside the blocks, or a given file",
    "error": "Raised an exception",
}


@dataclass
class Gallery:
    """The pictures of a class, read again when they are shown.

    Attributes:
        find: gives the strips of a student.
        rows: numbers of those who have a picture, by its check and title.
        given: what a check gave everybody's model to learn from or to repeat, by the check.
    """

    find: Callable[[str], Sequence[Strip]]
    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    given: dict[str, Strip] = field(default_factory=dict)

    def add(self, row: int, strips: Sequence[Strip]) -> None:
        """Note what a student has to show."""
        for strip in strips:
            if strip.title.startswith(GIVEN):
                self.given.setdefault(strip.check, strip)
            elif not strip.title.startswith(BEFORE):
                self.rows.setdefault((strip.check, strip.title), []).append(row)

    def sheets(self, rows: Sequence[Row]) -> list[tuple[str, str, int, Iterator[tuple[Row, Strip]]]]:
        """Check and title of every picture, how many have it, and those who have it with theirs."""
        return [
            (check, title, len(have), self._of(check, title, [rows[at] for at in have]))
            for (check, title), have in self.rows.items()
        ]

    def _of(self, check: str, title: str, rows: Sequence[Row]) -> Iterator[tuple[Row, Strip]]:
        for row in rows:
            for strip in self.find(row.student):
                if (strip.check, strip.title) == (check, title):
                    yield row, strip


def write(
    path: Path,
    summary: ClassSummary,
    changes: Changes | None = None,
    similar: Similarity | None = None,
    gallery: Gallery | None = None,
) -> None:
    """Write the page, piece by piece. Raises OSError.

    Args:
        path: of the file; the pages of students are in feedback/ beside it.
        summary: the class.
        changes: against the run before, if there was one with other settings or hand-ins.
        similar: code that is alike.
        gallery: pictures of samples.
    """
    write_whole(path, pieces(summary, changes, similar, gallery))


def pieces(
    summary: ClassSummary,
    changes: Changes | None = None,
    similar: Similarity | None = None,
    gallery: Gallery | None = None,
) -> Iterator[str]:
    """The page in pieces: the same for the same class; see `write`."""
    every = [summary.question(question) for question in summary.titles]
    questions = [question for question in every if not question.left_alone]
    stream = (
        templates()
        .get_template("class.html")
        .stream(
            rows=summary.rows,
            by_student={row.student: row for row in summary.rows},
            summary=summary,
            scores=summary.scores,
            questions=questions,
            present=[status for status in STATUSES if any(status in question.counts for question in questions)],
            look=LOOK,
            changes=changes,
            similar=similar,
            given=gallery.given if gallery else {},
            sheets=gallery.sheets(summary.rows) if gallery else [],
            rule=RULE,
            scripts=scripts(),
            reasons_shown=REASONS,
        )
    )
    stream.enable_buffering(256)
    return iter(stream)


@cache
def scripts() -> tuple[Markup, Markup]:
    """The scripts of the page: what runs before anything is laid out, and after everything is there."""
    return Markup(EARLY), Markup((HERE / "templates" / "class.js").read_text("utf-8"))


def digest(text: str) -> str:
    """What the policy of a page knows a script by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def templates() -> Environment:
    """Finds templates, with what the page of a class needs besides."""
    found = environment().overlay()
    found.filters = found.filters | {
        "mark": lambda status: MARKS.get(status, FAILED),
        "words": lambda status: status.replace("_", " "),
        "address": lambda strip: Markup(address(strip.png)),  # letters, digits and signs that need no escape
        "size": size,
        "dedent": dedent,
        "page": lambda row: f"feedback/{quote(row.student, safe='')}.html",
        "digest": digest,
        "bars": bars,
        "bins": bins,
        "percent": lambda share: f"{100 * share:.0f} %",
        "people": lambda count: f"{count} student" if count == 1 else f"{count} students",
    }
    found.globals = found.globals | {"histogram": histogram, "quartiles": quartiles}
    return found


def size(strip: Strip) -> tuple[int, int]:
    """Width and height on the screen: its own, or as many times that as makes small images visible."""
    width, height = (int.from_bytes(strip.png[at : at + 4], "big") for at in (16, 20))  # where every PNG file has them
    times = max(round(VISIBLE / height), 1)
    return times * width, times * height


# ---------------------------------------------------------------- histograms


def bins(counts: Sequence[int], highest: float) -> list[tuple[Any, Any, int]]:
    """Of every bin that is not empty: where it starts, where it ends, and its count."""
    width = highest / len(counts)
    return [(number(at * width), number((at + 1) * width), count) for at, count in enumerate(counts) if count]


def bars(counts: Sequence[int], told: str, marks: Sequence[float] = (), highest: float = 1.0) -> Markup:
    """A histogram as an element that is stretched to its place.

    Args:
        counts: of the bins of [0, highest].
        told: what it shows, for those who do not see it.
        marks: lower quartile, median and upper quartile, drawn below the bars.
        highest: the end of the last bin.
    """
    most, parts = max([*counts, 1]), []
    for at, count in enumerate(counts):
        if count:
            height = max(count / most * BARS_HEIGHT, 1.5)  # one of 500 is to be seen
            parts.append(
                f'<rect x="{at * BAR + 0.5:g}" y="{BARS_HEIGHT - height:.2f}" width="{BAR - 1}" height="{height:.2f}"/>'
            )
    if marks:
        low, middle, high = (min(max(mark / highest, 0), 1) * BAR * len(counts) for mark in marks)
        parts.append(f'<rect class="half" x="{low:.2f}" y="{BARS_HEIGHT + 3}" width="{high - low:.2f}" height="2"/>')
        parts.append(f'<rect class="middle" x="{middle - 0.5:.2f}" y="{BARS_HEIGHT + 1}" width="1" height="6"/>')
    element = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>')
    bottom = BARS_HEIGHT + (8 if marks else 0)
    return element.format(BAR * len(counts), bottom, told, Markup("").join(map(Markup, parts)))
