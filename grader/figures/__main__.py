"""python -m grader.figures: train what the report shows, and write it. A stopped run goes on where it was."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from grader.assignment import REPOSITORY, SOLUTION

from . import part_3
from .measure import Judge
from .page import make_page
from .plan import DATASETS, SCHEDULES, autoencoder, carry_out, plan, plan_part_3


class ScheduleName(str, Enum):
    """How long to train: to try the page, on a few processor cores, on a GPU."""

    SMOKE = "smoke"
    REDUCED = "reduced"
    FULL = "full"


class Part(str, Enum):
    """Which page to make."""

    ALL = "all"
    FIRST = "1-2"
    THIRD = "3"


def main(
    schedule: Annotated[ScheduleName, typer.Option(help="How long to train.")] = ScheduleName.REDUCED,
    mnist: Annotated[str, typer.Option(help="--dataset for MNIST.")] = "mnist",
    cifar10: Annotated[str, typer.Option(help="--dataset for CIFAR-10, like folder:PATH.")] = "cifar10",
    runs: Annotated[Path, typer.Option(help="Where run directories go.")] = REPOSITORY / "runs" / "figures",
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = SOLUTION / "report",
    remark: Annotated[str, typer.Option(help="A sentence on how the runs were made, for the page.")] = "",
    part: Annotated[Part, typer.Option(help="Parts 1 and 2, or Part 3, which are a page each.")] = Part.ALL,
) -> None:
    """Train every model of the report, and write its pages."""
    chosen, sources, folder = SCHEDULES[schedule.value], {"mnist": mnist, "cifar10": cifar10}, runs.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    first, third = plan(chosen, sources, folder), plan_part_3(chosen, sources, folder)
    if part == Part.THIRD:
        first = [planned for planned in first if planned.name in map(autoencoder, DATASETS)]
    for planned in [*first, *(third if part != Part.FIRST else [])]:
        print(planned.name, flush=True)
        carry_out(planned, folder)
    names, place = {"mnist": "mnist", "cifar10": "cifar10"}, Path("runs")
    judges = {name: Judge(source, chosen.samples) for name, source in sources.items()}
    if part != Part.THIRD:
        print(make_page(plan(chosen, names, place), folder, out, judges, remark))
    if part != Part.FIRST:
        print(part_3.make_page(plan_part_3(chosen, names, place), folder, out, judges, remark))


if __name__ == "__main__":
    typer.run(main)
