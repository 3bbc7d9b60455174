"""What is seen while a class is graded: a bar with rate and time left, and in a terminal the newest results."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from grader.engine.text import printable
from grader.report.result import STATUSES, Result, number

from .schedule import Answer, Unfinished

NEWEST = 8
NAMES = 3  # of students who handed in the same
COLOURS = {"passed": "green", "skipped": "dim", "not_attempted": "dim"}
Tell = Callable[[str, Answer], None]
UNFINISHED = "not graded"


@contextmanager
def live(total: int, students: Mapping[str, str], console: Console) -> Iterator[Tell]:
    """Show the progress of grading; what is yielded is told the key of every answer and the answer.

    Args:
        total: how many results will come.
        students: keys of results, by student.
        console: where to show it.
    """
    bar, newest, ended = make_bar(console), deque[tuple[str, Result | Unfinished]](maxlen=NEWEST), Counter[str]()
    task = bar.add_task("", total=total, rate="", ended="")
    names: dict[str, list[str]] = {}
    for student, key in students.items():
        names.setdefault(key, []).append(student)

    def show() -> RenderableType:
        return Group(table(newest), bar) if console.is_terminal and newest else bar

    with Live(console=console, get_renderable=show, refresh_per_second=4):

        def tell(key: str, answer: Answer) -> None:
            result = answer if isinstance(answer, Unfinished) else Result.from_fields(answer)
            newest.append((who(names.get(key, [])), result))
            ended[gravest(result)] += 1
            statuses = (*STATUSES, UNFINISHED)
            counts = ", ".join(f"{name.replace('_', ' ')} {ended[name]}" for name in statuses if ended[name])
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed or 0.0
            bar.update(task, advance=1, rate=f"{speed:.1f}/s", ended=counts)

        yield tell


def make_bar(console: Console) -> Progress:
    """The bar, with rate, time left and how results ended."""
    return Progress(
        TextColumn("grading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[ended]}"),
        console=console,
    )


def table(newest: Iterable[tuple[str, Result | Unfinished]]) -> Table:
    """The newest results, the last one at the bottom."""
    shown = Table("student", "score", "seconds", "questions that are not right", box=None, pad_edge=False, expand=True)
    for student, result in newest:
        if isinstance(result, Unfinished):
            shown.add_row(Text(student), "none", "", Text(printable(result.why), "red"))
            continue
        amiss = Text(", ").join(
            Text(f"{question.id} {question.status.replace('_', ' ')}", COLOURS.get(question.status, "red"))
            for question in result.shown
            if question.status != "passed"
        )
        score = f"{number(result.score)} of {number(result.max_score)}"
        shown.add_row(Text(student), score, f"{result.seconds:.1f}", amiss or Text("none", "green"))
    return shown


def who(students: list[str]) -> str:
    """Those who handed in the same, as text that is safe to print."""
    more = len(students) - NAMES
    return printable(", ".join(students[:NAMES]) + (f" and {more} more" if more > 0 else ""))


def gravest(result: Result | Unfinished) -> str:
    """The gravest status of the questions that are shown; UNFINISHED without a result."""
    if isinstance(result, Unfinished):
        return UNFINISHED
    return max((question.status for question in result.shown), key=STATUSES.index)
