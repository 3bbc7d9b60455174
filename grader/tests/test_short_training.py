"""Questions that train: they pass for the solution, wait for what they need, and catch what cannot learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from grader.checks.draw import Draw
from grader.checks.test_2_4_training import NUM_CHANNELS, Z_CHANNELS, noise_bound, vae_bounds
from grader.checks.training import Bound, Split, look
from grader.engine.launcher import Process, ZygoteLauncher
from grader.engine.student import Failure, Student
from grader.grading import checks_of, in_order
from grader.oracle.reference import given_networks, load_weights
from grader.rubric import AUDIENCES
from grader.submission import Submission

from .conftest import QUESTIONS, Graded, by_id, filled, with_source

TRAINED = [question for question in QUESTIONS.values() if question.needs]


@pytest.mark.parametrize("question", TRAINED, ids=lambda question: question.id)
def test_the_solution_learns(solution: Submission, launcher: ZygoteLauncher, question: object) -> None:
    """At one seed; `make bench-training` takes 20. Training ends once less than 0.85 of every tolerance is used."""
    failure, margins = train(solution, question.id, launcher)  # type: ignore[attr-defined]
    assert failure == ""
    assert all(used < 0.85 for used in margins.values())


def train(submission: Submission, question: str, launcher: ZygoteLauncher) -> tuple[str, dict[str, float]]:
    """Train past the gate that keeps what is wrong from training. Returns why it failed, and the margins used."""
    [check] = checks_of(QUESTIONS[question])
    with submission.staged() as folder:
        student, draw = Student(folder, launcher, call_seconds=60.0), Draw(0, check.id)
        try:
            student.begin(draw.worker_seed, check.imports)
            check.function(student, draw)
        except Failure as failure:
            return f"{failure.status}: {failure.message}", draw.margins
        finally:
            student.close()
    return "", draw.margins


BROKEN = {
    "elbo without likelihood": ("1.6a", "1.2", "elbo = -kl_divergence(z_posterior, z_prior).sum(dim=1)", "the mean digit, reaches"),
    "generator never moves": ("1.6b", "1.4", "discriminator_loss = -(discriminator(x).log() + (1 - discriminator(generator(z).detach())).log()).mean()\n"
        "discriminator_optimizer.zero_grad()\ndiscriminator_loss.backward()\ndiscriminator_optimizer.step()\ngenerator_loss = discriminator_loss", "as far from the nearest digit"),
    "discriminator never moves": ("1.6b", "1.4", "discriminator_loss = generator_loss = -discriminator(generator(z)).log().mean()\n"
        "generator_optimizer.zero_grad()\ngenerator_loss.backward()\ngenerator_optimizer.step()", "times as far from the nearest digit as before"),
    "noise alone": ("2.4a", "2.1b", "z = torch.randn_like(mu)", "of that of the mean image"),
    "no divergence": ("2.4a", "2.1a", "kl_divergence = 0 * mu.flatten(1).sum(dim=1)", "nothing holds it down"),
    "discriminator flipped": ("2.4b", "2.2a", "loss = 0.5 * (F.relu(1 + real) + F.relu(1 - fake))", "for new images and"),
    "no noise": ("2.4c", "2.3a", "return x_start", "squared error of the predicted noise"),
    "labels forgotten": ("2.4c", "2.3b", "img = torch.randn(shape)\nfor step in reversed(range(self.num_timesteps)):\n"
        "    img = self.p_sample(denoise_fn, img, torch.zeros_like(y), torch.full((b,), step))", "are recognised as the class"),
    "one step": ("2.4c", "2.3b", "img = 3 * torch.randn(shape)", "have the standard deviation"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_learn_is_caught_by_training_alone(
    solution: Submission, launcher: ZygoteLauncher, name: str
) -> None:
    question, block, code, says = BROKEN[name]
    failure, _ = train(filled(solution, block, code), question, launcher)
    assert failure.startswith("wrong: ")
    assert says in failure


def test_training_waits_for_what_it_needs(solution: Submission, graded: Graded) -> None:
    wrong = filled(solution, "2.1a", "kl_divergence = mu.flatten(1).sum(dim=1)")
    questions = by_id(graded(wrong, "2.1a", "2.1b", "2.4a"))
    assert (questions["2.4a"].status, questions["2.4a"].score) == ("skipped", 0)
    assert questions["2.4a"].checks[0].message == "Waits for 2.1a: what is wrong there comes first."


def test_training_of_empty_blocks_is_not_attempted(handout: Submission, graded: Graded) -> None:
    questions = by_id(graded(handout, "2.1a", "2.1b", "2.4a"))
    assert questions["2.4a"].status == "not_attempted"
    assert questions["2.4a"].checks[0].message == "Waits for 2.1a, 2.1b, not filled in yet."


def test_training_can_be_left_out(solution: Submission, graded: Graded) -> None:
    questions = by_id(graded(solution, *QUESTIONS, training=False))
    assert {questions[question.id].status for question in TRAINED} == {"skipped"}
    assert {question.status for question in questions.values() if not QUESTIONS[question.id].needs} == {"passed"}


# ---------------------------------------------------------------- weights are not believed


def random_split() -> Split:
    pixels = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    return Split(pixels, torch.zeros(8, dtype=torch.int64), pixels, torch.zeros(8, dtype=torch.int64))


def said(call: object) -> str:
    with pytest.raises(Failure) as caught:
        call()  # type: ignore[operator]
    return caught.value.message


def test_weights_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    weights = given_networks().VAE(3, Z_CHANNELS, NUM_CHANNELS).state_dict()
    name = next(iter(weights))
    refused = "The weights of the VAE do not fit the handout's, or are not finite."
    for forged in (
        {},
        {f"vae.{key}": x for key, x in weights.items() if key != name},
        {f"vae.{key}": torch.full_like(x, torch.nan) for key, x in weights.items()},
        {f"vae.{key}": x.to(torch.int64) for key, x in weights.items()},
        {f"vae.{key}": x[:1] for key, x in weights.items()},
    ):
        assert said(lambda forged=forged: list(vae_bounds(forged, random_split(), Draw(0, "x")))) == refused
    first = next(vae_bounds({f"vae.{key}": x for key, x in weights.items()}, random_split(), Draw(0, "x")))
    assert first.used > 1
    assert "of that of the mean image" in first.message


def test_an_untrained_unet_predicts_no_noise() -> None:
    unet = given_networks().UNet(Z_CHANNELS, Z_CHANNELS, 10, NUM_CHANNELS)
    latents, labels = torch.randn(64, 3, 8, 8), torch.zeros(64, dtype=torch.int64)
    bound = noise_bound(unet.state_dict(), latents, labels, Draw(0, "x"))
    assert bound.used > 1
    assert "the squared error of the predicted noise is 1.0" in bound.message or "is 0.9" in bound.message


def bounds(*used: float) -> list[Bound]:
    """Bounds of which these shares are used, with 0.85 enough."""
    return [Bound(f"number {number}", share, "It does not learn.", "") for number, share in enumerate(used)]


@pytest.mark.parametrize(
    ("used", "final", "seen", "reached"),
    [
        ((0.5, 0.8), False, 2, True),
        ((0.9, 0.5), False, 1, False),  # what takes longer to see is not asked for
        ((0.9, 0.5), True, 2, True),  # the last look needs no margin
        ((0.5, 1.1, 0.5), True, 2, False),
        ((float("nan"),), True, 1, False),
    ],
)
def test_a_look_ends_at_the_first_bound_that_is_missed(
    used: tuple[float, ...], final: bool, seen: int, reached: bool
) -> None:
    found, all_reached = look(iter(bounds(*used)), final)
    assert (len(found), all_reached) == (seen, reached)


def test_given_networks_are_the_handouts() -> None:
    import sys

    before = {name: sys.modules.get(name) for name in ("model", "module")}
    model = given_networks()
    assert model.VAE.forward.__code__.co_filename == "handout/model.py"
    assert {name: sys.modules.get(name) for name in before} == before
    with pytest.raises(NotImplementedError):
        model.VAE()(torch.zeros(1, 3, 32, 32))
    assert not load_weights(model.VAE(num_channels=8), model.VAE(num_channels=16).state_dict())


def test_questions_asked_for_bring_those_they_need() -> None:
    from grader.rubric import load, select

    assert [question.id for question in select(load(), "2.4a")] == ["2.1a", "2.1b", "2.4a"]


def test_a_question_may_only_need_earlier_ones(tmp_path: object) -> None:
    from grader.rubric import RubricError, load

    text = (
        'schema = 1\n[[question]]\nid = "a"\ntitle = "t"\nfile = "f"\nblock = "b"\nneeds = ["z"]\n[question.checks]\n'
    )
    path = tmp_path / "rubric.toml"  # type: ignore[operator]
    path.write_text(text, "utf-8")
    with pytest.raises(RubricError, match="a needs z, not listed before it"):
        load(path)


def worker_of_a_check(student: Student, imports: Sequence[str] = ()) -> Process:
    """The process that a check gets which asks something of it."""
    student.begin(0, imports)
    student.builtins.abs(-1)
    assert student._process is not None
    return student._process


def test_imports_that_are_expected_are_made_beside_the_first_checks(solution: Submission) -> None:
    fresh = ZygoteLauncher()
    try:
        with replace(solution).staged() as folder:
            student = Student(folder, fresh, imports=["colorsys"])
            first = worker_of_a_check(student)
            assert fresh.imports == {"colorsys"}
            assert worker_of_a_check(student, ["colorsys"]) is not first
            student.close()
    finally:
        fresh.close()


def test_checks_that_need_imports_come_last() -> None:
    """Those of 1.4, of training, of samplers and others on another device, and of derivatives in forward mode.

    They come last among those that the same people may see, behind those that more people may see; trainings are last.
    """
    checks = in_order(list(QUESTIONS.values()))
    places = [
        (bool(question.needs), AUDIENCES.index(question.audiences[check.name]), bool(check.imports))
        for check in checks
        for question in [QUESTIONS[check.question]]
    ]
    assert places == sorted(places)
    others = {"1.4", "2.3b", "3.5a"}
    assert {check.question for check in checks if check.imports} == others | {question.id for question in TRAINED}


def test_workers_started_without_what_a_check_needs_are_replaced(solution: Submission) -> None:
    fresh = ZygoteLauncher()
    try:
        with replace(solution).staged() as folder:
            student = Student(folder, fresh)
            first = worker_of_a_check(student)
            second = worker_of_a_check(student, ["colorsys"])
            assert second is not first
            assert json.dumps(sorted(fresh.imports)) == '["colorsys"]'
            assert worker_of_a_check(student, ["colorsys"]) is second
            assert worker_of_a_check(student) is second
            student.close()
    finally:
        fresh.close()


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("loss.py", "class GANLossG", "class Another", "loss.py must define GANLossG. Keep the names"),
    ],
)
def test_a_file_that_stops_a_training_is_named(
    solution: Submission, launcher: ZygoteLauncher, file: str, old: str, new: str, told: str
) -> None:
    """recipes.py, which imports it, is given code."""
    source = solution.sources[file].decode()
    submission = with_source(solution, file, source.replace(old, new))
    [check] = checks_of(QUESTIONS["1.6a"])
    with submission.staged() as folder:
        student, draw = Student(folder, launcher), Draw(0, check.id)
        student.begin(draw.worker_seed, check.imports)
        with pytest.raises(Failure) as caught:
            check.function(student, draw)
        student.close()
    assert caught.value.hint.startswith(told)
