"""Checks of Part 2: what a block leaves and a file imports, other devices, digits, plain replies, noise and means."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from grader import blocks
from grader.assignment import SOLUTION
from grader.checks.digits import explain_digits
from grader.checks.test_2_3_diffusion import DEFAULT, Moves, Recorder, _explain_end, reverse_mean
from grader.engine.launcher import ZygoteLauncher
from grader.grading import checks_of
from grader.oracle.closed_form import Expected
from grader.oracle.diffusion import GaussianData, Schedule
from grader.oracle.kl import KL
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, by_id, filled, run_check

PART_2 = ["2.1a", "2.1b", "2.2a", "2.2b", "2.3a", "2.3b"]

# ---------------------------------------------------------------- names


def names_imported(tree: ast.AST) -> set[str]:
    """The names that the imports directly in a module or a function bind."""
    imports = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    return {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}


def names_assigned(body: str) -> set[str]:
    """The names that a block assigns."""
    nodes = ast.walk(ast.parse(textwrap.dedent(f"def f():\n{textwrap.indent(textwrap.dedent(body), '    ')}")))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("path", sorted(SOLUTION.glob("*.py")), ids=lambda path: path.name)
def test_names_that_blocks_leave_are_not_those_that_the_file_imports(path: Path) -> None:
    """Python would take an imported name for a variable of the function, which has no value before the block."""
    text = path.read_text("utf-8")
    imported = names_imported(ast.parse(text))
    for question, block in blocks.parse(text).items():
        told = re.findall(r"eave [^.`]*`(\w+)`", text.partition(f"TODO({question})")[2].partition("####")[0])
        assert not (names_assigned(block.body) | set(told)) & imported, question


# ---------------------------------------------------------------- replies

REPLIES = {
    "nothing": "None",
    "text": "'a lot'",
    "a number": "1.5",
    "a dictionary": "{'loss': torch.zeros(())}",
    "an empty list": "[]",
    "an empty tensor": "torch.zeros(0)",
    "a tensor without axes": "torch.tensor(0.5)",
    "integers": "torch.arange(6)",
    "nan": "torch.full((2, 3, 4, 4), float('nan'))",
    "infinity": "(torch.tensor(float('inf')),) * 3",
    "complex numbers": "torch.zeros(2, dtype=torch.complex64)",
    "a class": "torch.Tensor",
    "on another device": "torch.zeros(2, device='meta')",
}


@pytest.mark.parametrize("question", PART_2)
def test_any_reply_is_judged(handout: Submission, graded: Graded, question: str) -> None:
    for reply in REPLIES.values():
        result = by_id(graded(filled(handout, question, f"return {reply}"), question))[question]
        assert result.status in ("wrong", "error")
        assert "grader_error" not in {check.status for check in result.checks}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_any_call_of_denoise_fn_is_judged(handout: Submission, graded: Graded, reply: str) -> None:
    code = f"img = torch.randn(shape)\nfor i in range(3):\n    denoise_fn({reply}, {reply}, {reply})"
    result = by_id(graded(filled(handout, "2.3b", code), "2.3b"))["2.3b"]
    assert "grader_error" not in {check.status for check in result.checks}
    assert result.status in ("wrong", "error", "crashed")


# ---------------------------------------------------------------- devices

ELSEWHERE = {"2.1a": "kl", "2.1b": "latent", "2.2a": "discriminator", "2.2b": "generator", "2.3a": "forward", "2.3b": "sampler"}  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "torch.Generator(device=self.x.device)",
        "assert bool((self.x > 0).any())",
        "self.x.tolist()",
        "self.x.sum().item()",
    ],
)
@pytest.mark.parametrize("question", ["2.1a", "2.3b"])
def test_what_reads_numbers_or_draws_is_not_held_against_code_on_another_device(
    solution: Submission, launcher: ZygoteLauncher, question: str, code: str
) -> None:
    first = code.replace("self.x", "mu" if question == "2.1a" else "self.betas")
    text = solution.text(QUESTIONS[question].file)
    assert text is not None
    body = textwrap.dedent(blocks.parse(text)[question].body)
    check = f"{question}/{ELSEWHERE[question]}_stays_on_its_device"
    assert run_check(check, filled(solution, question, f"{first}\n{body}"), launcher).status == "passed"


def test_every_question_of_part_2_is_checked_on_another_device() -> None:
    for question, name in ELSEWHERE.items():
        assert f"{name}_stays_on_its_device" in {check.name for check in checks_of(QUESTIONS[question])}


# ---------------------------------------------------------------- digits


def kl_results(change: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Expected]]:
    generator = torch.Generator().manual_seed(0)
    rights = [KL.at(mu=torch.randn(3, n, generator=generator), logvar=torch.randn(3, n)) for n in (2, 5, 9, 20)]
    return [(change(right.values()[0]), right) for right in rights]


def test_digits_of_16_bits_are_told() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert "16 bits" in explain_digits(kl_results(lambda x, dtype=dtype: x.to(dtype).double()))
    assert explain_digits(kl_results(lambda x: x.float().double())) == ""
    assert explain_digits(kl_results(lambda x: x.round())) == ""
    assert explain_digits(kl_results(torch.zeros_like)) == ""


# ---------------------------------------------------------------- the last step

DATA = GaussianData(Schedule(1e-3, 0.7, 8), 0.5, 0.5)


def ended(change: Callable[[Tensor, Recorder], Tensor]) -> str:
    """What is said of a last step whose right result a function changes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
    seen = Recorder(DATA, tuple(x.shape), torch.zeros(8))
    seen.denoise_fn(x, seen.y, torch.zeros(8, dtype=torch.int64))
    mean = reverse_mean(DATA, x, 0)
    return _explain_end(change(mean, seen), mean, seen)


def test_two_kinds_of_wrong_ends_are_told_apart() -> None:
    noise = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert "Noise is added at t = 0" in ended(lambda mean, seen: mean + 0.03 * noise)
    assert "Nothing random is added" in ended(lambda mean, seen: mean + 0.1 * seen.x[-1] + 0.2)
    assert "must be subtracted" in ended(lambda mean, seen: 2 * seen.x[-1] / (1 - 1e-3) ** 0.5 - mean)
    assert "thrown away" in ended(lambda mean, seen: seen.x[-1])
    assert "clamped" in ended(lambda mean, seen: mean.clamp(-0.3, 0.3))


def test_a_known_wrong_mean_is_not_the_right_one() -> None:
    steps, x = [3, 500, 998], 2 * torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    moves = Moves(DEFAULT, steps, x, x, torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    means = [moves.posterior().mean, *moves.wrong_means().values()]
    assert not any(torch.allclose(a, b) for n, a in enumerate(means) for b in means[:n])
