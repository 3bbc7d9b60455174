"""The commands a student types, in processes of their own, and what they print and write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from grader.assignment import REPOSITORY
from grader.report.result import Result
from grader.rubric import PUBLIC_SEED, RubricError, load, select
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, filled, write

SCHEMA = json.loads((REPOSITORY / "grader" / "report" / "results.schema.json").read_text("utf-8"))
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `python -m grader`, with results.json in a folder of the test."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "grader", *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"COLUMNS": "100"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return command


def without_times(data: dict) -> dict:
    """A result less what depends on the clock and the machine."""
    data = {key: value for key, value in data.items() if key not in ("seconds", "submission")}
    for question in data["questions"]:
        for check in question["checks"]:
            check.pop("seconds")
    return data


def test_the_solution_scores_everything(run: Run, tmp_path: Path) -> None:
    done = run("grade", "solution", "--results", str(tmp_path / "r.json"), "--fail-under", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Score: 100 of 100 points, and 20 of 20 points of the bonus" in done.stdout
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (data["score"], data["max_score"], data["bonus"], data["device"], data["notes"]) == (120, 100, 20, "cpu", [])
    assert {question["status"] for question in data["questions"]} == {"passed"}
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


def test_the_handout_scores_nothing_and_that_is_no_error(run: Run, tmp_path: Path) -> None:
    done = run("grade", "--results", str(tmp_path / "r.json"))
    assert done.returncode == 0
    assert "Score: 0 of 100 points" in done.stdout
    assert done.stdout.count("not attempted") == sum(not question.optional for question in QUESTIONS.values())
    assert "Not attempted, for a bonus of 20 points: 3.1a, 3.1b, 3.2, 3.3a" in done.stdout
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert {question["status"] for question in data["questions"]} == {"not_attempted"}


def test_a_mistake_is_named_and_the_same_from_the_command_and_from_python(
    run: Run, tmp_path: Path, handout: Submission, graded: Graded
) -> None:
    code = "kl_divergence = 0.5 * (mu**2 + torch.exp(2 * logvar) - 1 - 2 * logvar).flatten(1).sum(1)"
    submission = filled(filled(handout, "2.1a", code), "2.3b", "print('here I am')\nimg = undefined")
    folder = write(tmp_path / "anna", submission)
    done = run("grade", str(folder), "--results", str(tmp_path / "r.json"), "--fail-under", "1", "--seed", "5")
    assert done.returncode == 1
    for text in (
        "logarithm of the standard",
        "NameError: name 'undefined' is not defined",
        "img = undefined",
        "here I am",
    ):
        assert text in done.stdout
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    direct: Result = graded(submission, *QUESTIONS, seed=5)
    assert without_times(data) == without_times(json.loads(direct.to_json()))
    assert {path.name for path in tmp_path.iterdir()} == {"anna", "r.json"}  # only students' attempts are counted


def test_results_follow_their_schema(solution: Submission, handout: Submission, graded: Graded) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the dev extra")
    broken = filled(filled(handout, "2.1a", "kl_divergence = 1 / 0"), "2.2b", "print('x')\nloss = fake")
    for submission in (solution, handout, broken):
        jsonschema.validate(json.loads(graded(submission).to_json()), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(graded(solution, "2.2b").to_json()) | {"points": 3}, SCHEMA)


def test_only_grades_what_was_asked_for(run: Run, tmp_path: Path) -> None:
    done = run("grade", "solution", "--only", "2.1a,2.2", "--results", str(tmp_path / "r.json"))
    assert "Score: 23 of 23 points" in done.stdout
    data = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert [question["id"] for question in data["questions"]] == ["2.1a", "2.2a", "2.2b"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "error: nowhere does not exist; give the folder"),
        (["README.md"], "error: README.md is a file; give the folder it is in."),
        (
            ["data"],
            "error: data holds none of average.py, diffusion.py, enhanced.py, flow.py, gan.py, guidance.py, loss.py, model.py, visualize.py; give the folder they are in.",
        ),
        (["solution", "--only", "9.9"], "error: there is no question 9.9; there are 1.1, 1.2"),
        (["solution", "--results", "nowhere/r.json"], "error: nowhere is no folder; give RESULTS a path"),
        (["no\x1b[31mwhere"], "error: no\\u001b[31mwhere does not exist"),
    ],
)
def test_what_cannot_be_graded_is_one_line_and_status_2(run: Run, arguments: list[str], says: str) -> None:
    done = run("grade", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1


def run_checks(*arguments: str, submission: Path | None = None) -> subprocess.CompletedProcess[str]:
    """pytest on the checks, as somebody types it."""
    command = [sys.executable, "-m", "pytest", "grader/checks", "-p", "no:cacheprovider", "-vv", "-rA", *arguments]
    environment = os.environ | ({"SUBMISSION": str(submission)} if submission else {})
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=250)


def test_pytest_runs_checks_like_any_tests_with_the_verdicts_of_make_grade(
    tmp_path: Path, handout: Submission, graded: Graded
) -> None:
    assert "6 passed" in run_checks("-k", "2.1a and not device").stdout
    wrong = filled(handout, "2.1a", "kl_divergence = (mu**2 + torch.exp(logvar) - 1 - logvar).flatten(1).sum(1)")
    done = run_checks("-k", "2.1a or 2.1b", submission=write(tmp_path / "anna", wrong))
    result = graded(wrong, "2.1a", "2.1b", seed=PUBLIC_SEED)
    words = {"passed": "PASSED", "not_attempted": "SKIPPED"}
    for question in result.questions:
        for check in question.checks:
            verdict = words.get(check.status, "FAILED")
            assert re.search(rf"test_{check.id.partition('/')[2]} {verdict}", done.stdout), check.id
    assert "The factor 1/2" in done.stdout


def test_make_grade_with_the_running_interpreter(tmp_path: Path) -> None:
    command = ["make", "grade", "VENV=", f"PYTHON={sys.executable}", "SUBMISSION=solution", "ONLY=2.2b"]
    done = subprocess.run(
        [*command, f"RESULTS={tmp_path / 'r.json'}"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Score: 5 of 5 points" in done.stdout
    assert (tmp_path / "r.json").exists()


def test_grading_needs_no_torchvision(run: Run, tmp_path: Path) -> None:
    """A CPU-only torch comes with a torchvision that does not import; a stand-in that raises must not matter."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise ImportError('broken')\n", "utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run("grade", "solution", "--only", "1.6a,1.5", "--results", str(tmp_path / "r.json"), PYTHONPATH=path)
    assert "Score: 17 of 17 points" in done.stdout, done.stderr


