"""The command line: one command a verb. Errors are one line and exit status 2."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .assignment import HANDOUT, SOLUTION
from .rubric import AUDIENCES, PUBLIC_SEED, RubricError, load, seen_by, select
from .submission import SubmissionError, read

if TYPE_CHECKING:
    from .report.result import Result

LEFT = 3  # the exit status of a batch that wrote what it could
app = typer.Typer(no_args_is_help=True, add_completion=False, help="Grades the deep generative models homework.")


class Device(str, Enum):
    """Where student code computes."""

    CPU = "cpu"
    CUDA = "cuda"


Audience = Enum("Audience", {name.upper(): name for name in AUDIENCES}, type=str)  # type: ignore[misc]
AFTER_DUE = Audience("after_due")
EVERYBODY = Audience(AUDIENCES[-1] if SOLUTION.is_dir() else AUDIENCES[0])  # without solution/, a student's copy


@app.callback()
def main() -> None:
    """Grades the deep generative models homework."""


@app.command()
def grade(
    submission: Annotated[Path, typer.Argument(help="Folder with loss.py, model.py and diffusion.py.")] = HANDOUT,
    only: Annotated[str, typer.Option(help="Questions to grade: ids or their beginnings, like 2.1a,2.3.")] = "",
    results: Annotated[Path, typer.Option(help="Where results.json goes.")] = Path("results.json"),
    html: Annotated[Path | None, typer.Option(help="Where a page to read goes; none is made by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the inputs that the checks draw.")] = PUBLIC_SEED,
    fail_under: Annotated[float, typer.Option(help="Exit with status 1 if the score is below this.")] = 0.0,
    audience: Annotated[Audience, typer.Option(help="Run the checks that these may see.")] = EVERYBODY,
    attempt: Annotated[int | None, typer.Option(min=1, help="Show as much of a mistake as at this attempt.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every check that failed.")] = False,
    device: Annotated[Device, typer.Option(help="Where student code computes.")] = Device.CPU,
    training: Annotated[bool, typer.Option(help="Also train the models, for seconds each.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="A fresh Python for every worker instead of a fork.")] = False,
) -> None:
    """Grade one submission: print a table and write results.json. Exit status 0 whatever the score."""
    from .engine.launcher import FreshLauncher, StartError, default_launcher

    try:
        questions = select(seen_by(load(), audience.value), only)
        handed_in = read(submission)
        if not SOLUTION.is_dir() and (seed != PUBLIC_SEED or audience != EVERYBODY):
            raise RubricError(f"this copy of the grader has the answers of SEED={PUBLIC_SEED} for students only.")
        if not results.absolute().parent.is_dir():
            raise SubmissionError(f"{results.parent} is no folder; give RESULTS a path in a folder that exists.")
        if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
            raise SubmissionError(f"{html} cannot be a page; give HTML the path of a file in a folder that exists.")
    except (SubmissionError, RubricError) as error:
        stop(str(error))
    steps = attempt is None and audience.value == AUDIENCES[0]  # hints open by attempts at home
    with closing(FreshLauncher(device.value) if fresh else default_launcher(device.value)) as launcher:
        # Only now, so that torch is loaded here while the launcher loads its own.
        from .grading import grade as grade_submission
        from .report.attempts import count_attempts
        from .report.console import print_places, print_result, progress_line
        from .report.feedback import hold_back_hints

        try:
            with progress_line(questions) as progress:
                result = grade_submission(handed_in, questions, launcher, seed, progress, training=training)
                tried = count_attempts(results.absolute().parent, handed_in, questions, result) if steps else attempt
                result = hold_back_hints(result, questions, tried)
        except (StartError, RubricError) as error:
            stop(str(error))
        except KeyboardInterrupt:
            stop("stopped before the checks were through; no results were written")
    unwritten = write_down(result, results, html)  # before anything is printed, which can fail, too
    print_result(result, everything=everything)
    if unwritten:
        stop(unwritten)
    print_places(results, html)
    ours = [check.id for question in result.questions for check in question.checks if check.status == "grader_error"]
    if ours:
        stop(f"the grader failed in {', '.join(ours)}; this is not the student's fault. {log_of(results)} says where.")
    if result.score < fail_under:
        raise typer.Exit(1)


@app.command()
def watch(
    submission: Annotated[Path, typer.Argument(help="Folder with the files that you edit.")] = HANDOUT,
    only: Annotated[str, typer.Option(help="Questions to grade: ids or their beginnings, like 2.1a,2.3.")] = "",
    training: Annotated[bool, typer.Option(help="Also train the models, for seconds each.")] = False,
    poll: Annotated[bool, typer.Option("--poll", help="Look at files again and again: for network drives.")] = False,
) -> None:
    """Grade whenever a file is saved, what has changed only. Ctrl-C ends it."""
    from rich.console import Console

    from .engine.launcher import OPTIMIZERS, StartError, default_launcher

    try:
        questions = select(seen_by(load(), EVERYBODY.value), only)
        read(submission)
    except (SubmissionError, RubricError) as error:
        stop(str(error))
    with closing(default_launcher()) as launcher:
        from .watch import Watch, saves, show

        history = Path() if EVERYBODY.value == AUDIENCES[0] else None  # hints open by attempts at home
        watched = Watch(submission, questions, launcher, PUBLIC_SEED, training, history)
        console = Console(highlight=False)
        try:
            launcher.require(OPTIMIZERS)
            for _ in chain([None], saves(submission, poll)):
                if (report := watched.look()) is not None:
                    show(report, console)
        except ModuleNotFoundError as error:
            if error.name != "watchfiles":
                raise
            stop("watch needs watchfiles, which is not installed: pip install watchfiles")
        except StartError as error:
            stop(str(error))
        except KeyboardInterrupt:
            return


@app.command()
def batch(
    submissions: Annotated[Path, typer.Argument(help="What the system gave you: a folder, a zip or a tar.")],
    out: Annotated[Path, typer.Option(help="Folder for grades and feedback; the same again goes on.")] = Path("grades"),
    layout: Annotated[str, typer.Option(help="canvas, moodle, gradescope, github or folders.")] = "",
    template: Annotated[str, typer.Option(help="Paths like {login}_{attempt}_{file}, instead of a layout.")] = "",
    roster: Annotated[Path | None, typer.Option(help="CSV of everybody, to list who handed in nothing.")] = None,
    canvas: Annotated[Path | None, typer.Option(help="Canvas gradebook to fill in.")] = None,
    assignment: Annotated[str, typer.Option(help="Column of the Canvas gradebook.")] = "",
    moodle: Annotated[Path | None, typer.Option(help="Moodle worksheet to fill in.")] = None,
    gradescope: Annotated[Path | None, typer.Option(help="Gradescope grades file to fill in.")] = None,
    only: Annotated[str, typer.Option(help="Questions to grade: ids or their beginnings, like 2.1a,2.3.")] = "",
    regrade: Annotated[list[str], typer.Option(help="A student who is to be graded again.")] = [],  # noqa: B006
    jobs: Annotated[int, typer.Option(min=1, help="Processes; 0.5 GB of memory each.")] = os.cpu_count() or 1,
    seed: Annotated[int | None, typer.Option(help="Seed of the class; one that nobody knows by default.")] = None,
    shard: Annotated[str, typer.Option(help="Grade a part only, like 0/4; `merge` brings parts together.")] = "",
    feedback: Annotated[Audience, typer.Option(help="Who reads the feedback.")] = AFTER_DUE,
    device: Annotated[Device, typer.Option(help="Where student code computes.")] = Device.CPU,
    training: Annotated[bool, typer.Option(help="Also train the models, for seconds each.")] = True,
    allow_weak_isolation: Annotated[bool, typer.Option(help="Run strangers' code where it could do harm.")] = False,
    cluster: Annotated[str, typer.Option(help="Grade on the workers of a Dask scheduler: tls://host:8786.")] = "",
    tls_ca_file: Annotated[Path | None, typer.Option(help="Of the cluster: who signs its certificates.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Of the cluster: our certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Of the cluster: the key of our certificate.")] = None,
) -> None:
    """Grade a class: every submission once, again only what changed. Writes grades.csv and feedback for everybody.

    Exit status 3 if something is left: grades and feedback are written, but a hand-in has no result, or a page could
    not be made. problems.log in OUT says what and why, and the same command tries again.
    """
    from .batch.command import CommandError, Gradebooks, Request, Scheduler, grade_all

    scheduler = Scheduler(cluster, tls_ca_file, tls_cert, tls_key) if cluster else None
    books = Gradebooks(canvas, assignment or None, moodle, gradescope)
    request = Request(
        submissions, out, layout or None, template or None, roster, only, tuple(regrade), jobs, seed, shard,
        feedback.value, device.value, training, allow_weak_isolation, books, scheduler,
    )  # fmt: skip
    try:
        done = grade_all(request)
    except CommandError as error:
        stop(str(error))
    if not done:
        raise typer.Exit(LEFT)


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder for the results of all.")],
    shards: Annotated[list[Path], typer.Argument(help="Folders that `batch --shard` wrote.")],
) -> None:
    """Bring the results of shards together; then run `batch` on the folder for grades and feedback."""
    from .batch.command import CommandError, merge_shards

    try:
        typer.echo(f"{merge_shards(out, shards)} results came together in {out}.")
    except CommandError as error:
        stop(str(error))


@app.command()
def handout(
    force: Annotated[bool, typer.Option("--force", help="Overwrite blocks that are filled in.")] = False,
) -> None:
    """Make handout/ from solution/, with every block emptied."""
    expect_solution()
    from .release import FilledError, make_handout

    try:
        changed = make_handout(force=force)
    except FilledError as error:
        stop(str(error))
    typer.echo(f"Written: {', '.join(changed)}." if changed else "The handout is up to date.")


@app.command()
def release(
    out: Annotated[Path, typer.Option(help="The archive to write; its folder is made beside it.")] = Path(
        "homework.zip"
    ),
) -> None:
    """Make what students download: the handout, the public checks, and no answer to any question."""
    expect_solution()
    from .engine.launcher import StartError
    from .release import ReleaseError, make_bundle

    try:
        names = make_bundle(out)
    except (ReleaseError, StartError, OSError) as error:
        stop(str(error))
    typer.echo(f"{out} holds {len(names)} files; unpacked, they are in {out.with_suffix('')}.")


@app.command()
def gradescope(
    out: Annotated[Path, typer.Option(help="The archive to write.")] = Path("autograder.zip"),
    torch_index: Annotated[str, typer.Option(help="Address of an index with CPU wheels of torch.")] = "",
    only: Annotated[str, typer.Option(help="Questions to grade: ids or their beginnings, like 2.1a,2.3.")] = "",
    training: Annotated[bool, typer.Option(help="Also train the models, for seconds each.")] = True,
    leaderboard: Annotated[bool, typer.Option(help="Rank what trained models reach.")] = False,
) -> None:
    """Make the autograder that instructors upload to Gradescope; it holds the solution."""
    expect_solution()
    from .report.gradescope import make_autograder

    try:
        select(load(), only)
        wanted = {"--no-training": not training, "--leaderboard": leaderboard}
        options = [*(["--only", only] if only else []), *(option for option, on in wanted.items() if on)]
        names = make_autograder(out, torch_index, options)
    except RubricError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{out} could not be written: {error.strerror}.")
    typer.echo(f"{out} holds {len(names)} files; upload it as the autograder of a programming assignment.")


@app.command()
def doctor() -> None:
    """Say what this machine has: Python, torch, a GPU, and which layers stand between a submission and the machine."""
    from .doctor import examine, print_report

    report = examine()
    print_report(report)
    if report.isolation is None:
        raise typer.Exit(1)


def write_down(result: Result, results: Path, html: Path | None) -> str:
    """Write results.json, and the page if one is wanted. Returns why that cannot be done, or ""."""
    place = results
    try:
        result.write(results)
        if result.problems:
            place = log_of(results)
            place.write_text(result.log, "utf-8", "replace")
        if html is not None:
            from .report.html import write

            place = html
            write(result, html)
    except OSError as error:
        return f"{place} could not be written: {error.strerror}."
    return ""


def log_of(results: Path) -> Path:
    """Where tracebacks go that are for those who look after the grader, beside results.json."""
    return results.with_name(f"{results.stem}.log")


def expect_solution() -> None:
    """Stop where there is no solution/ to make anything from."""
    if not SOLUTION.is_dir():
        stop("solution/ is not here: this is the copy that students get.")


def stop(message: str) -> None:
    """Print one line on standard error and exit with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
