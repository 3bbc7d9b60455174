"""The checks: what they say, that they never fail what is right, and that given code is looked after."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from grader.bank import load_bank
from grader.checks.draw import Draw
from grader.checks.expect import expect, expect_all, expect_gradients, tensor
from grader.checks.noise import expect_standard_normal
from grader.checks.runner import CHECKS, STATUSES, run
from grader.engine.launcher import ZygoteLauncher
from grader.engine.student import Failure, Observation, Student
from grader.engine.wire import Unusable
from grader.grading import checks_of, load_checks
from grader.oracle.kl import KL, kl_standard_normal, per_variable
from grader.rubric import load
from grader.submission import Submission

from .conftest import EXACT, Graded, by_id, filled, run_check, with_source

SEEDS = 10  # `make calibrate` runs more


def message(call: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        call()
    return f"{caught.value.message} {caught.value.where} {caught.value.hint}"


# ---------------------------------------------------------------- right and empty submissions


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_solution_earns_every_point_at_every_seed(solution: Submission, graded: Graded, seed: int) -> None:
    """Each run fails with a probability below 1e-7: fewer than 100 statistics at 1e-9 or less each."""
    result = graded(solution, seed=seed)
    assert [check.message for q in result.questions for check in q.checks if check.status != "passed"] == []
    assert (result.score, result.max_score, result.bonus) == (111, 91, 20)


def test_the_handout_earns_nothing_and_is_not_attempted(handout: Submission, graded: Graded) -> None:
    result = graded(handout)
    assert result.score == 0
    assert {question.status for question in result.questions} == {"not_attempted"}
    assert result.notes == []


def test_the_same_seed_gives_the_same_result(handout: Submission, graded: Graded) -> None:
    wrong = filled(handout, "2.1b", "z = mu + 1.1 * torch.exp(logvar / 2) * torch.randn_like(mu)")
    first, second, other = (graded(wrong, "2.1b", seed=seed) for seed in (3, 3, 4))
    messages = [[check.message for check in result.questions[0].checks] for result in (first, second, other)]
    assert messages[0] == messages[1] != messages[2]


# ---------------------------------------------------------------- rubric


def test_rubric_and_checks_agree_and_the_parts_are_worth_30_and_70_points_and_a_bonus_of_20() -> None:
    for part, points in (("1.", 30), ("2.", 70), ("3.", 20)):
        questions = [question for question in load() if question.id.startswith(part)]
        assert sum(question.points for question in questions) == points
        assert {question.optional for question in questions} == {part == "3."}
    listed = [check for question in load() for check in checks_of(question)]
    assert len(listed) == len(load_checks())


def test_every_check_has_a_title_for_students() -> None:
    load_checks()
    for check in CHECKS.values():
        assert check.title != check.name
        assert check.title.endswith(".")


# ---------------------------------------------------------------- judging a value

MU, LOGVAR = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[0.5, -1.0], [0.1, 0.3]])
EXPECTED = KL.at(mu=MU, logvar=LOGVAR)
RIGHT = kl_standard_normal(MU, LOGVAR)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Unusable("a NumPy array"), "The result is a NumPy array, where a tensor belongs."),
        (1.0, "The result is a Python float, where a tensor belongs."),
        (None, "The result is None, where a tensor belongs."),
        ((RIGHT,), "The result is a tuple or list, where a tensor belongs."),
        (RIGHT.repeat(2), "The result has the shape (2,); () is expected."),
        (torch.tensor(3), "The result is a tensor of torch.int64, where floating-point numbers belong."),
        (torch.tensor(float("nan")), "The result is not finite: it holds nan."),
        (torch.tensor(float("-inf")), "The result is not finite: it holds inf."),
        (2 * RIGHT, "The factor 1/2 of the KL divergence is missing."),
        (-RIGHT, "The sign is flipped"),
        (RIGHT + 1, "which is not right."),
    ],
)
def test_a_wrong_value_is_explained(value: object, says: str) -> None:
    assert says in message(lambda: expect(value, EXPECTED))


def test_right_values_pass_in_any_floating_type() -> None:
    assert expect(RIGHT, EXPECTED) == 0
    assert expect(RIGHT.double(), EXPECTED) == 0


def test_an_explanation_holds_at_every_input() -> None:
    """At mu = 1, logvar = 0 a loss without its -1 is twice the right value; it must not be taken for that."""
    one, zero = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    without_one = kl_standard_normal(one, zero) + 0.5
    assert "factor 1/2" in message(lambda: expect(without_one, KL.at(mu=one, logvar=zero)))
    both = [(without_one, KL.at(mu=one, logvar=zero)), (RIGHT + 1, EXPECTED)]
    assert "The term -1" in message(lambda: expect_all(both))


def told(formula: Callable[..., Tensor]) -> str:
    """What is said of a formula for the KL divergence at three inputs."""
    shapes = [(2, 3), (3, 2, 2), (4, 5)]
    draw = Draw(0, "test")
    inputs = [{"mu": draw.normal(*shape), "logvar": draw.normal(*shape)} for shape in shapes]
    return message(lambda: expect_all([(formula(**case), KL.at(**case)) for case in inputs]))


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        (lambda mu, logvar: 2 * per_variable(mu, logvar).mean(), ["factor 1/2", "over the latent variables"]),
        (
            lambda mu, logvar: -(per_variable(mu, logvar) + logvar / 2).flatten(1).sum(1).mean(),
            ["The sign is flipped", "The term -logvar is missing"],
        ),
        (
            lambda mu, logvar: (per_variable(mu, logvar) - logvar.exp() / 2 + 0.5).flatten(1).sum(1).mean(),
            ["The term -1", "The term exp(logvar) is missing"],
        ),
    ],
)
def test_two_mistakes_at_once_are_named(formula: Callable[..., Tensor], says: list[str]) -> None:
    said = told(formula)
    assert "There are two mistakes." in said
    assert all(sentence in said for sentence in says)


def test_a_broken_property_is_named_where_no_mistake_is_known() -> None:
    assert "exactly 4.5 times the right value" in told(lambda **case: 4.5 * kl_standard_normal(**case))
    assert "exactly 3 more than the right value" in told(lambda **case: kl_standard_normal(**case) + 3)
    assert told(lambda **case: kl_standard_normal(**case) ** 1.5).strip().endswith("Every number is too large.")


def test_expected_values_are_never_shown() -> None:
    said = message(lambda: expect(RIGHT + 1.2345, EXPECTED))
    assert f"{float(RIGHT):.3g}" not in said


def test_missing_and_wrong_gradients_are_explained() -> None:
    right = EXPECTED.gradients()
    seen = Observation(RIGHT, {"mu": right["mu"], "logvar": None}, {})
    assert "No gradient reaches logvar." in message(lambda: expect_gradients(seen, EXPECTED))
    seen = Observation(RIGHT, {"mu": right["mu"] * 2, "logvar": right["logvar"]}, {})
    assert "the gradient by mu is" in message(lambda: expect_gradients(seen, EXPECTED))
    expect_gradients(Observation(RIGHT, right, {}), EXPECTED)


def test_shape_comes_before_type_and_type_before_finite() -> None:
    assert "shape" in message(lambda: tensor(torch.zeros(2, dtype=torch.int64), (3,), "x"))
    assert "torch.int64" in message(lambda: tensor(torch.zeros(2, dtype=torch.int64), (2,), "x"))


# ---------------------------------------------------------------- judging noise


def noise(seed: int = 0) -> Tensor:
    return torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


AXES = {"image": (0,), "channel": (1,), "pixel": (2, 3)}


@pytest.mark.parametrize("seed", range(200))
def test_right_noise_passes(seed: int) -> None:
    """Each fails with a probability of at most 1e-10."""
    expect_standard_normal(noise(seed), AXES, "The noise")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: 0 * x, "is zero"),
        (lambda x: 0 * x + 2, "is the same number everywhere, 2"),
        (lambda x: x - x.mean() + 0.1, "has the mean 0.1"),
        (lambda x: x * 1.05, "has the standard deviation 1.05"),
        (lambda x: x.abs(), "has the mean 0.79"),
        (lambda x: x[:1].expand_as(x), "one image has the same noise as another"),
        (lambda x: x[:, :1].expand_as(x), "one channel has the same noise as another"),
        (lambda x: x[:, :, :1].expand_as(x), "one pixel has the same noise as another"),
        (lambda x: torch.cat([x[:32], -x[:32]]), "one image has the same noise as another, with the sign flipped."),
        (lambda x: (x + x.roll(1, 0)) / math.sqrt(2), "one image can be told from another"),
        (lambda x: torch.erf(x / math.sqrt(2)) * math.sqrt(3), "not normally distributed"),
        (lambda x: x.clamp(-3.2, 3.2), "leaves [-3.5, 3.5] too rarely"),
        (lambda x: torch.where(x.abs() > 3.2, 4 * x.sign(), x), "too often"),
    ],
)
def test_wrong_noise_is_explained(change: Callable[[Tensor], Tensor], says: str) -> None:
    assert says in message(lambda: expect_standard_normal(change(noise()), AXES, "The noise"))


# ---------------------------------------------------------------- given code

BREAKS = {
    "betas": ("beta_start, beta_end, num_timesteps, dtype", "beta_start, 2 * beta_end, num_timesteps, dtype", "given_schedules", "betas"),
    "posterior_variance": ('"posterior_variance": betas *', '"posterior_variance": 2 * betas *', "given_schedules", "posterior_variance"),
    "float32": ("beta_end, num_timesteps, dtype=torch.float64)", "beta_end, num_timesteps, dtype=torch.float16).double()", "given_schedules", "betas"),
    "predict_start": ("- extract(self.sqrt_recipm1", "+ extract(self.sqrt_recipm1", "given_reverse_step", "predict_start_from_noise"),
    "q_posterior": ("extract(self.posterior_mean_coef1, t, x.shape) * x_start", "extract(self.posterior_mean_coef1, t, x.shape) * x", "given_reverse_step", "q_posterior"),
    "posterior_shape": ("return mean, extract(self.posterior_variance, t, x.shape)", "return mean, self.posterior_variance[t]", "given_reverse_step", "variance of q_posterior"),
    "p_mean_variance": ("return self.q_posterior(x_start, x, t)", "return self.q_posterior(x_start.clamp(-1, 1), x, t)", "given_reverse_step", "p_mean_variance"),
    "p_sample_noise": ("not_last * variance.sqrt() * torch", "not_last * variance * torch", "given_reverse_step", "p_sample"),
    "p_sample_at_zero": ("not_last * variance.sqrt()", "(variance + 0.01).sqrt()", "given_reverse_step", "p_sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_broken_given_code_is_named(solution: Submission, launcher: ZygoteLauncher, name: str) -> None:
    before, after, check, says = BREAKS[name]
    text = solution.text("diffusion.py")
    assert text is not None
    assert text.count(before) == 1
    question = "2.3a" if check == "given_schedules" else "2.3b"
    outcome = run_check(
        f"{question}/{check}", with_source(solution, "diffusion.py", text.replace(before, after)), launcher
    )
    assert outcome.status == "wrong"
    assert says in outcome.message


def test_a_sampler_without_an_end_is_stopped_on_every_device(solution: Submission, launcher: ZygoteLauncher) -> None:
    """A thousand steps whatever the schedule, on a device where nothing is computed and each takes its time."""
    [blocks] = [f.blocks for f in load_bank() if (f.question, f.name) == ("2.3b", "hard_coded_steps")]
    outcome = run_check("2.3b/sampler_stays_on_its_device", filled(solution, "2.3b", blocks), launcher)
    assert "more than 8 times, with 2 steps to take" in outcome.message


# ---------------------------------------------------------------- the runner


def test_an_error_of_the_grader_is_grader_error(solution: Submission, launcher: ZygoteLauncher) -> None:
    from dataclasses import replace

    from grader.grading import session

    def broken(student: Student, draw: Draw) -> None:
        raise ZeroDivisionError("ours")

    check = replace(load_checks()["2.2b/generator_gradient"], function=broken)
    with session(solution, EXACT, launcher, 0) as current:
        outcome = run(check, current.student, 0)
    assert outcome.status == "grader_error"
    assert "tell the instructor" in outcome.message


def test_draws_depend_on_seed_and_check_only() -> None:
    assert torch.equal(Draw(1, "a").normal(3), Draw(1, "a").normal(3))
    assert not torch.equal(Draw(1, "a").normal(3), Draw(2, "a").normal(3))
    assert not torch.equal(Draw(1, "a").normal(3), Draw(1, "b").normal(3))
    assert Draw(1, "a").worker_seed != Draw(1, "b").worker_seed


def test_a_question_is_as_grave_as_its_gravest_check(handout: Submission, graded: Graded) -> None:
    code = "if real.ndim == 1:\n    loss = torch.zeros(())\nelse:\n    loss = undefined"
    question = by_id(graded(filled(handout, "2.2a", code), "2.2a"))["2.2a"]
    assert {check.status for check in question.checks} == {"wrong", "error"}
    assert question.status == "error"
    assert STATUSES.index("error") > STATUSES.index("wrong")


def test_checks_assert_through_expect_alone() -> None:
    """A bare assert in a check would turn a student's mistake into a grader_error."""
    from grader.grading import CHECKS_FOLDER

    for path in CHECKS_FOLDER.glob("test_*.py"):
        assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
