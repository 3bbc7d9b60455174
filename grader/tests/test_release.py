"""handout/ is what solution/ makes, and gives nothing of it away."""

from __future__ import annotations

import ast
import io
import re
import shutil
import textwrap
import tokenize
from pathlib import Path

import pytest

from grader import blocks
from grader.assignment import HANDOUT, REPOSITORY, SOLUTION, blocks_of, handout_files
from grader.release import FilledError, make_handout, public_makefile
from grader.rubric import load

CONTRACT_NAMES = {  # what a student is told to use or to leave, in the handout's own text
    "kl_divergence", "z", "loss", "img", "t", "noise", "x_start", "elbo", "posterior", "x_reconst", "picture",
    "discriminator_loss", "generator_loss", "betas", "alphas_cumprod", "mean", "variance", "x", "velocity", "time", "decay",
    "nats",
}  # fmt: skip
COMMON_NAMES = {
    "step",
    "signal",  # a module of Python
    "hidden",
    "fake",
    "values",
    "scale",
    "kept",
    "terms",
}  # given code uses them for things of its own
COMMON_CODE = {  # given networks of Part 2, or given code that has nothing to do with the block, say it too
    "f", "shape[0]", "torch.exp", "x_start.shape", "self.encoder(x)", "self.decoder(z)", "nn.LeakyReLU(0.2)",
    "nn.Flatten()", "nn.Sigmoid()", "-bound", "*self.x_shape", "-1", "self.net=nn.Sequential(", ":-1", "1:", "return(", "else:",
    "alphas_cumprod[:-1]", "variance.sqrt()", "len(x)", "(len(x),)", "len(x_start)", "(len(x_start),)",
    "torch.randn_like(x_start)", "denoise_fn(x, y, t)", "self.q_posterior(x_start, x, t)", "(mean, variance)",
    "self.p_mean_variance(denoise_fn, x, y, t)", "mean, variance = self.p_mean_variance(denoise_fn, x, y, t)",
    "mean,variance=self.p_mean_variance(denoise_fn,x,y,t)",
}  # fmt: skip


def solution_blocks() -> list[tuple[str, str]]:
    return [
        (question, textwrap.dedent(block.body))
        for path in sorted(SOLUTION.glob("*.py"))
        for question, block in blocks.parse(path.read_text("utf-8")).items()
    ]


def statements(source: str) -> set[str]:
    """Every statement and every expression of more than a name or a number, written one way."""
    wrapped = "def f():\n" + textwrap.indent(source, "    ")
    small = (ast.Name, ast.Constant, ast.Attribute, ast.Load, ast.Store)
    kinds = (ast.stmt, ast.expr)
    return {
        ast.unparse(n)
        for n in ast.walk(ast.parse(wrapped).body[0])
        if isinstance(n, kinds) and not isinstance(n, small)
    }


def test_handout_does_not_drift_from_the_solution() -> None:
    found = {path.name: path.read_text("utf-8") for path in HANDOUT.iterdir() if path.suffix in (".py", ".md")}
    assert found == handout_files(), "run `make handout` and commit what it writes"


def test_every_block_of_the_rubric_is_in_its_file_and_empty_in_the_handout() -> None:
    for question in load():
        solved = blocks.parse((SOLUTION / question.file).read_text("utf-8"))
        emptied = blocks.parse((HANDOUT / question.file).read_text("utf-8"))
        assert bool(question.needs) != bool(blocks_of(question.id, question.file))
        for block in blocks_of(question.id, question.file):
            assert solved[block].attempted
            assert emptied[block].body.strip() == f'raise NotImplementedError("{block}")'


def test_every_block_is_in_the_rubric() -> None:
    listed = {block for question in load() for block in blocks_of(question.id, question.file)}
    assert {block for block, _ in solution_blocks()} == listed


@pytest.mark.parametrize(("question", "body"), solution_blocks(), ids=lambda value: value if len(value) < 6 else "")
def test_no_statement_or_expression_of_a_block_is_in_the_handout(question: str, body: str) -> None:
    secret = statements(body) - COMMON_CODE
    for path in HANDOUT.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        public = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr))}
        assert secret & public == set(), path.name


@pytest.mark.parametrize(("question", "body"), solution_blocks(), ids=lambda value: value if len(value) < 6 else "")
def test_no_line_or_new_name_of_a_block_is_in_the_handout(question: str, body: str) -> None:
    text = "\n".join(path.read_text("utf-8") for path in HANDOUT.iterdir() if path.suffix in (".py", ".md"))
    squeezed = "".join(text.split())
    for line in body.splitlines():
        code = "".join(line.split()).rstrip(",")
        assert code in ("", ")", *COMMON_CODE) or code not in squeezed
    names = {node.id for node in ast.walk(ast.parse("def f():\n" + textwrap.indent(body, "    ")))
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
    words = {token.string for path in HANDOUT.glob("*.py")
             for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)}  # fmt: skip
    assert (names - CONTRACT_NAMES - COMMON_NAMES) & words == set()


def test_make_handout_refuses_to_overwrite_filled_blocks(tmp_path: Path) -> None:
    shutil.copytree(HANDOUT, tmp_path / "handout")
    loss = tmp_path / "handout" / "loss.py"
    loss.write_text(blocks.fill(loss.read_text("utf-8"), "2.2b", "loss = fake"), "utf-8")
    with pytest.raises(FilledError, match=r"loss\.py \(2\.2b\).*FORCE=1"):
        make_handout(handout=tmp_path / "handout")
    assert "loss = fake" in loss.read_text("utf-8")
    assert make_handout(handout=tmp_path / "handout", force=True) == ["loss.py"]
    assert make_handout(handout=tmp_path / "handout") == []


def test_make_handout_takes_away_what_the_solution_no_longer_has(tmp_path: Path) -> None:
    shutil.copytree(HANDOUT, tmp_path / "handout")
    (tmp_path / "handout" / "old.py").write_text("x = 1\n", "utf-8")
    assert make_handout(handout=tmp_path / "handout") == ["old.py"]
    assert not (tmp_path / "handout" / "old.py").exists()


def test_the_example_in_the_assignment_text_is_the_block_it_shows() -> None:
    readme = (HANDOUT / "README.md").read_text("utf-8")
    example = blocks.parse(readme)["2.1a"]
    shown = blocks.split_lines(readme)[example.start - 5 : example.end + 2]
    lines = blocks.split_lines((HANDOUT / "loss.py").read_text("utf-8"))
    block = blocks.parse("\n".join(lines))["2.1a"]
    assert shown[1:] == lines[block.start - 4 : block.end + 2]


def test_the_makefile_of_students_offers_what_works_there() -> None:
    made = public_makefile((REPOSITORY / "Makefile").read_text("utf-8"))
    offered = re.findall(r"([A-Z_]+)=", "".join(re.findall("## .*", made)))
    assert {"SUBMISSION", "ONLY", "HTML", "ALL", "TRAINING"} <= set(offered)
    assert not {"SEED", "AUDIENCE", "ATTEMPT"} & set(offered)
    defaults = re.findall(r"^(\w+) \?=", made, re.MULTILINE)
    assert [name for name in defaults if f"$({name})" not in made] == []
    assert set(offered) <= set(defaults)
    assert "--audience" in made  # which says that there is one audience
