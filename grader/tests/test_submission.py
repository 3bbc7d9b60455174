"""What students hand in: missing, broken and hostile files get a verdict, and the other questions their points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import HANDOUT, given_files, student_files
from grader.submission import Submission, SubmissionError, from_files, read

from .conftest import BONUS_POINTS, REQUIRED_POINTS, Graded, by_id, filled, with_source, write

REST = {
    "1.1": 7,
    "1.4": 6,
    "1.5": 2,
    "2.1b": 9,
    "2.3a": 13,
    "2.3b": 18,
}  # what a submission keeps whose loss.py is of no use


def test_student_and_given_files() -> None:
    assert student_files() == [
        *("average.py", "diffusion.py", "enhanced.py", "flow.py", "gan.py"),
        *("guidance.py", "loss.py", "model.py", "visualize.py"),
    ]
    assert given_files() == [
        "dataset.py",
        "devices.py",
        "enhanced_ldm.py",
        "ldm.py",
        "loop.py",
        "module.py",
        "options.py",
        "recipes.py",
        "runs.py",
        "sample.py",
        "train.py",
    ]


def no_class(source: str) -> str:
    return source + "\n\nKLDivergenceLoss = GANLossD = GANLossG = lambda: None\n"


def rename(source: str) -> str:
    return source.replace("class KLDivergenceLoss", "class KLLoss").replace("class GANLoss", "class GAN")


BROKEN = {
    "no python": (lambda s: "this is no python (", "not_attempted", ""),
    "binary": (lambda s: b"\x00\xff\xfe" * 100, "not_attempted", ""),
    "empty": (lambda s: "", "error", "loss has no "),
    "renamed class": (rename, "error", "loss has no "),
    "no class": (no_class, "error", "is no class: calling it gives no object."),
    "endless on import": (lambda s: s + "\nwhile True: pass\n", "timeout", "Importing loss.py took more than 3 s"),
    "ends the interpreter": (lambda s: s + "\nimport os; os._exit(0)\n", "crashed", "exit status 0"),
    "segfault": (lambda s: s + "\nimport ctypes; ctypes.string_at(0)\n", "crashed", "SIGSEGV"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_costs_its_own_questions_only(solution: Submission, graded: Graded, name: str) -> None:
    change, status, says = BROKEN[name]
    source = solution.text("loss.py")
    assert source is not None
    questions = by_id(graded(with_source(solution, "loss.py", change(source)), call_seconds=3.0))
    for question in ("2.1a", "2.2a", "2.2b") if change in (rename, no_class) else ("1.2", "2.1a", "2.2a", "2.2b"):
        assert questions[question].status == status
        assert questions[question].score == 0
        assert any(says in check.message for check in questions[question].checks)
    assert {question: questions[question].score for question in REST} == REST


def test_a_missing_file_is_an_error_that_names_it(solution: Submission, graded: Graded) -> None:
    without = {name: source for name, source in solution.sources.items() if name != "loss.py"}
    questions = by_id(graded(replace(solution, sources=without)))
    assert questions["2.1a"].status == "error"
    assert questions["2.1a"].checks[0].message == "loss.py is missing."
    assert {question: questions[question].score for question in REST} == REST


VAE_LINE = "return x_recon, mu, logvar"
FILLINGS = {
    "too few results": ("2.1b", "z = mu", VAE_LINE, "return x_recon, mu", "wrong", "returned 2 results; 3 are expected"),
    "a single result": ("2.1b", "z = mu", VAE_LINE, "return x_recon", "wrong", "returned a single result"),
    "wrong shape": ("2.1b", "z = torch.randn(3)", "", "", "wrong", "z has the shape (3,)"),
    "wrong dtype": ("2.2b", "loss = -fake.long().float().mean().long()", "return loss.mean()", "return loss", "wrong", "torch.int64"),
    "nan": ("2.2b", "loss = fake / 0 - fake / 0", "", "", "wrong", "is not finite: it holds nan"),
    "a float": ("2.2b", "loss = -fake.mean().item()", "", "", "error", "AttributeError: 'float' object has no attribute 'mean'"),
    "a float returned": ("2.2b", "return -fake.mean().item()", "", "", "wrong", "a Python float, where a tensor belongs"),
    "nothing": ("2.2b", "return", "", "", "wrong", "The loss is None"),
    "numpy": ("2.2b", "return -fake.detach().numpy().mean()", "", "", "wrong", "a NumPy array, where a tensor belongs"),
    "sparse": ("2.2b", "return -fake.mean().reshape(1).to_sparse()", "", "", "wrong", "a tensor of layout torch.sparse_coo"),
    "huge": ("2.2b", "return fake.mean().expand(1 << 40)", "", "", "wrong", "a tensor of 1,099,511,627,776 elements"),
    "endless": ("2.2b", "while True:\n    pass", "", "", "timeout", "loss.GANLossG had not returned"),
    "much memory": ("2.2b", "loss = torch.zeros(1 << 45)", "", "", "out_of_memory", "more memory than there is"),
    "exit": ("2.2b", "exit()", "", "", "error", "SystemExit"),
    "no block": ("2.2b", "loss = self.missing(fake)", "", "", "error", "has no attribute 'missing'"),
    "another question": ("2.3b", "img = self.q_sample(torch.zeros(shape), y, y)", "", "", "not_attempted", "question 2.3a"),
    "a function": ("2.2b", "return lambda: 1", "", "", "wrong", "an object, where a tensor belongs"),
    "keyword": ("2.3b", "img = denoise_fn(torch.randn(shape), time=y)", "", "", "error", "wrongly"),
    "half precision t": ("2.3b", "img = denoise_fn(torch.randn(shape), y, y.half())", "", "", "wrong", "torch.float16"),
    "out of range": ("2.3b", "img = denoise_fn(torch.randn(shape), y, 0 * y - 1)", "", "", "wrong", "t = -1"),
    "too many calls": ("2.3b", "while True:\n    img = denoise_fn(torch.randn(shape), y, 0 * y)", "", "", "wrong", "more than"),
    "an odd x": ("2.3b", "img = denoise_fn([1, 2], y, 0 * y)", "", "", "wrong", "a tuple or list, where a tensor belongs"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILLINGS)
def test_a_broken_block_has_a_verdict_in_words(handout: Submission, graded: Graded, name: str) -> None:
    question, code, before, after, status, says = FILLINGS[name]
    submission = filled(handout, question, code)
    file = "model.py" if question == "2.1b" else "loss.py"
    if before:
        text = submission.text(file)
        assert text is not None
        head, body = text[: text.index(code)], text[text.index(code) :]
        submission = with_source(submission, file, head + body.replace(before, after, 1))
    [result] = graded(submission, question, call_seconds=1.0).questions
    assert result.status == status
    assert result.score == 0 or name in ("too few results",)
    assert any(says in check.message for check in result.checks), [check.message for check in result.checks]


def test_a_gigabyte_of_printing_has_a_verdict_and_little_output(handout: Submission, graded: Graded) -> None:
    loud = filled(handout, "2.2b", "print('y' * (100 << 20))\nloss = -fake")
    result = graded(loud, "2.2b")
    assert result.questions[0].status == "passed"  # fourteen calls, 1.4 GB
    assert len(result.output) <= (64 << 10) + 4


def test_hostile_text_is_printable_in_the_result(handout: Submission, graded: Graded) -> None:
    code = "print('\\x1b[2J' + '<b>')\nraise ValueError('\\x1b[31m\\u202e [red]' + 'x' * 10_000)"
    result = graded(filled(handout, "2.2b", code), "2.2b")
    message = result.questions[0].checks[0].message
    assert "\\u001b[31m\\u202e" in message
    assert len(message) < 2000
    assert "\x1b" not in result.to_json()
    assert "\\u001b[2J<b>" in result.output


def test_the_handouts_own_files_are_used_in_place_of_changed_given_ones(
    solution: Submission, graded: Graded, tmp_path: Path
) -> None:
    folder = write(tmp_path / "anna", solution)
    (folder / "module.py").write_text("raise SystemExit\n", "utf-8")
    submission = read(folder)
    assert submission.notes == ["module.py was changed; the one of the handout was used instead."]
    assert graded(submission, "2.1b").score == 9


def test_files_of_a_students_own_can_be_imported(handout: Submission, graded: Graded) -> None:
    submission = with_source(handout, "helper.py", "def minus_mean(x):\n    return -x.mean()\n")
    submission = filled(submission, "2.2b", "import helper\nloss = helper.minus_mean(fake)")
    assert graded(submission, "2.2b").score == 5


def test_a_planted_torch_is_not_taken_for_torch(solution: Submission, graded: Graded) -> None:
    planted = with_source(solution, "torch.py", "raise SystemExit\n")
    planted = with_source(planted, "conftest.py", "raise SystemExit\n")
    planted = with_source(planted, "sitecustomize.py", "raise SystemExit\n")
    assert graded(planted).score == REQUIRED_POINTS + BONUS_POINTS


def test_changes_outside_blocks_are_noted_by_name(solution: Submission, tmp_path: Path) -> None:
    text = solution.text("loss.py")
    assert text is not None
    folder = write(tmp_path / "ben", solution)
    (folder / "loss.py").write_text(
        text.replace("class GANLossG(nn.Module):", "class GANLossG(nn.Module, object):"), "utf-8"
    )
    [note] = read(folder).notes
    assert note == "loss.py: outside the blocks, GANLossG was changed; the file was graded as it is."


def test_a_lost_function_is_noted(solution: Submission) -> None:
    text = (solution.text("loss.py") or "").replace("class GANLossG", "class Generator")
    text = "\n".join(line for line in blocks.split_lines(text) if "####" not in line)
    assert from_files("cleo", solution.sources | {"loss.py": text.encode()}).notes == [
        "loss.py: the function of 2.2b cannot be found; the file was graded as it is."
    ]


def test_odd_files_are_left_out_and_said(solution: Submission, tmp_path: Path) -> None:
    folder = write(tmp_path / "dora", solution)
    (folder / "link.py").symlink_to("/etc/passwd")
    (folder / "large.py").write_text("#" * (300 << 10), "utf-8")
    (folder / "folder.py").mkdir()
    submission = read(folder)
    assert sorted(submission.sources) == student_files()
    assert len(submission.notes) == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nowhere", "does not exist; give the folder"),
        (lambda p: p, "holds none of average.py, diffusion.py"),
        (lambda p: _touch(p / "anna.zip"), "is an archive; unpack it and give the folder"),
        (lambda p: _touch(p / "loss.py"), "is a file; give the folder it is in"),
    ],
)
def test_paths_that_are_no_submission_are_one_sentence(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(SubmissionError, match=says) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


def _touch(path: Path) -> Path:
    path.write_bytes(b"PK")
    return path


def test_reading_executes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w')\n"
    for name in (*student_files(), "conftest.py", "__init__.py", "torch.py"):
        (folder / name).write_text(trap, "utf-8")
    read(folder)
    assert not (tmp_path / "sprung").exists()
    assert (HANDOUT / "module.py").exists()
