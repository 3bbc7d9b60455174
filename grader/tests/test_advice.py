"""What is said of exceptions: a sentence that is true of each, beside Python's own words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from grader.engine.advice import advise
from grader.engine.student import Failure, Student
from grader.engine.worker import describe_error
from grader.submission import Submission

from .conftest import Graded, filled

SETUP = """import math
import numpy as np
import torch
from torch import nn
t, x = torch.arange(3), torch.ones(3, 4, 5, 5)
learned = torch.ones(3, requires_grad=True)
self = nn.Module()
self.schedule = torch.ones(3)
# Leave the bound in `elbo`, of shape (B,). Leave the losses in `one_loss` and
# `other_loss`.
"""


def raised(tmp_path: Path, code: str) -> Failure:
    """What is said of an exception that code raises behind SETUP."""
    path, source = tmp_path / "loss.py", SETUP + code
    path.write_text(source)
    student = Student(tmp_path, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]
    try:
        exec(compile(source, str(path), "exec"), {})
    except BaseException as error:
        return student._student_error(describe_error(error, str(tmp_path)))
    raise AssertionError("nothing was raised")


def recorded(tmp_path: Path, kind: str, message: str, line: str) -> Failure:
    """What is said of an exception that this machine does not raise, at a line."""
    (tmp_path / "loss.py").write_text(line)
    student = Student(tmp_path, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]
    frames = [["loss.py", 1, "forward"]]
    return student._student_error({"kind": "exception", "type": kind, "message": message, "frames": frames})


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("elb = x\nelbo.mean()", "Leave the result in `elbo`"),
        ("self.elbo = x\nelbo.mean()", "A name that begins with self. is another."),
        ("def f():\n    elbo.mean()\n    elbo = x\nf()", "Leave the result in `elbo`"),
        ("def elbo(): pass\nelbo.mean()", "Leave the result in `elbo`"),
        ("other_loss.backward()", "Leave the result in `other_loss`"),
        ("torhc.ones(3)", "`torhc` has no value on this line"),
        ("x ^ 2", "write ** for a power"),
        ("0.5 ^ 2", "write ** for a power"),
        ("max(0, 1 - x)", "use torch.clamp or torch.relu"),
        ("loss = max(0, 1 - x[0, 0, 0, 0])\nloss.mean()", "use torch.clamp or torch.relu"),
        ("if x > 0: pass", "torch.where"),
        ("learned.numpy()", "Stay in torch"),
        ("np.ones(3).mean().backward()", "Stay in torch"),
        ("torch.exp(np.ones(3))", "Stay in torch"),
        ("torch.exp(0.5)", "leave out .item(), float() and math"),
        ("x.sum().item().mean()", "leave out .item(), float() and math"),
        ("[].append(1).mean()", "A function that ends without `return` gives None"),
        ("self.schedule[t] * x", "self.schedule[t] has one number for each image"),
        ("a = self.schedule[t]\nb = 2\na * x", "use extract("),
        ("raise SystemExit", "Remove exit()"),
        ("exit()", "Remove exit()"),
        ("def f(n): return f(n + 1)\nf(0)", "use a loop"),
        ("import nothing_like_it", "can be imported in a graded file"),
        ("learned += 1", "leave out += on tensors"),
        ("x.sum().backward()", "depends on nothing that learns"),
        ("x @ x.double()", "Tensors of two types meet"),
    ],
)
def test_what_to_change_is_said(tmp_path: Path, code: str, says: str) -> None:
    failure = raised(tmp_path, code)
    assert failure.status == "error"
    assert says in failure.hint


@pytest.mark.parametrize(
    ("kind", "message", "line", "says"),
    [
        ("BdbQuit", "", "breakpoint()", "Remove breakpoint()"),
        ("EOFError", "EOF when reading a line", "input()", "Remove input()"),
        ("AssertionError", "Torch not compiled with CUDA enabled", "x.cuda()", "device=x.device"),
        ("RuntimeError", "Found no NVIDIA driver on your system.", "x.cuda()", "device=x.device"),
        ("RuntimeError", "No CUDA GPUs are available", "x.to('cuda')", "device=x.device"),
        (
            "PermissionError",
            "[Errno 13] Permission denied: 'log.txt'",
            'open("log.txt", "w")',
            "Nothing can be written",
        ),
        (
            "RuntimeError",
            "open file failed with strerror: Permission denied",
            "torch.save(x, 'a')",
            "Nothing can be wri",
        ),
        ("OSError", "Matplotlib requires access to a writable cache directory", "plt.show()", "there is no screen"),
        ("FileNotFoundError", "[Errno 2] No usable temporary directory found in ['/tmp']", "import x", "writes files"),
        ("UnboundLocalError", "local variable 'elbo' referenced before assignment", "elbo", "`elbo` has no value"),
    ],
)
def test_what_other_machines_raise_is_told_too(tmp_path: Path, kind: str, message: str, line: str, says: str) -> None:
    failure = recorded(tmp_path, kind, message, line)
    assert says in failure.hint
    assert message in failure.message


@pytest.mark.parametrize(
    "code",
    [
        "x + torch.ones(7)",
        "1 / 0",
        "[][1]",
        "x.nothing",
        "open('/nowhere/data')",
        "raise ValueError('max of a set^2')",
        "x.reshape(7)",
    ],
)
def test_nothing_is_said_where_nothing_is_known(tmp_path: Path, code: str) -> None:
    assert raised(tmp_path, code).hint == ""


def test_what_another_question_has_not_filled_in_is_not_attempted(tmp_path: Path) -> None:
    assert raised(tmp_path, 'raise NotImplementedError("2.1b")').status == "not_attempted"
    assert raised(tmp_path, "x ^ 2").status == "error"  # torch has not implemented it, which is another matter


@pytest.mark.parametrize(
    ("question", "code", "says"),
    [
        ("2.1a", "self.kl_divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)", "`kl_divergence`"),
        ("2.1a", 'open("log.txt", "w")', "Nothing can be written"),
        ("2.1a", "breakpoint()\nkl_divergence = mu", "Remove breakpoint()"),
        ("2.1a", "input()", "Remove input()"),
        ("2.3a", "return self.sqrt_alphas_cumprod[t] * x_start", "use extract("),
        ("2.3a", "x_t = x_start", "End with `return` and the result"),
        ("2.3b", "image = torch.randn(shape)", "Leave the result in `img`"),
    ],
)
def test_a_student_reads_it(handout: Submission, graded: Graded, question: str, code: str, says: str) -> None:
    checks = graded(filled(handout, question, code), question).questions[0].checks
    assert any(says in check.hint for check in checks)


def test_a_file_of_endless_sentences_is_searched_in_no_time() -> None:
    """A pattern that went from every verb to the end of the file would not end before pytest's own time is up."""
    source = "# " + "leave " * 40_000
    assert advise("NameError: name 'z' is not defined", "z", "z", source).startswith("`z` has no value on this line")
