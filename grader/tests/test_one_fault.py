"""A mistake costs the question it was made in: files that Python cannot compile or import."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from grader import blocks
from grader.assignment import blocks_of, pristine, student_files
from grader.submission import Submission

from .conftest import EXACT, Graded, with_source

BLOCKS = [(question, block) for question in EXACT for block in blocks_of(question.id, question.file)]
# One after another, a block each; most leave the rest of the file unreadable as well.
FAULTS = [
    "x = (1 + 2",
    "if True\n    x = 1",
    'x = """never closed',
    "    x = 1\n  y = 2",
    "x = [1, 2}",
    "return return",
    "x = 'never closed",
    "def f(:\n    pass",
    "lambda: (yield) = 3",
    "else:\n    x = 1",
]


def with_body(submission: Submission, file: str, block: str, body: str) -> Submission:
    """A submission with a block of a file filled with lines as they are, indented as its rulers."""
    text = submission.text(file) or ""
    found, lines = blocks.parse(text)[block], text.split("\n")
    lines[found.start : found.end] = textwrap.indent(body, found.indent).split("\n")
    return with_source(submission, file, "\n".join(lines))


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[block for _, block in BLOCKS])
def test_a_block_that_python_cannot_read_costs_its_own_question(
    number: int, solution: Submission, graded: Graded
) -> None:
    question, block = BLOCKS[number]
    faulty = with_body(solution, question.file, block, FAULTS[number % len(FAULTS)])
    result = graded(faulty)
    lost = {q.id: q for q in result.questions if q.score < q.max_score}
    assert set(lost) == {question.id}
    failed = [check for check in lost[question.id].checks if check.status != "passed"]
    assert {check.status for check in failed} == {"error"}
    assert all(f'File "{question.file}", line' in check.message for check in failed), failed[0].message
    assert all("Error: " in check.message for check in failed)
    assert [note for note in result.notes if "cannot be imported" in note], result.notes


def test_the_line_of_a_fault_is_that_of_the_students_file(solution: Submission, graded: Graded) -> None:
    text = "import nothing_of_that_name\n" * 3 + (solution.text("loss.py") or "")
    faulty = with_body(with_source(solution, "loss.py", text), "loss.py", "2.2b", "x = 1\nloss = (fake")
    line = (faulty.text("loss.py") or "").split("\n").index("        loss = (fake") + 1
    result = graded(faulty, "2.2a", "2.2b")
    assert [(q.id, q.score) for q in result.questions] == [("2.2a", 9), ("2.2b", 0)]
    assert f'File "loss.py", line {line}, in <module>\n    loss = (fake' in result.questions[1].checks[0].message


def test_the_line_of_an_exception_is_that_of_the_students_file(solution: Submission, graded: Graded) -> None:
    """The rest of the file is the handout's then, which has other line numbers."""
    text = "import nothing_of_that_name\n" * 3 + (solution.text("loss.py") or "")
    faulty = with_body(with_source(solution, "loss.py", text), "loss.py", "2.2b", "x = 1\n\nloss = fakes")
    line = (faulty.text("loss.py") or "").split("\n").index("        loss = fakes") + 1
    (question,) = graded(faulty, "2.2b").questions
    assert f'File "loss.py", line {line}, in forward\n    loss = fakes' in question.checks[0].message


@pytest.mark.parametrize(
    "top", ["import seaborn", "1 / 0", "raise SystemExit", "x = (", "from loss import nothing", "def f(:"]
)
def test_code_outside_the_blocks_costs_no_block(top: str, solution: Submission, graded: Graded) -> None:
    lines = (solution.text("loss.py") or "").split("\n")
    at = lines.index("import torch")
    result = graded(with_source(solution, "loss.py", "\n".join([*lines[:at], top, *lines[at:]])), "1.2", "2.1a", "2.2a")
    assert all(question.status == "passed" for question in result.questions)
    (note,) = [note for note in result.notes if note.startswith("loss.py cannot be imported: ")]
    assert f"(loss.py, line {at + 1})" in note


def test_a_name_that_is_missing_is_told_from_the_import_that_failed(solution: Submission, graded: Graded) -> None:
    text = (solution.text("loss.py") or "").replace("import torch\n", "import torch\nimport seaborn as sns\n", 1)
    faulty = with_body(with_source(solution, "loss.py", text), "loss.py", "2.2b", "loss = sns.hinge(fake)")
    (question,) = graded(faulty, "2.2b").questions
    line = text.split("\n").index("import seaborn as sns") + 1
    assert question.checks[0].message.endswith("NameError: name 'sns' is not defined")
    assert question.checks[0].hint.startswith("loss.py cannot be imported as it is: ModuleNotFoundError: seaborn ")
    assert question.checks[0].hint.endswith(f"(loss.py, line {line}).")


def test_what_a_file_defines_outside_the_blocks_still_works(solution: Submission, graded: Graded) -> None:
    text = (solution.text("loss.py") or "").replace(
        "class GANLossD",
        "import seaborn\nfrom math import e as euler\n\n\ndef hinge(x):\n    return F.relu(1 - x)\n\n\nclass GANLossD",
    )
    submission = with_body(
        with_source(solution, "loss.py", text),
        "loss.py",
        "2.2a",
        "assert euler\nloss = 0.5 * (hinge(real) + hinge(-fake))",
    )
    assert graded(submission, "2.2a").questions[0].status == "passed"


def test_a_file_that_was_not_handed_in_is_the_handouts(solution: Submission, graded: Graded) -> None:
    """The recipes import every file; those of blocks that nobody asks for are not missed."""
    sources = {file: source for file, source in solution.sources.items() if file not in ("gan.py", "diffusion.py")}
    result = graded(replace(solution, sources=sources), "1.1", "1.2", "1.6a")
    assert [question.status for question in result.questions] == ["passed"] * 3


def test_training_passes_beside_a_block_that_python_cannot_read(solution: Submission, graded: Graded) -> None:
    faulty = with_body(solution, "gan.py", "1.4", "x = (")
    result = graded(faulty, "1.1", "1.2", "1.3a", "1.3b", "1.4", "1.6a", "1.6b")
    assert {q.id: q.status for q in result.questions} == {
        **{"1.1": "passed", "1.2": "passed", "1.3a": "passed", "1.3b": "passed"},
        **{"1.4": "error", "1.6a": "passed", "1.6b": "skipped"},
    }


@pytest.mark.parametrize(
    ("top", "status"), [("import time\ntime.sleep(60)", "timeout"), ("import os\nos._exit(3)", "crashed")]
)
def test_a_file_whose_import_does_not_end_costs_its_own_questions(
    top: str, status: str, solution: Submission, graded: Graded
) -> None:
    text = (solution.text("loss.py") or "").replace("import torch\n", f"{top}\nimport torch\n", 1)
    submission = with_source(solution, "loss.py", text)
    result = graded(submission, "1.2", "1.3a", "1.3b", "1.4", "1.5", "2.1a", "2.1b", "1.6b", wall_seconds=60.0)
    assert {q.id: q.status for q in result.questions if q.score < q.max_score} == {"1.2": status, "2.1a": status}
    if status == "timeout":
        assert "Importing loss.py took more than 5 s." in result.questions[0].checks[0].message


def test_every_file_with_blocks_is_that_of_a_question() -> None:
    assert {question.file for question in EXACT} == set(student_files())
    assert set(student_files()) <= set(pristine())
