"""What is said of numbers that are not right: only what is clear from them, and nothing that right ones share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from grader.checks.draw import Draw
from grader.checks.explain import HALF, Explanation, explain, place
from grader.checks.test_2_2_gan import SHAPES, draw_logits
from grader.oracle.closed_form import ClosedForm, Formula
from grader.oracle.hinge import DISCRIMINATOR_HINGE, discriminator_hinge
from grader.oracle.kl import KL, batch_mean, kl_standard_normal, per_variable

Inputs = list[dict[str, Tensor]]


def latents() -> Inputs:
    draw = Draw(0, "latents")
    return [{"mu": draw.normal(*shape), "logvar": draw.normal(*shape)} for shape in [(1, 5), (7, 3), (5, 2, 3), (8, 4)]]


def logits() -> Inputs:
    draw = Draw(0, "logits")
    return [{"real": draw_logits(draw, *shape), "fake": draw_logits(draw, *shape)} for shape in SHAPES]


def told(form: ClosedForm, formula: Formula, cases: Inputs) -> Explanation:
    """What is said of a formula, computed in float64."""
    return explain([(formula(**{n: x.double() for n, x in case.items()}), form.at(**case)) for case in cases])


def told_of_kl(elementwise: Formula) -> Explanation:
    return told(KL, batch_mean(elementwise), latents())


def told_of_hinge(formula: Formula) -> Explanation:
    return told(DISCRIMINATOR_HINGE, formula, logits())


@pytest.mark.parametrize(
    ("elementwise", "hint"),
    [
        (lambda mu, logvar: per_variable(mu, logvar) - logvar.exp(), "The sign of the term exp(logvar) is flipped."),
        (
            lambda mu, logvar: per_variable(mu, logvar) + logvar.exp() / 2,
            "The factor 1/2 does not reach the term exp(logvar); it belongs to every term.",
        ),
        (lambda mu, logvar: (mu + logvar.exp() - 1 - logvar) / 2, "mu enters without its square."),
    ],
)
def test_a_wrong_sign_or_factor_of_one_term_is_a_single_mistake(elementwise: Formula, hint: str) -> None:
    assert told_of_kl(elementwise).hint == hint


def test_a_factor_on_one_term_only_is_not_a_missing_term() -> None:
    """0.5 * relu(1 - real) + relu(1 + fake)."""
    said = told_of_hinge(lambda real, fake: 0.5 * F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    assert said.hint == "The factor 1/2 reaches the term of the real logits only; it belongs to both."


@pytest.mark.parametrize(
    "formula",
    [
        lambda real, fake: (torch.minimum(1 - real, 0 * real) + torch.minimum(1 + fake, 0 * fake)).mean() / 2,
        lambda real, fake: discriminator_hinge(real, fake) ** 2,
        lambda real, fake: (F.relu(1 - real).mean() * F.relu(1 + fake).mean()).sqrt(),
        lambda real, fake: (F.relu(0.5 - real) + F.relu(0.5 + fake)).mean() / 2,
    ],
)
def test_what_shows_is_not_taken_for_a_loss_of_zero(formula: Formula) -> None:
    said = told_of_hinge(formula)
    assert "zero" not in said.hint
    assert "no hinge" not in said.hint


def test_two_mistakes_are_not_named_where_two_others_give_the_same() -> None:
    cases = latents()
    sentences: dict[str, Callable[..., Tensor]] = {
        "One.": lambda mu, logvar: kl_standard_normal(mu, logvar) + mu.mean(),
        "Two.": lambda mu, logvar: kl_standard_normal(mu, logvar) + logvar.mean(),
    }
    both = lambda mu, logvar: kl_standard_normal(mu, logvar) + mu.mean() + logvar.mean()  # noqa: E731
    assert told(ClosedForm((kl_standard_normal,), sentences), both, cases).hint == "There are two mistakes. One. Two."
    sentences |= {
        "Three.": lambda mu, logvar: kl_standard_normal(mu, logvar) + 3 * mu.mean(),
        "Four.": lambda mu, logvar: kl_standard_normal(mu, logvar) + logvar.mean() - 2 * mu.mean(),
    }
    assert told(ClosedForm((kl_standard_normal,), sentences), both, cases).hint == ""


# ---------------------------------------------------------------- nearly right


def in_float16(mu: Tensor, logvar: Tensor) -> Tensor:
    return kl_standard_normal(mu.half(), logvar.half()).double()


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_explained_by_what_hardly_differs_from_the_right_numbers(seed: int) -> None:
    draw = Draw(seed, "float16")
    shapes = [(1, 5), (6, 1), (7, 3), (5, 2, 3), (8, 4, 7, 7), (1, 3, 8, 8)]
    cases = [{"mu": draw.normal(*shape, std=2), "logvar": draw.normal(*shape)} for shape in shapes]
    for some in (cases, cases[4:5]):
        said = told(KL, in_float16, some)
        assert "free bits" not in said.hint
        assert "exactly" not in said.where


def test_the_precision_of_another_type_is_named() -> None:
    assert told(KL, in_float16, latents()).hint == HALF
    assert told(KL, lambda mu, logvar: kl_standard_normal(mu, logvar).bfloat16().double(), latents()).hint == HALF
    assert told(KL, lambda mu, logvar: kl_standard_normal(mu, logvar) * 1.001, latents()).hint == ""


def test_what_is_nearly_right_is_said_to_be_near() -> None:
    said = told(KL, lambda mu, logvar: kl_standard_normal(mu, logvar) * (1 + 1e-3 * mu.flatten()[0].sin()), latents())
    percent = float(said.where.removeprefix("Every number is within ").removesuffix(" % of the right one."))
    assert 0 < percent < 0.11


@pytest.mark.parametrize("scale", [1.0, 1 + 2e-5, 0.99998])
def test_a_ratio_of_one_is_not_a_property(scale: float) -> None:
    cases = latents()
    judged = [(kl_standard_normal(**{n: x.double() for n, x in c.items()}) * scale, KL.at(**c)) for c in cases]
    judged[0] = judged[0][0] * (1 + 1.1e-4), judged[0][1]
    said = explain(judged)
    assert said.hint == ""
    assert "exactly" not in said.where


# ---------------------------------------------------------------- where it shows

RIGHT = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ONE_WRONG = RIGHT + torch.tensor([0, 1, 0, 0]).reshape(4, 1, 1, 1)
BATCH = {"x": RIGHT}


@pytest.mark.parametrize(
    ("got", "inputs", "where"),
    [
        (RIGHT.flip(0), BATCH, "Along the first axis the right results come out, but in reverse order."),
        (RIGHT.roll(1, 0), BATCH, "Along the first axis the right results come out, but in another order: 3, 0, 1, 2."),
        (RIGHT.flip(3), BATCH, "Along axis 3 (counted from 0) the right numbers come out in reverse order."),
        (RIGHT.mT, BATCH, "The right numbers come out with the axes 2 and 3 (counted from 0) swapped."),
        (ONE_WRONG, BATCH, "Of a batch of 4 images only 1 (counted from 0) came out wrong."),
        (
            ONE_WRONG,
            BATCH | {"t": RIGHT[0, 0, 0]},
            "Of the 4 entries of axis 0 only 1 (counted from 0) came out wrong.",
        ),
        (RIGHT.roll(1, 1).where(torch.arange(3).reshape(3, 1, 1) == 2, RIGHT), BATCH, "entries of axis 1 only 2"),
        (RIGHT + 1, BATCH, ""),
        (RIGHT.where(RIGHT < 1, 0), BATCH, ""),
    ],
)
def test_where_it_shows(got: Tensor, inputs: dict[str, Tensor], where: str) -> None:
    said = place(got, RIGHT, inputs)
    assert where in said
    assert bool(where) == bool(said)


def test_many_entries_are_not_all_listed() -> None:
    right = torch.arange(1.0, 1001, dtype=torch.float64)
    said = place(right * (1 + torch.arange(1000) % 3), right, {})
    assert said.endswith("only 0, 3, 6, 9, 12, 15, ..., 999 (counted from 0) came out right.")


def test_images_are_those_of_the_call_that_is_shown() -> None:
    form = ClosedForm((lambda x: 2 * x,), {})
    small, large = RIGHT[:2], RIGHT
    keeps = torch.tensor([0.0, 1, 1, 0]).double().reshape(4, 1, 1, 1)
    judged = [(2 * small + small**2, form.at(x=small)), (2 * large + keeps * large**2, form.at(x=large))]
    assert "batch" not in explain(judged).where
    assert "Of a batch of 4 images only 0, 3 (counted" in explain(judged, judged[1]).where
