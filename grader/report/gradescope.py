"""The autograder for Gradescope: the archive that is uploaded, and what runs in it for every submission.

Gradescope unpacks the archive into /autograder/source, makes an image with setup.sh, and for every submission runs
run_autograder in a container of its own, as root. The archive is the instructor's: it holds the solution.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from grader.assignment import REPOSITORY, student_files
from grader.checks.runner import Outcome
from grader.engine.launcher import default_launcher
from grader.engine.text import printable
from grader.grading import in_order, session
from grader.release import EARLIEST
from grader.rubric import Question, load, select
from grader.streams import prepare_streams
from grader.submission import Submission, SubmissionError, read

from .feedback import hold_back_hints
from .result import CheckResult, Result, write_whole

SCRIPTS = Path(__file__).with_name("autograder")
CARRIED = ("LICENSE", "pyproject.toml", "data/*.py", "data/*.png", "grader/**/*", "solution/*.py", "solution/*.md")
LEFT_OUT = ("bank", "bench", "figures", "selfcheck", "tests", "report/autograder")
LIMIT_SECONDS = 540  # of the ten minutes that a container lives by default

VISIBILITY = {"student": "visible", "after_due": "after_due_date", "ta": "hidden"}
SHOWN_CHARACTERS = 8 << 10  # of what a test says
LEADERBOARD = {  # by check and kind of tolerance, what it measures on trained models
    ("2.4a/vae_learns", "reconstruction"): "New images, reconstructed (times what passes)",
    ("2.4c/diffusion_learns", "noise"): "Noise, predicted (times what passes)",
    ("2.4c/diffusion_learns", "recognised"): "Samples, recognised (times what passes)",
}
FAILED = (
    "The autograder failed, which is not your fault: the 0 stands for no grade, and your instructor can run the "
    "autograder again."
)
NOT_RANKED = "The leaderboard shows what your trained models reach, once every part of them is right."


# ---------------------------------------------------------------- the archive


def make_autograder(archive: Path, torch_index: str = "", options: Sequence[str] = ()) -> list[str]:
    """Write the archive to upload. Returns the names of its files.

    Args:
        archive: the file; the same bytes for the same grader.
        torch_index: address of an index with CPU wheels of torch; the ordinary index where empty.
        options: of `main`, for every submission.

    Raises:
        OSError: if it cannot be written.
    """
    files = {str(path.relative_to(REPOSITORY)): path.read_bytes() for path in carried()}
    files |= {name: (SCRIPTS / name).read_bytes() for name in ("setup.sh", "run_autograder")}
    files["settings.sh"] = settings(torch_index, options).encode()
    files["failed.json"] = as_json(without_grade(FAILED)).encode()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if content.startswith(b"#!") else 0o644) << 16
            made.writestr(entry, content)
    return sorted(files)


def carried() -> list[Path]:
    """The files of this repository that grading needs."""
    left_out = {REPOSITORY / "grader" / name for name in LEFT_OUT}
    found = sorted({path for pattern in CARRIED for path in REPOSITORY.glob(pattern) if path.is_file()})
    return [path for path in found if "__pycache__" not in path.parts and not left_out & {*path.parents}]


def settings(torch_index: str, options: Sequence[str]) -> str:
    """The text of settings.sh, which both scripts read."""
    return (
        "# What setup.sh and run_autograder go by; change it here, and upload the archive again.\n"
        f"TORCH_INDEX={shlex.quote(torch_index)}\n"
        f"OPTIONS=({shlex.join(options)})\n"
        f"LIMIT_SECONDS={LIMIT_SECONDS}\n"
    )


# ---------------------------------------------------------------- results.json as Gradescope wants it


def to_gradescope(
    result: Result,
    questions: list[Question],
    attempt: int | None = None,
    leaderboard: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The fields of Gradescope's results.json.

    What student code printed is not among them: it could have printed the inputs of hidden checks.

    Args:
        result: of a submission.
        questions: those that were graded.
        attempt: of the student, counted from 1; hints are held back by it.
        leaderboard: entries, or None where there is to be no leaderboard.
    """
    shown = hold_back_hints(result, questions, attempt)
    tests = [as_test(question.id, check) for question in shown.shown for check in question.checks]
    fields = {
        "score": result.score,
        "execution_time": result.seconds,
        "output": "\n".join(printable(line) for line in remarks(result, attempt, leaderboard)),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {"seed": result.seed, "attempt": attempt},
        "tests": tests,
    }
    return fields | ({"leaderboard": leaderboard} if leaderboard else {})


