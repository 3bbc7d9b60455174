"""Whatever a block of Part 1 replies where a tensor belongs, a check judges it: none ends in a fault of the grader."""

from __future__ import annotations

import pytest

from grader.bank import load_bank
from grader.submission import Submission

from .conftest import Graded, filled

REPLIES = [
    "3.5",
    "None",
    "'text'",
    "{'a': torch.zeros(2)}",
    "[torch.zeros(2), torch.zeros(2)]",
    "torch.zeros(())",
    "torch.zeros(0)",
    "torch.zeros(0, 1, 28, 28)",
    "torch.zeros(2, 3, 4, 5, 6)",
    "torch.ones(4, dtype=torch.int64)",
    "torch.full((4,), float('nan'))",
    "torch.ones(4, dtype=torch.complex64)",
    "torch.nn.Identity()",
    "torch.distributions.Normal(torch.zeros(()), torch.ones(()))",
    "torch.distributions.Normal(torch.zeros(0, 5), torch.ones(0, 5))",
]
BLOCKS = {  # block: the line that leaves the reply, and what must come before it
    "1.1b": ("1.1", "posterior = {}"),
    "1.1c": ("1.1", "x_reconst = {}"),
    "1.2": ("1.2", "elbo = {}\nif not hasattr(elbo, 'mean'):\n    return elbo"),
    "1.3a": ("1.3a", "self.net = lambda z: {}"),
    "1.3b": ("1.3b", "self.net = lambda x: {}"),
    "1.4": ("1.4", "return {}, torch.zeros(())"),
    "1.5": ("1.5", "decode(torch.zeros(1, 2))\npicture = {}"),
}
COMPUTED = {  # replies of a network that looks right until its result is used
    "1.1b": (
        "1.1",
        "h = self.trunk(x)\nposterior = Normal({0}(self.to_mu(h)), {0}(nn.functional.softplus(self.to_sigma(h))))",
    ),
    "1.1c": ("1.1", "x_reconst = {}(self.pixels(z))"),
    "1.3a": (
        "1.3a",
        "self.inner = nn.Sequential(nn.Linear(z_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, x_dim), "
        "nn.Sigmoid())\nself.net = self.inner\nself.forward = lambda z: {}(self.inner(z))",
    ),
    "1.3b": (
        "1.3b",
        "self.inner = nn.Sequential(nn.Linear(x_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1), "
        "nn.Sigmoid())\nself.net = self.inner\nself.forward = lambda x: {}(self.inner(x.flatten(1)))",
    ),
}
CHANGES = [
    "torch.mean",
    "float",
    "(lambda v: v.mean().item())",
    "(lambda v: v[:0])",
    "(lambda v: v[None])",
    "(lambda v: [v])",
    "(lambda v: v.double() + 0j)",
    "(lambda v: None if len(v) == 6 else v)",
    "(lambda v: v.sum() if len(v) > 6 else v)",
]
BASE = next(filling.blocks for filling in load_bank() if filling.question == "1.1" and filling.right)


@pytest.mark.parametrize("block", BLOCKS)
def test_any_reply_is_judged(handout: Submission, graded: Graded, block: str) -> None:
    question, code = BLOCKS[block]
    for reply in REPLIES:
        blocks = BASE if question == "1.1" else {}
        result = graded(filled(handout, question, {**blocks, block: code.format(reply)}), question)
        statuses = {check.id: check.status for check in result.questions[0].checks}
        assert "grader_error" not in statuses.values(), (reply, statuses)
        assert result.score < result.max_score, reply


@pytest.mark.parametrize("block", COMPUTED)
def test_any_result_of_a_network_is_judged(handout: Submission, graded: Graded, block: str) -> None:
    question, code = COMPUTED[block]
    for change in CHANGES:
        blocks = BASE if question == "1.1" else {}
        result = graded(filled(handout, question, {**blocks, block: code.format(change)}), question)
        statuses = {check.id: check.status for check in result.questions[0].checks}
        assert "grader_error" not in statuses.values(), (change, statuses)
        assert result.score < result.max_score, change


def test_any_argument_of_decode_is_judged(handout: Submission, graded: Graded) -> None:
    for reply in REPLIES:
        result = graded(filled(handout, "1.5", f"picture = decode({reply})"), "1.5")
        statuses = {check.status for check in result.questions[0].checks}
        assert statuses <= {"wrong", "error"}, (reply, statuses)
