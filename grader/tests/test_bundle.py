"""What students download: it works in an empty folder, gives nothing away, and says what the full grader says."""

from __future__ import annotations

import ast
import copy
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import SOLUTION, handout_files
from grader.bank import Filling, load_bank
from grader.engine.launcher import ZygoteLauncher
from grader.grading import grade
from grader.oracle.answers import WITHHELD
from grader.release import make_bundle
from grader.rubric import load, seen_by
from grader.submission import Submission

from .conftest import filled, write

LARGE_STATEMENT, LARGE_EXPRESSION = 12, 16  # nodes of a syntax tree; smaller ones are in any code
GRADE_THEM = """
import json, sys
from contextlib import closing
from pathlib import Path
from grader.engine.launcher import OPTIMIZERS, default_launcher
from grader.grading import grade
from grader.rubric import load, seen_by, select
from grader.submission import read
if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    with closing(default_launcher()) as launcher:
        launcher.require(OPTIMIZERS)
        for folder, only in wanted:
            questions = select(seen_by(load(), "student"), only)
            print(grade(read(Path(folder)), questions, launcher, 0, training=False).to_json().replace("\\n", " "))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that is given out."""
    path = tmp_path_factory.mktemp("made") / "homework.zip"
    make_bundle(path)
    return path


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive unpacked into an empty folder."""
    empty = tmp_path_factory.mktemp("empty")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(empty)
    return empty / "homework"


def call(bundle: Path, *command: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MAKE"))}
    return subprocess.run(command, cwd=bundle, env=clean, capture_output=True, text=True, check=False)


def make(bundle: Path, *arguments: str) -> subprocess.CompletedProcess:
    return call(bundle, "make", "VENV=", f"PYTHON={sys.executable}", *arguments)


# ---------------------------------------------------------------- it works


def test_a_student_grades_the_handout_as_it_comes(bundle: Path) -> None:
    done = make(bundle, "grade")
    assert done.returncode == 0, done.stderr
    result = json.loads((bundle / "results.json").read_text("utf-8"))
    public = sum(question.points for question in seen_by(load(), "student") if not question.optional)
    assert (result["score"], result["max_score"]) == (0, public)
    assert {question["status"] for question in result["questions"]} == {"not_attempted"}


def test_a_student_trains_a_model(bundle: Path, solution: Submission, tmp_path: Path) -> None:
    done = make(bundle, "grade", f"SUBMISSION={write(tmp_path / 'mine', solution)}", "ONLY=2.4c", "FAIL_UNDER=32")
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_seeds_and_audiences_have_no_answers(bundle: Path) -> None:
    for argument in ("SEED=1", "AUDIENCE=ta"):
        done = make(bundle, "grade", argument)
        assert done.returncode == 2
        assert "error: this copy of the grader has the answers of SEED=0 for students only." in done.stderr


def test_commands_that_need_the_solution_say_so(bundle: Path) -> None:
    for verb in ("handout", "release"):
        done = call(bundle, sys.executable, "-m", "grader", verb)
        assert (done.returncode, "solution/ is not here" in done.stderr) == (2, True)


def test_help_lists_what_a_student_can_do(bundle: Path) -> None:
    assert [line.split()[1] for line in make(bundle, "help").stdout.splitlines()] == [
        "help",
        "grade",
        "watch",
        "doctor",
        "clean",
    ]


# ---------------------------------------------------------------- it gives nothing away


def test_nothing_withheld_is_in_it(archive: Path) -> None:
    names = {name.removeprefix("homework/") for name in zipfile.ZipFile(archive).namelist()}
    assert {name.split("/")[0] for name in names} == {
        "LICENSE", "Makefile", "README.md", "pyproject.toml", "data", "handout", "grader",
    }  # fmt: skip
    folders = ("solution", "grader/bank", "grader/checks/hidden", "grader/selfcheck", "grader/tests")
    assert [name for name in names if name.startswith(folders)] == []
    assert [module for module in WITHHELD.values() if f"grader/oracle/{module}.py" in names] == []
    assert {name for name in names if name.startswith("handout/")} == {f"handout/{name}" for name in handout_files()}


def shape_of(tree: ast.AST) -> str:
    """A syntax tree written one way, whatever its variables are called."""
    names: dict[str, str] = {}
    copied = copy.deepcopy(tree)
    for node in ast.walk(copied):
        if isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}")
    return ast.dump(copied)


def large_parts(source: str) -> Iterator[ast.AST]:
    """The statements and expressions of some code that are large enough to be told from any other's."""
    for node in ast.walk(ast.parse(source)):
        size = sum(1 for _ in ast.walk(node))
        if (isinstance(node, ast.stmt) and size >= LARGE_STATEMENT) or (
            isinstance(node, ast.expr) and size >= LARGE_EXPRESSION
        ):
            yield node