def test_select_takes_beginnings() -> None:
    assert [question.id for question in select(load(), "2.3")] == ["2.3a", "2.3b"]
    assert select(load(), "") == load()
    with pytest.raises(RubricError, match=r"there is no question 2\.1x"):
        select(load(), "2.1x")


def test_a_broken_rubric_says_where(tmp_path: Path) -> None:
    path = tmp_path / "rubric.toml"
    for text in ("= 3", "x = 1", "[[question]]\nid = '1'", "[[question]]\nnonsense = 1"):
        path.write_text(text, "utf-8")
        with pytest.raises(RubricError, match=r"rubric\.toml is no rubric"):
            load(path)


def test_doctor_says_what_there_is_and_what_is_missing(run: Run) -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    for text in ("Python", "torch", "device", "layer: seccomp", "a worker tried to", "isolation: "):
        assert text in done.stdout


def test_doctor_has_a_remedy_for_every_layer() -> None:
    from grader.doctor import REMEDIES, Report, print_report
    from grader.engine.isolation import Isolation
    from grader.engine.sandbox import LAYERS

    assert set(REMEDIES) == set(LAYERS)
    console = Console(record=True, width=200)
    print_report(Report([], Isolation({"seccomp": "missing: [bold]no"}, {"fork": False})), console)
    text = console.export_text()
    assert "missing: [bold]no" in text
    assert REMEDIES["seccomp"] in text
    assert "fork: NOT STOPPED" in text
    assert "weak: a submission could fork" in text


def test_doctor_says_what_an_older_kernel_lacks_and_what_follows() -> None:
    from grader.doctor import describe_landlock

    assert describe_landlock(7) == "version 7"
    assert describe_landlock(4) == (
        "version 4; seccomp alone stops requests to devices (Linux 6.10), signals and abstract sockets (Linux 6.12)"
    )
    assert "truncation (Linux 6.2), TCP (Linux 6.7)" in describe_landlock(1)
    assert "sealed" in describe_landlock(0)


def test_a_device_that_is_not_there_is_one_line_and_status_2(run: Run, tmp_path: Path) -> None:
    """With no GPU visible to it, torch refuses CUDA on every machine."""
    results = ["--results", str(tmp_path / "r.json")]
    done = run("grade", "solution", "--device", "cuda", *results, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.startswith("error: a worker did not start: it cannot use the device cuda")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.json").exists()


def test_a_failure_of_the_grader_is_status_2(tmp_path: Path) -> None:
    script = f"""
import sys
from grader.checks import test_2_2_gan
from grader.cli import app

test_2_2_gan.GENERATOR_HINGE = None
sys.argv = ["grader", "grade", "solution", "--only", "2.2b", "--results", {str(tmp_path / "r.json")!r}]
app()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "error: the grader failed in 2.2b/generator_single_logits" in done.stderr
    assert f"{tmp_path / 'r.log'} says where." in done.stderr
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["questions"][0]["status"] == "grader_error"
    assert "Traceback" not in (tmp_path / "r.json").read_text("utf-8")
    assert "AttributeError: 'NoneType' object has no attribute 'at'" in (tmp_path / "r.log").read_text("utf-8")
