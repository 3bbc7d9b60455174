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

from .result import CheckResult, QuestionResult, Result, number

STYLES = {"passed": "green", "not_attempted": "dim", "skipped": "dim", "grader_error": "magenta"}
FAILED = "red"
SHOWN_REASONS = 3
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


def print_result(result: Result, console: Console | None = None) -> None:
    """Print one table: question, title, points, status, and under what fails the reason."""
    console = console or Console(highlight=False)
    title = Text(f"Submission {result.submission}", "bold")
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("question", no_wrap=True)
    table.add_column("title, and what to look at", ratio=1)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for question in result.shown:
        style = STYLES.get(question.status, FAILED)
        points = f"{number(question.score)} / {number(question.max_score)}"
        table.add_row(question.id, _cell(question), points, Text(question.status.replace("_", " "), style))
    console.print(table)
    if result.invitation:
        console.print(Text(result.invitation, "dim"))
    for note in result.notes:
        console.print(Text(f"note: {note}"))
    _print_output(result, console)
    if result.isolation:
        console.print(Text(f"isolation: {result.isolation['summary']}", "dim"))
    console.print(Text(f"Score: {result.points}", "bold"))


def print_places(results: Path, html: Path | None, console: Console | None = None) -> None:
    """Say where the details were written, and the page, if there is one."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(Text(f"The details are in {results}."))
    if html is not None:
        console.print(Text(f"The page to read is {html}; open it in a browser."))


def _cell(question: QuestionResult) -> RenderableType:
    """The title, and the reasons of the checks that failed; checks with the same hint have the same reason."""
    shown: dict[str, CheckResult] = {}
    for check in question.checks:
        if check.status not in ("passed", "not_attempted"):
            shown.setdefault(check.reason, check)
    lines: list[RenderableType] = [Text(question.title, "bold")]
    for check in list(shown.values())[:SHOWN_REASONS]:
        lines += [Text(check.title, "italic"), Padding(Text(check.message), INDENT)]
        if check.where:
            lines.append(Padding(Text(check.where), INDENT))
        if check.hint:
            lines.append(Padding(Text(check.hint, "yellow"), INDENT))
    if len(shown) > SHOWN_REASONS:
        left = len(shown) - SHOWN_REASONS
        more = "1 more reason is" if left == 1 else f"{left} more reasons are"
        lines.append(Text(f"{more} in the results file", "dim"))
    return Group(*lines)


def _print_output(result: Result, console: Console) -> None:
    """The end of what the student's own code printed, if anything did not pass."""
    lines = result.output.splitlines()
    if lines and any(question.status != "passed" for question in result.shown):
        console.print(Text("The end of what your code printed:", "bold"))
        for line in lines[-SHOWN_OUTPUT_LINES:]:
            console.print(Text(f"  {line[:200]}", "dim"))