def test_no_block_of_the_solution_is_in_it(bundle: Path) -> None:
    given = "\n".join(text for name, text in handout_files().items() if name.endswith(".py"))
    ours = {shape_of(part) for part in large_parts(given)}  # given code may resemble a block, and is given
    wanted = {
        shape_of(part): f"{question}: {ast.unparse(part)}"
        for path in sorted(SOLUTION.glob("*.py"))
        for question, block in blocks.parse(path.read_text("utf-8")).items()
        for part in large_parts("def f(self):\n" + textwrap.indent(textwrap.dedent(block.body), "    "))
    }

    def blocks_in(path: Path) -> list[str]:
        found = {shape_of(part) for part in large_parts(path.read_text("utf-8"))} - ours
        return sorted(wanted[shape] for shape in found & set(wanted))

    assert len({text.partition(":")[0] for path in SOLUTION.glob("*.py") for text in blocks_in(path)}) >= 12
    assert {str(path): blocks_in(path) for path in bundle.rglob("*.py") if blocks_in(path)} == {}


# ---------------------------------------------------------------- it says what the full grader says


def sample() -> list[Filling]:
    """Of every question two right fillings and every sixth wrong one."""
    bank = load_bank()
    chosen = []
    for question in dict.fromkeys(filling.question for filling in bank):
        fillings = [filling for filling in bank if filling.question == question]
        chosen += [filling for filling in fillings if filling.right][:2]
        chosen += [filling for filling in fillings if not filling.right][::6]
    return chosen


def test_the_full_grader_recomputes_the_public_score(
    bundle: Path, handout: Submission, solution: Submission, launcher: ZygoteLauncher, tmp_path: Path
) -> None:
    """Verdicts, messages and hints are the same to the letter; so then is every score."""
    cases = [(solution, "1.,2.1,2.2,2.3,3.")]
    cases += [(filled(handout, filling.question, filling.blocks), filling.question) for filling in sample()]
    folders = [str(write(tmp_path / str(n), submission)) for n, (submission, _) in enumerate(cases)]
    wanted = json.dumps(list(zip(folders, [only for _, only in cases], strict=True)))
    (bundle / "grade_them.py").write_text(GRADE_THEM, "utf-8")
    done = call(bundle, sys.executable, "grade_them.py", wanted)
    assert done.returncode == 0, done.stderr
    public = [json.loads(line) for line in done.stdout.splitlines()]
    for (submission, only), found in zip(cases, public, strict=True):
        questions = [q for q in seen_by(load(), "student") if q.id.startswith(tuple(only.split(",")))]
        full = json.loads(grade(submission, questions, launcher, 0, training=False).to_json())
        assert verdicts(found) == verdicts(full)
    assert len({found["score"] for found in public}) > 10


def verdicts(result: dict) -> list[tuple]:
    checks = [check for question in result["questions"] for check in question["checks"]]
    return [(check["id"], check["status"], check["score"], check["message"], check["hint"]) for check in checks]