def as_test(question: str, check: CheckResult) -> dict[str, Any]:
    """A check as a test. Of a failure of the grader's own, only the first line is for students."""
    message = check.message.partition("\n")[0] if check.status == "grader_error" else check.message
    said = "\n\n".join(filter(None, (message, check.where, check.hint, check.later)))
    return {
        "name": printable(f"{question}: {check.title}"),
        "score": check.score,
        "max_score": check.max_score,
        "status": "passed" if check.status == "passed" else "failed",
        "output": printable(said, SHOWN_CHARACTERS),
        "visibility": VISIBILITY[check.visibility],
        "extra_data": {"id": check.id, "status": check.status},
    }


def remarks(result: Result, attempt: int | None, leaderboard: list[dict[str, Any]] | None) -> list[str]:
    """What is said about a submission as a whole, a line each."""
    said = list(result.notes)
    ours = ", ".join(dict.fromkeys(check.id.partition("/")[0] for check in grader_errors(result)))
    if ours:
        said.append(f"The grader failed in {ours}, which is not your fault: tell your instructor.")
    if leaderboard == []:
        said.append(NOT_RANKED)
    if result.isolation:
        said.append(f"isolation: {result.isolation['summary']}")
    said.append(f"Attempt {attempt}, inputs drawn with the seed {result.seed}.")
    return said


def grader_errors(result: Result) -> list[CheckResult]:
    """The checks that failed for reasons of the grader's own."""
    return [check for question in result.questions for check in question.checks if check.status == "grader_error"]


def without_grade(why: str) -> dict[str, Any]:
    """The fields of results.json where nothing was graded."""
    return {"score": 0, "output": printable(why), "output_format": "text", "stdout_visibility": "hidden", "tests": []}


def as_json(fields: Mapping[str, Any]) -> str:
    """The text of results.json."""
    return json.dumps(fields, indent=2, allow_nan=False) + "\n"


def measured(outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Entries of the leaderboard: by what factor trained models are better than the bound that they passed."""
    entries = []
    for (check, kind), name in LEADERBOARD.items():
        outcome = outcomes.get(check)
        used = outcome.margins.get(kind) if outcome and outcome.status == "passed" else None
        if used:
            entries.append({"name": name, "value": round(1 / used, 2), "order": "desc"})
    return entries


# ---------------------------------------------------------------- in the container


def read_submission(folder: Path) -> Submission:
    """The submission in a folder, wherever it is below it. Raises SubmissionError if there is none."""
    try:
        return read(folder)
    except SubmissionError as error:
        raise SubmissionError(f"none of {', '.join(student_files())} was handed in.") from error


def count_attempt(metadata: Path) -> int:
    """The attempt that a submission is, counted from 1; 1 where Gradescope does not say."""
    try:
        return len(json.loads(metadata.read_text("utf-8"))["previous_submissions"]) + 1
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def grade_submission(root: Path, questions: list[Question], training: bool, leaderboard: bool) -> dict[str, Any]:
    """Grade the submission under `root` with a new seed.

    Raises:
        SubmissionError: if there is nothing to grade.
        StartError, RubricError: if the grader cannot grade.
    """
    submission = read_submission(root / "submission")
    seed = 1 + secrets.randbelow(2**31 - 1)  # never the public one, whose answers students have
    with (
        closing(default_launcher()) as launcher,
        session(submission, questions, launcher, seed, training=training) as current,
    ):
        for check in in_order(questions):
            current.run(check)
        result = current.result()
    for error in grader_errors(result):
        print(error.id, error.message)  # for instructors, who see what is printed
    attempt = count_attempt(root / "submission_metadata.json")
    return to_gradescope(result, questions, attempt, measured(current.outcomes) if leaderboard else None)


def main(
    only: Annotated[str, typer.Option(help="Questions to grade: ids or their beginnings, like 2.1a,2.3.")] = "",
    training: Annotated[bool, typer.Option(help="Also train the models, for seconds each.")] = True,
    leaderboard: Annotated[bool, typer.Option(help="Rank what trained models reach.")] = False,
) -> None:
    """Grade the submission in AUTOGRADER_ROOT and write its results.json; what goes wrong is in there, too."""
    root = Path(os.environ.get("AUTOGRADER_ROOT", "/autograder"))
    try:
        questions = [question for question in select(load(), only) if training or not question.needs]
        text = as_json(grade_submission(root, questions, training, leaderboard))
    except SubmissionError as error:
        text = as_json(without_grade(f"There is nothing to grade: {error}"))
    except Exception:  # whatever it is, the student must not wait for nothing
        traceback.print_exc()
        text = as_json(without_grade(FAILED))
    write_whole(root / "results" / "results.json", text)


if __name__ == "__main__":
    prepare_streams()
    typer.run(main)
