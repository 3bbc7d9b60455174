"""The table that `make grade` prints, and the line it shows while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from grader.checks.runner import Check
from grader.rubric import Question

from .result import IDLE, CheckResult, QuestionResult, Result, number

STYLES = {"passed": "green", "not_attempted": "dim", "skipped": "dim", "grader_error": "magenta"}
FAILED = "red"
SHOWN_REASONS = 3
SHOW_ALL = "`make grade ALL=yes` shows all"
SHOWN_OUTPUT_LINES = 12
INDENT = (0, 0, 0, 2)


@contextmanager
def progress_line(questions: list[Question]) -> Iterator[Callable[[Check], None]]:
    """A line that says which check runs; nothing where the output is no terminal."""
    total = sum(len(question.checks) for question in questions)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def show(check: Check) -> None:
            bar.update(task, advance=1, description=f"{check.question} {check.title:60.60}")

        yield show


def print_result(result: Result, console: Console | None = None, everything: bool = False) -> None:
    """Print one table: question, title, points, status, and under what fails the reason.

    `everything` shows every check that failed, and not the first reasons only.
    """
    console = console or Console(highlight=False)
    title = Text(f"Submission {result.submission}", "bold")
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("question", no_wrap=True)
    table.add_column("title, and what to look at", ratio=1)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for question in result.shown:
        style = STYLES.get(question.status, FAILED)
        points = f"{number(question.score)} / {number(question.worth)}"
        cell = _cell(question, everything)
        table.add_row(question.id, cell, points, Text(question.status.replace("_", " "), style))
    console.print(table)
    if result.invitation:
        console.print(Text(result.invitation, "dim"))
    _print_output(result, console)
    if result.isolation:
        console.print(Text(f"isolation: {result.isolation['summary']}", "dim"))
    for note in dict.fromkeys(result.notes):
        console.print(Text(f"note: {note}"))
    console.print(Text(f"Score: {result.points}", "bold"))


def print_places(results: Path, html: Path | None, console: Console | None = None) -> None:
    """Say where the details were written, and the page, if there is one."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(Text(f"The details are in {results}."))
    if html is not None:
        console.print(Text(f"The page to read is {html}; open it in a browser."))


def _cell(question: QuestionResult, everything: bool) -> RenderableType:
    """The title, and under it what is to be said about the question."""
    lines: list[RenderableType] = [Text(question.title, "bold")]
    if question.points_later and question.status not in IDLE:
        lines.append(Text(question.points, "dim"))
    shown = question.reasons if everything else question.reasons[:SHOWN_REASONS]
    for group in shown:
        lines += _reason(group if everything else group[:1])
    lines += [Padding(Text(message), INDENT) for message in question.why_idle]
    lines += [Text(later, "dim") for later in dict.fromkeys(check.later for check in question.checks) if later]
    left = len(question.reasons) - len(shown)
    if left:
        more = "1 more reason" if left == 1 else f"{left} more reasons"
        lines.append(Text(f"{more}: {SHOW_ALL}", "dim"))
    return Group(*lines)


def _reason(group: list[CheckResult]) -> list[RenderableType]:
    """What some checks that failed for the same reason say; the reason once."""
    lines: list[RenderableType] = []
    for check in group:
        lines.append(Text(check.title, "italic"))
        lines += [Padding(Text(text), INDENT) for text in (check.message, check.where) if text]
    return [*lines, Padding(Text(group[0].hint, "yellow"), INDENT)] if group[0].hint else lines


def _print_output(result: Result, console: Console) -> None:
    """The end of what the student's own code printed, if anything did not pass."""
    lines = result.output.splitlines()
    if lines and any(question.status != "passed" for question in result.shown):
        console.print(Text("The end of what your code printed:", "bold"))
        for line in lines[-SHOWN_OUTPUT_LINES:]:
            console.print(Text(f"  {line[:200]}", "dim"))
