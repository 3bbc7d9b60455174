"""Every check of Part 3 survives any reply: what is not a tensor where one belongs is a failure, never the grader's."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from grader.assignment import HANDOUT
from grader.engine.launcher import OPTIMIZERS, Launcher, default_launcher
from grader.grading import grade
from grader.rubric import load
from grader.submission import read

REPLIES = (
    "None", "1.5", "True", "'text'", "{'a': 1}", "[]", "()", "[1, 2]", "(1.0, 2.0, 3.0)", "float('nan')", "10**30",
    "torch.tensor(2.0)", "torch.tensor(3)", "torch.zeros(0)", "torch.zeros(0, 3, 2)", "torch.zeros(1)",
    "torch.ones(2, 2)", "torch.zeros(3, 1, 2, 2, 2)", "torch.zeros(4, dtype=torch.bool)",
    "torch.zeros(4, dtype=torch.complex64)", "torch.full((4,), torch.nan)", "torch.zeros(4, device='meta')",
    "(torch.zeros(2), None)", "(None, torch.zeros(3))", "(torch.tensor(1.0), torch.tensor(2.0))",
    "(torch.zeros(0), torch.zeros(0))", "object()", "len", "torch.ones(2).numpy()", "torch.nn.Linear(1, 1)",
    "torch.eye(2).to_sparse()", "type('Odd', (torch.Tensor,), {})()",
)  # fmt: skip
NAMES = {"3.2": "img", "3.6b": "img", "3.7": "nats"}  # of blocks that leave their result in a name
CALLS = {"3.2": "denoise_fn", "3.3b": "denoise_fn", "3.6b": "velocity_fn", "3.7": "denoise_fn"}


def fillings(question: str) -> list[str]:
    """Blocks that give each of the replies, and those that call a function of the grader with three of them."""
    if question == "3.4":
        parts = ("average.weight = {0}", "network.data = {0}", "for p in average.parameters(): p.data = {0}")
        return [f"try:\n    {part.format(reply)}\nexcept Exception: pass" for part in parts for reply in REPLIES]
    leave = f"{NAMES[question]} = {{0}}" if question in NAMES else "return {0}"
    if question == "3.6a":
        leave = "x = {0}\nvelocity = {0}"
    drawn = random.Random(question)
    found = [leave.format(reply) for reply in REPLIES]
    if question == "3.6a":
        found += ["x = {}\nvelocity = {}".format(*drawn.sample(REPLIES, 2)) for _ in range(20)]
    if question in CALLS:
        for _ in range(30):
            arguments = drawn.sample(REPLIES, 3)
            for n, own in enumerate(("x_start" if question == "3.7" else "x", "y")):
                arguments[n] = own if drawn.random() < 0.5 else arguments[n]
            call = f"{CALLS[question]}({', '.join(arguments)})"
            found.append(leave.format(call))
    return found


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    made = default_launcher()
    made.require(OPTIMIZERS)
    yield made
    made.close()


@pytest.mark.parametrize("question", [q.id for q in load() if q.id.startswith("3.") and not q.needs])
def test_no_reply_breaks_a_check(question: str, launcher: Launcher) -> None:
    asked = next(q for q in load() if q.id == question)
    broken = []
    for code in fillings(question):
        submission = read(HANDOUT).filled(asked.file, {question: code})
        result = grade(submission, [asked], launcher, seed=3)
        broken += [
            f"{check.id} on {code}: {check.message}"
            for check in result.questions[0].checks
            if check.status == "grader_error"
        ]
    assert not broken, "\n".join(broken)
