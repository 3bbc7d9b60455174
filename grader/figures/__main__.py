"""python -m grader.figures: train what the report shows, and write it. A stopped run goes on where it was."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from grader.assignment import REPOSITORY, SOLUTION

from .page import make_page
from .plan import SCHEDULES, carry_out, plan


class ScheduleName(str, Enum):
    """How long to train: to try the page, on a few processor cores, on a GPU."""

    SMOKE = "smoke"
    REDUCED = "reduced"
    FULL = "full"


def main(
    schedule: Annotated[ScheduleName, typer.Option(help="How long to train.")] = ScheduleName.REDUCED,
    mnist: Annotated[str, typer.Option(help="--dataset for MNIST.")] = "mnist",
    cifar10: Annotated[str, typer.Option(help="--dataset for CIFAR-10, like folder:PATH.")] = "cifar10",
    runs: Annotated[Path, typer.Option(help="Where run directories go.")] = REPOSITORY / "runs" / "figures",
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = SOLUTION / "report",
    remark: Annotated[str, typer.Option(help="A sentence on how the runs were made, for the page.")] = "",
) -> None:
    """Train every model of the report, and write the page."""
    chosen, sources, folder = SCHEDULES[schedule.value], {"mnist": mnist, "cifar10": cifar10}, runs.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for planned in plan(chosen, sources, folder):
        print(planned.name, flush=True)
        carry_out(planned, folder)
    shown = plan(chosen, {"mnist": "mnist", "cifar10": "cifar10"}, Path("runs"))
    print(make_page(shown, folder, out, sources, chosen, remark))


if __name__ == "__main__":
    typer.run(main)
