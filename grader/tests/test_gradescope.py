"""The autograder for Gradescope: unpacked into the paths that Gradescope uses, and run there as Gradescope runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grader.assignment import SOLUTION
from grader.engine.sandbox import FIRST_USER, USERS, closed_to_others, libraries
from grader.report.gradescope import FAILED, NOT_RANKED, count_attempt, make_autograder, read_submission, to_gradescope
from grader.rubric import load
from grader.submission import Submission, SubmissionError

from .conftest import EXACT, QUESTIONS, Graded, filled, write

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the dev extra")

VISIBILITY = {"enum": ["hidden", "after_due_date", "after_published", "visible"]}
FORMAT = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
TEST = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "score": {"type": "number"},
        "max_score": {"type": "number"},
        "status": {"enum": ["passed", "failed"]},
        "name": {"type": "string"},
        "name_format": FORMAT,
        "number": {"type": "string"},
        "output": {"type": "string"},
        "output_format": FORMAT,
        "tags": {"type": "array", "items": {"type": "string"}},
        "visibility": VISIBILITY,
        "extra_data": {"type": "object"},
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "score": {"type": "number"},
        "execution_time": {"type": "number"},
        "output": {"type": "string"},
        "output_format": FORMAT,
        "test_output_format": FORMAT,
        "test_name_format": FORMAT,
        "visibility": VISIBILITY,
        "stdout_visibility": VISIBILITY,
        "extra_data": {"type": "object"},
        "tests": {"type": "array", "items": TEST},
        "leaderboard": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "value"],
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": ["number", "string"]},
                    "order": {"enum": ["asc", "desc"]},
                },
            },
        },
    },
    # A score for everything, or one for every test.
    "anyOf": [
        {"required": ["score"]},
        {"required": ["tests"], "properties": {"tests": {"minItems": 1, "items": {"required": ["score"]}}}},
    ],
}
Run = Callable[..., dict[str, Any]]


def valid(fields: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(fields, SCHEMA)
    return fields


# ---------------------------------------------------------------- in the paths of Gradescope


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    """An interpreter that other users may read, as in a container, if this machine has one; else the running one."""
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    if system is None or closed_to_others(libraries()) is None:
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run([system, "-m", "venv", "--without-pip", folder], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "ours.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", "utf-8")
        found = str(folder / "bin" / "python")
        works = subprocess.run([found, "-c", "import torch, pytest, typer"], capture_output=True, check=False)
        yield found if works.returncode == 0 else sys.executable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What Gradescope makes of an archive without training: source/ with everything, and run_autograder beside it."""
    return unpack(tmp_path, "--no-training")


