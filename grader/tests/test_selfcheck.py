"""Mutants: what every operator makes, that they stay the same, and that the checks catch a sample of them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from grader.assignment import REPOSITORY, SOLUTION
from grader.engine.launcher import ZygoteLauncher
from grader.selfcheck.__main__ import Tally, count_mutant, first_failure
from grader.selfcheck.mutants import OPERATORS, Mutant, diff, mutants_of, mutations, solution_blocks
from grader.selfcheck.proofs import Proof, ProofError, essence, load_proofs, proved

from .conftest import EXACT, QUESTIONS

MUTANTS = {question.id: mutants_of(question) for question in EXACT}
EVERY = [mutant for mutants in MUTANTS.values() for mutant in mutants]
PROVED = proved(EVERY, load_proofs())


def made(operator: str, code: str) -> list[str]:
    """What one operator makes of some code."""
    return [mutation.code.rstrip("\n") for mutation in mutations(code, {operator: OPERATORS[operator]})]


# ---------------------------------------------------------------- operators


@pytest.mark.parametrize(
    ("operator", "code", "expected"),
    [
        ("detach", "y = f(x.detach())", ["y = f(x.detach()).detach()", "y = f(x)"]),
        ("detach", "y = a + b[0]", ["y = (a + b[0]).detach()", "y = a.detach() + b[0]"]),
        ("detach", "y = -a", ["y = (-a).detach()", "y = -a.detach()"]),
        ("detach", "self.a = nn.Linear(n, m)", []),
        ("axis", "y = x.sum(dim=1)", ["y = x.sum(dim=0)", "y = x.sum(dim=2)", "y = x.sum(dim=-1)"]),
        ("axis", "y = x.flatten(1)", ["y = x.flatten(0)", "y = x.flatten(2)", "y = x.flatten(-1)"]),
        ("axis", "y = x.reshape(1)", []),
        ("range", "range(n)", ["range(n + 1)", "range(n - 1)", "range(1, n)", "reversed(range(n))"]),
        ("range", "reversed(range(n, 0))", ["range(n, 0)", "reversed(range(n, 0 + 1))", "reversed(range(n, 0 - 1))"]),
        ("sibling", "y = x.sum()", ["y = x.mean()"]),
        ("sibling", "y = torch.randn_like(x)", ["y = torch.rand_like(x)", "y = torch.zeros_like(x)", "y = torch.ones_like(x)"]),
        ("sibling", 'f(x, reduction="none")', ['f(x, reduction="mean")', 'f(x, reduction="sum")']),
        ("layer", "nn.Sequential(nn.Flatten(), nn.Linear(3, 4))", ["nn.Sequential(nn.Linear(3, 4))", "nn.Sequential(nn.Flatten())"]),
        ("layer", "nn.ReLU()", ["nn.LeakyReLU()", "nn.Tanh()", "nn.Sigmoid()", "nn.Softplus()", "nn.GELU()"]),
        ("name", "y = f(mu, logvar)", ["y = f(logvar, logvar)", "y = f(mu, mu)"]),
        ("name", "y = self.mu(x) + self.sigma(x)", ["y = self.sigma(x) + self.sigma(x)", "y = self.mu(x) + self.mu(x)"]),
        ("name", "y = f(a, dim=b.shape)", []),
        ("arguments swapped", "f(a, b, c, d=1)", ["f(b, a, c, d=1)", "f(a, c, b, d=1)"]),
        ("arguments swapped", "y, z = a, b", ["z, y = a, b", "y, z = b, a"]),
        ("operands swapped", "y = a + b - c", ["y = c - (a + b)"]),
        ("operands swapped", "y = a * b", []),
        ("call removed", "y = torch.exp(x).sum(dim=1)", ["y = torch.exp(x)", "y = x.sum(dim=1)"]),
        ("call removed", "y = self.encoder(x)", ["y = x"]),
        ("call removed", "optimizer.step()", []),
        ("call removed", "y = Normal(mu, std)", []),
        ("keyword removed", "f(x, a=1, b=2)", ["f(x, b=2)", "f(x, a=1)"]),
        ("statement removed", "a = 1\nb = a\noptimizer.step()", ["b = a\noptimizer.step()", "a = 1\nb = a"]),
        ("statement removed", "for i in x:\n    y.step()", ["for i in x:\n    pass"]),
        ("statement removed", "return x", []),
        ("statements swapped", "a = 1\nb = 2\nfor i in x:\n    c = 3\n    d = 4",
         ["b = 2\na = 1\nfor i in x:\n    c = 3\n    d = 4", "a = 1\nb = 2\nfor i in x:\n    d = 4\n    c = 3"]),
        ("binary operator", "y = a * b", ["y = a / b", "y = a", "y = b"]),
        ("binary operator", "y = -(a - b)", ["y = -(a + b)", "y = -a", "y = -b"]),
        ("binary operator", "y = c / a**2", ["y = c * a**2", "y = c", "y = a**2", "y = c / (a * 2)", "y = c / a", "y = c / 2"]),
        ("binary operator", "y = (1 - x).abs()", ["y = (1 + x).abs()", "y = (1).abs()", "y = x.abs()"]),
        ("comparison", "a < b", ["a <= b"]),
        ("comparison", "a >= b", ["a > b"]),
        ("comparison", "a == b", ["a != b"]),
        ("sign", "y = -x", ["y = x"]),
        ("sign", "y = a * f(b)", ["y = -(a * f(b))", "y = (-a) * f(b)", "y = a * (-f(b))", "y = a * f(-b)"]),
        ("constant", "y = 0", ["y = 1"]),
        ("constant", "y = 2 * x", ["y = 3 * x", "y = 1 * x", "y = (-2) * x"]),
        ("constant", "y = f(0.5)", ["y = f(1.5)", "y = f(0.25)", "y = f(-0.5)"]),
        ("constant", "y = -1", ["y = -2", "y = -0.5"]),
    ],
)  # fmt: skip
def test_operator(operator: str, code: str, expected: list[str]) -> None:
    assert made(operator, code + "\n") == expected


def test_an_operator_that_comes_first_has_the_first_go() -> None:
    found = [(mutation.operator, mutation.line, mutation.code) for mutation in mutations("y = 1\nz = x.detach()\n")]
    assert found == [
        ("detach", 2, "y = 1\nz = x\n"),
        ("statements swapped", 1, "z = x.detach()\ny = 1\n"),
        ("sign", 2, "y = 1\nz = -x.detach()\n"),
        ("constant", 1, "y = 2\nz = x.detach()\n"),
        ("constant", 1, "y = 0.5\nz = x.detach()\n"),
        ("constant", 1, "y = -1\nz = x.detach()\n"),
    ]


def test_code_that_differs_in_layout_alone_is_no_mutant() -> None:
    assert made("call removed", "y = f((x))\n") == ["y = (x)"]
    assert made("binary operator", "y = ((a + a))\n") == ["y = ((a - a))", "y = a"]


# ---------------------------------------------------------------- mutants of the solution


def test_mutants_are_the_same_in_every_process() -> None:
    script = (
        "from grader.rubric import load\n"
        "from grader.selfcheck.mutants import mutants_of\n"
        "print([mutant for q in load() if not q.needs for mutant in mutants_of(q)])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout == f"{EVERY}\n"


def test_there_are_mutants_of_every_block() -> None:
    assert len(EVERY) >= 300
    assert {mutant.question for mutant in EVERY} == {question.id for question in EXACT}
    assert {mutant.block for mutant in EVERY} == {block for q in EXACT for block in solution_blocks(q)}


def test_mutants_are_python_and_each_is_new() -> None:
    for question in EXACT:
        for block, code in solution_blocks(question).items():
            trees = [ast.dump(ast.parse(m.code)) for m in MUTANTS[question.id] if m.block == block]
            assert len({ast.dump(ast.parse(code)), *trees}) == len(trees) + 1


def test_a_mutant_says_where_it_is() -> None:
    [mutant] = [mutant for mutant in MUTANTS["2.2b"] if mutant.operator == "sign"]
    [line] = [n for n, text in enumerate(solution_lines("loss.py"), 1) if text.strip() == "loss = -fake"]
    assert (mutant.question, mutant.block, mutant.file, mutant.line) == ("2.2b", "2.2b", "loss.py", line)
    assert mutant.code == "loss = fake\n"
    assert mutant.diff == "@@ -1 +1 @@\n-loss = -fake\n+loss = fake"
    assert str(mutant) == f"2.2b (loss.py, line {line}): sign"


def solution_lines(file: str) -> list[str]:
    return (SOLUTION / file).read_text("utf-8").splitlines()


# ---------------------------------------------------------------- proofs


def mutant(block: str, before: str, after: str) -> Mutant:
    return Mutant(block[:3], "loss.py", 1, block, "sign", after, diff(before, after))


def test_every_proof_is_about_one_mutant_and_gives_a_reason() -> None:
    proofs = load_proofs()
    assert len(PROVED) == sum(len(proof.diffs) for proof in proofs)
    assert all(proof.reason.endswith(".") for proof in proofs)


def test_a_proof_is_found_by_the_change_alone() -> None:
    one, other = mutant("1.1a", "a = 1\n\nb = 2\n", "a = 1\n\nb = 3\n"), mutant("1.1b", "b = 2", "b = 3")
    change = textwrap.dedent("""
         a = 1

        -b = 2
        +b = 3
    """)
    proof = Proof("1.1a", "It is.", (essence(change),))
    assert proved([one, other], [proof]) == {one: proof}


@pytest.mark.parametrize(
    ("mutants", "diffs", "told"),
    [
        ([], ["-a\n+b"], "0 mutants have this diff"),
        ([mutant("1.1a", "a", "b")] * 2, ["-a\n+b"], "2 mutants have this diff"),
        ([mutant("1.1a", "a", "b")], ["-a\n+b", "-a\n+b"], "another proof has this diff"),
    ],
)
def test_a_proof_that_is_stale_is_an_error(mutants: list[Mutant], diffs: list[str], told: str) -> None:
    with pytest.raises(ProofError, match=f"equivalent.toml, 1.1a: {told}"):
        proved(mutants, [Proof("1.1a", "It is.", tuple(diffs))])


def test_a_file_of_proofs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "equivalent.toml"
    path.write_text(
        '[[equivalent]]\nblock = "1.1a"\nreason = """\nIt\nis.\n"""\ndiffs = ["""\n@@ -1 +1 @@\n-a \n\n+b\n"""]\n'
    )
    assert load_proofs(path) == [Proof("1.1a", "It is.", ("-a\n+b",))]


# ---------------------------------------------------------------- what is counted


def sample() -> list[Mutant]:
    """The first mutant of every operator and of every block, of those that are not proved right."""
    found: dict[str, Mutant] = {}
    for candidate in EVERY:
        if candidate not in PROVED:
            found.setdefault(candidate.operator, candidate)
            found.setdefault(candidate.block, candidate)
    return list(dict.fromkeys(found.values()))


@pytest.mark.parametrize("mutant", sample(), ids=str)
def test_mutant_is_killed(mutant: Mutant, launcher: ZygoteLauncher) -> None:
    outcome = first_failure(mutant, QUESTIONS[mutant.question], launcher, seed=0, seconds=2.0)
    assert outcome is not None, mutant.diff
    assert outcome.status not in ("passed", "grader_error", "not_attempted")


def test_a_proved_mutant_passes(launcher: ZygoteLauncher) -> None:
    [right] = [m for m in PROVED if m.block == "2.1a" and m.operator == "sign"]
    assert first_failure(right, QUESTIONS["2.1a"], launcher, seed=0, seconds=10.0) is None


def test_only_what_is_proved_may_pass_and_it_must(launcher: ZygoteLauncher) -> None:
    wrong = MUTANTS["2.2b"][-1]
    failed = first_failure(wrong, QUESTIONS["2.2b"], launcher, seed=0, seconds=2.0)
    tally = Tally()
    for outcome, is_proved in [(failed, False), (failed, True), (None, True), (None, False)]:
        count_mutant(wrong, outcome, is_proved, tally)
    assert (tally.mutants, tally.killed, tally.equivalent, tally.surviving) == (4, 2, 1, [wrong])
    assert [complaint.splitlines()[0] for complaint in tally.complaints] == [
        f"{wrong} has a proof in equivalent.toml, but is rejected by {failed.check.id}: {failed.message}"
    ]