def unpack(folder: Path, *options: str) -> Path:
    make_autograder(folder / "autograder.zip", options=options)
    for name in ("source", "submission", "results"):
        (folder / name).mkdir()
    with zipfile.ZipFile(folder / "autograder.zip") as archive:
        archive.extractall(folder / "source")
    for name in ("setup.sh", "run_autograder"):
        shutil.copy(folder / "source" / name, folder / name)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def run(python: str) -> Iterator[Run]:
    """Runs a script of the autograder in a clean environment; gives the results, which must be valid."""

    def command(root: Path, script: str = "run_autograder", **environment: str) -> dict[str, Any]:
        kept = {"PATH": os.environ["PATH"], "AUTOGRADER_ROOT": str(root), "AUTOGRADER_PYTHON": python}
        done = subprocess.run(
            [root / script], cwd=root, env=kept | environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        results = root / "results" / "results.json"
        fields = valid(json.loads(results.read_text("utf-8"))) if results.exists() else {}
        return fields | {"printed": done.stdout + done.stderr}

    return command


def test_the_solution_earns_every_point_each_time_with_new_inputs(
    root: Path, run: Run, solution: Submission, python: str
) -> None:
    write(root / "submission" / "homework", solution)
    (root / "submission_metadata.json").write_text('{"previous_submissions": [{}, {}]}', "utf-8")
    assert "isolation: " in run(root, "setup.sh")["printed"]
    first, second = run(root), run(root)
    points = sum(question.points for question in EXACT)
    for fields in (first, second):
        assert (fields["score"], fields["stdout_visibility"]) == (points, "hidden")
        assert {test["status"] for test in fields["tests"]} == {"passed"}
        assert sum(test["max_score"] for test in fields["tests"]) == points
        assert fields["extra_data"]["attempt"] == 3
        assert "isolation: strong" in fields["output"]
        assert "leaderboard" not in fields
    assert first["extra_data"]["seed"] != second["extra_data"]["seed"]
    assert 0 not in (first["extra_data"]["seed"], second["extra_data"]["seed"])


def test_a_wrong_submission_is_told_why_and_runs_as_another_user(
    root: Path, run: Run, handout: Submission, python: str
) -> None:
    wrong = filled(handout, "2.2b", "loss = fake.mean()")
    wrong = filled(wrong, "2.1a", "import os\nraise ValueError(f'I am <b>{os.getuid()}</b>\\x1b[31m')")
    write(root / "submission", wrong)
    fields = run(root)
    told = {test["extra_data"]["id"]: test for test in fields["tests"]}
    assert fields["score"] == 0
    assert told["2.2b/generator_single_logits"]["status"] == "failed"
    assert told["2.2b/generator_single_logits"]["output"] != ""
    raised = told["2.1a/kl_one_variable"]["output"]
    found = re.search(r"I am <b>(\d+)</b>\\u001b\[31m", raised)
    assert found, raised
    assert fields["test_output_format"] == fields["output_format"] == fields["test_name_format"] == "text"
    if os.geteuid() != 0 or closed_to_others([str(Path(python).resolve())]):
        pytest.skip("only root can give workers a user of their own, with a Python outside of its home")
    assert FIRST_USER <= int(found[1]) < FIRST_USER + USERS
    assert "strong (limits, user, " in fields["output"]


def test_an_empty_submission_is_told_what_is_missing(root: Path, run: Run) -> None:
    fields = run(root)
    assert (fields["score"], fields["tests"]) == (0, [])
    assert fields["output"] == (
        "There is nothing to grade: none of average.py, diffusion.py, enhanced.py, flow.py, gan.py, guidance.py, loss.py, model.py, visualize.py was handed in."
    )


def test_a_grader_that_fails_says_that_it_is_nobodys_fault(root: Path, run: Run, solution: Submission) -> None:
    write(root / "submission", solution)
    rubric = root / "source" / "grader" / "rubric.toml"
    rubric.write_text("nonsense = 1\n", "utf-8")
    fields = run(root)
    assert (fields["score"], fields["output"], fields["tests"]) == (0, FAILED, [])
    assert "RubricError" in fields["printed"]  # for the instructor
    (root / "results" / "results.json").write_text('{"score": 100}', "utf-8")  # of a run before
    fields = run(root, AUTOGRADER_PYTHON="/bin/false")
    assert (fields["score"], fields["output"], fields["tests"]) == (0, FAILED, [])


def test_results_that_cannot_be_written_are_the_only_failure(root: Path) -> None:
    shutil.rmtree(root / "results")
    (root / "results").write_text("in the way", "utf-8")
    environment = {"PATH": os.environ["PATH"], "AUTOGRADER_ROOT": str(root), "AUTOGRADER_PYTHON": "/bin/false"}
    done = subprocess.run([root / "run_autograder"], env=environment, capture_output=True, check=False)
    assert done.returncode == 1


def test_trained_models_are_ranked(tmp_path: Path, run: Run, solution: Submission) -> None:
    root = unpack(tmp_path, "--only", "2.4c", "--leaderboard")
    write(root / "submission", solution)
    fields = run(root)
    assert fields["score"] == fields["tests"][-1]["score"] + sum(QUESTIONS[q].points for q in QUESTIONS["2.4c"].needs)
    assert [entry["name"] for entry in fields["leaderboard"]] == [
        "Noise, predicted (times what passes)",
        "Samples, recognised (times what passes)",
    ]
    assert all(entry["value"] > 1 and entry["order"] == "desc" for entry in fields["leaderboard"])


# ---------------------------------------------------------------- the archive


def test_the_archive_is_what_gradescope_wants(tmp_path: Path) -> None:
    names = make_autograder(tmp_path / "a.zip", "https://example.org/it's", ["--only", "2.1a, 2.2"])
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == names
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        settings = archive.read("settings.sh").decode()
    assert {name.split("/")[0] for name in names} == {
        "LICENSE", "data", "failed.json", "grader", "pyproject.toml", "run_autograder", "settings.sh", "setup.sh", "solution",
    }  # fmt: skip
    assert {f"solution/{path.name}" for path in SOLUTION.glob("*.py")} <= set(names)
    assert {
        "grader/rubric.toml",
        "grader/constraints.txt",
        "grader/checks/hidden/test_part_2.py",
        "data/digits.png",
    } <= set(names)
    assert [
        name for name in names if "test_gradescope" in name or "grader/bank/" in name or "__pycache__" in name
    ] == []
    assert (modes["setup.sh"], modes["run_autograder"], modes["settings.sh"]) == (0o755, 0o755, 0o644)
    (tmp_path / "settings.sh").write_text(settings, "utf-8")
    script = 'source ./settings.sh; printf "%s|" "$TORCH_INDEX" "${OPTIONS[@]}" "$LIMIT_SECONDS"'
    said = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "https://example.org/it's|--only|2.1a, 2.2|540|"
    make_autograder(tmp_path / "b.zip", "https://example.org/it's", ["--only", "2.1a, 2.2"])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_command_makes_the_archive(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grader", "gradescope", "--out", str(tmp_path / "a.zip")]
    done = subprocess.run([*command, "--no-training", "--only", "2.1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "upload it as the autograder" in " ".join(done.stdout.split())
    assert b"OPTIONS=(--only 2.1 --no-training)" in zipfile.ZipFile(tmp_path / "a.zip").read("settings.sh")
    done = subprocess.run([*command, "--only", "9"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("error: there is no question 9")) == (2, True)


# ---------------------------------------------------------------- results.json


def test_every_check_is_a_test_and_each_audience_sees_its_own(graded: Graded, solution: Submission) -> None:
    result = graded(filled(solution, "2.2b", "print('secret')\nloss = fake"))
    fields = valid(to_gradescope(result, EXACT))
    checks = [check for question in result.questions for check in question.checks]
    assert [test["extra_data"]["id"] for test in fields["tests"]] == [check.id for check in checks]
    assert fields["tests"][0]["name"] == f"1.1: {checks[0].title}"
    shown = {"student": "visible", "after_due": "after_due_date", "ta": "hidden"}
    assert [test["visibility"] for test in fields["tests"]] == [shown[check.visibility] for check in checks]
    assert fields["score"] == sum(test["score"] for test in fields["tests"]) == result.score
    assert "secret" in result.output
    assert "secret" not in json.dumps(fields)


def test_hints_wait_for_the_attempt(graded: Graded, handout: Submission) -> None:
    code = "kl_divergence = 0.5 * (mu**2 + torch.exp(2 * logvar) - 1 - 2 * logvar).flatten(1).sum(1)"
    result = graded(filled(handout, "2.1a", code), "2.1a")
    questions = [replace(QUESTIONS["2.1a"], hints_after=2)]
    early, late = (to_gradescope(result, questions, attempt)["tests"][0]["output"] for attempt in (2, 3))
    assert early.endswith("\n\nThe next attempt says what the mistake is.")
    assert late.endswith(f"\n\n{result.questions[0].checks[0].hint}")


def test_a_failure_of_the_grader_keeps_its_traceback_from_students(graded: Graded, solution: Submission) -> None:
    result = graded(solution, "2.2b")
    question = result.questions[0]
    broken = replace(question.checks[0], status="grader_error", score=0, message="The grader failed.\nFile oracle.py")
    result = replace(result, questions=[replace(question, checks=[broken, *question.checks[1:]])])
    fields = valid(to_gradescope(result, [QUESTIONS["2.2b"]], leaderboard=[]))
    assert fields["tests"][0]["output"] == "The grader failed."
    assert fields["output"].splitlines()[:2] == [
        "The grader failed in 2.2b, which is not your fault: tell your instructor.",
        NOT_RANKED,
    ]


def test_what_a_student_wrote_cannot_break_the_results(graded: Graded, solution: Submission) -> None:
    result = replace(graded(solution, "2.2b"), notes=["\ud800\x1b[2J\u202e.py was left out."])
    text = json.dumps(valid(to_gradescope(result, load())))
    assert r"\\ud800\\u001b[2J\\u202e.py was left out." in text


# ---------------------------------------------------------------- what Gradescope hands over


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        ('{"previous_submissions": []}', 1),
        ('{"previous_submissions": [{"score": 3}]}', 2),
        ("{", 1),
        ("[]", 1),
        ("{}", 1),
    ],
)
def test_attempts_are_counted(tmp_path: Path, text: str, attempt: int) -> None:
    (tmp_path / "m.json").write_text(text, "utf-8")
    assert count_attempt(tmp_path / "m.json") == attempt
    assert count_attempt(tmp_path / "nowhere.json") == 1


def test_a_submission_is_found_below_its_folder(tmp_path: Path, solution: Submission, handout: Submission) -> None:
    with pytest.raises(SubmissionError, match=r"^none of .*loss\.py.* was handed in\.$"):
        read_submission(tmp_path)
    write(tmp_path / "homework" / "handout", solution)
    write(tmp_path / "homework" / "grader" / "pristine", handout)
    (tmp_path / "homework" / "link").symlink_to(SOLUTION)
    assert read_submission(tmp_path).sources == solution.sources
