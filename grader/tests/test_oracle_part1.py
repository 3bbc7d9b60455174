"""The closed forms of Part 1 against independent values: torch.distributions, hand computation, explicit gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, testing
from torch.distributions import Bernoulli, Normal, kl_divergence

from grader.oracle import mlp
from grader.oracle.closed_form import ClosedForm
from grader.oracle.elbo import ELBO
from grader.oracle.gan_step import (
    DISCRIMINATOR_BY_ADAM,
    DISCRIMINATOR_LOSS,
    GENERATOR_BY_ADAM,
    GENERATOR_LOSS,
    MOVED_DISCRIMINATOR,
    MOVED_GENERATOR,
)

LN2 = math.log(2)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def elbo_inputs(*shape: int, z_dim: int = 3, prior: tuple[int, ...] = (3,)) -> dict[str, Tensor]:
    """Grey images whose rounded pixels are not all alike, and distributions that differ in every latent."""
    return {
        "x": draw(*shape).sigmoid(),
        "x_reconst": draw(*shape, seed=1).sigmoid(),
        "posterior_mean": draw(shape[0], z_dim, seed=2),
        "posterior_stddev": draw(shape[0], z_dim, seed=3).exp(),
        "prior_mean": draw(*prior, seed=4),
        "prior_stddev": draw(*prior, seed=5).exp(),
    }


def game(batch: int = 5, lr: float = 0.7) -> dict[str, Tensor]:
    """Networks that move at different rates."""
    return {
        "generator": draw(3, 3),
        "discriminator": draw(4, seed=1),
        "x": draw(batch, 3, seed=3),
        "z": draw(batch, 2, seed=4),
        "generator_lr": torch.tensor(lr, dtype=torch.float64),
        "discriminator_lr": torch.tensor(1.5 * lr, dtype=torch.float64),
    }


# ---------------------------------------------------------------- evidence lower bound


@pytest.mark.parametrize(
    ("x", "x_reconst", "mean", "stddev", "value"),
    [
        (1, 0.5, 0, 1, -LN2),
        (0, 0.25, 0, 1, math.log(0.75)),
        (1, 0.25, 1, 1, -2 * LN2 - 0.5),
        (0, 0.75, 0, 2, -2 * LN2 - 1.5 + LN2),
        (0.5, 0.5, 0, 1, -LN2),
        (1, 1, 0, 1, 0),
        (0, 0, 0, 1, 0),
    ],
)
def test_elbo_by_hand(x: float, x_reconst: float, mean: float, stddev: float, value: float) -> None:
    names = ("x", "x_reconst", "posterior_mean", "posterior_stddev", "prior_mean", "prior_stddev")
    numbers = (x, x_reconst, mean, stddev, 0, 1)
    expected = ELBO.at(**{n: torch.full((1, 1), float(v)) for n, v in zip(names, numbers, strict=True)})
    assert expected.values()[0].item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("prior", [(3,), (1,), (), (4, 3)])
@pytest.mark.parametrize("shape", [(4, 1, 2, 3), (4, 2, 3, 5)])
def test_elbo_agrees_with_torch_distributions(shape: tuple[int, ...], prior: tuple[int, ...]) -> None:
    inputs = elbo_inputs(*shape, prior=prior)
    likelihood = Bernoulli(probs=inputs["x_reconst"], validate_args=False).log_prob(inputs["x"])
    posterior = Normal(inputs["posterior_mean"], inputs["posterior_stddev"])
    divergence = kl_divergence(posterior, Normal(inputs["prior_mean"], inputs["prior_stddev"]))
    independent = (likelihood.flatten(1).sum(1) - divergence.sum(1)).mean()
    testing.assert_close(ELBO.at(**inputs).values()[0], independent)


def test_gradients_of_the_elbo_agree_with_calculus() -> None:
    inputs = elbo_inputs(4, 2, 5)
    x, x_reconst, mean, stddev, prior_mean, prior_stddev = inputs.values()
    gradients = ELBO.at(**inputs).gradients()
    testing.assert_close(gradients["x_reconst"], (x / x_reconst - (1 - x) / (1 - x_reconst)) / 4)
    testing.assert_close(gradients["posterior_mean"], (prior_mean - mean) / prior_stddev**2 / 4)
    testing.assert_close(gradients["posterior_stddev"], (1 / stddev - stddev / prior_stddev**2) / 4)


def test_a_black_picture_of_grey_confidence_costs_784_ln_2() -> None:
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    distributions = {"posterior_mean": zero, "posterior_stddev": one, "prior_mean": zero[0], "prior_stddev": one[0]}
    expected = ELBO.at(x=torch.zeros(2, 1, 28, 28), x_reconst=torch.full((2, 1, 28, 28), 0.5), **distributions)
    assert expected.values()[0].item() == pytest.approx(-784 * LN2)


# ---------------------------------------------------------------- one step of a GAN


def by_hand(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses and networks of one step, with the gradients written out."""
    generator, discriminator, x, z, generator_lr, discriminator_lr = inputs.values()
    ones = torch.ones(len(z), 1, dtype=z.dtype)
    noise = torch.cat([z, ones], dim=1)
    real, fake = torch.cat([x, ones], dim=1), torch.cat([noise @ generator.T, ones], dim=1)
    p_real, p_fake = (real @ discriminator).sigmoid(), (fake @ discriminator).sigmoid()
    by_discriminator = (fake.T @ p_fake - real.T @ (1 - p_real)) / len(x)
    new = discriminator - discriminator_lr * by_discriminator
    p_new = (fake @ new).sigmoid()
    by_generator = -torch.outer(new[:3], (1 - p_new) @ noise) / len(x)
    return {
        "discriminator_loss": -p_real.log().mean() - (1 - p_fake).log().mean(),
        "generator_loss": -p_new.log().mean(),
        "discriminator": new,
        "generator": generator - generator_lr * by_generator,
    }


GAN_FORMS = {
    "discriminator_loss": DISCRIMINATOR_LOSS,
    "generator_loss": GENERATOR_LOSS,
    "discriminator": MOVED_DISCRIMINATOR,
    "generator": MOVED_GENERATOR,
}


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("name", GAN_FORMS)
def test_a_step_agrees_with_gradients_by_hand(name: str, batch: int) -> None:
    inputs = game(batch)
    testing.assert_close(GAN_FORMS[name].at(**inputs).values()[0], by_hand(inputs)[name])


def test_losses_of_an_undecided_discriminator() -> None:
    undecided = torch.zeros(4)
    inputs = game() | {"discriminator": undecided, "discriminator_lr": torch.zeros(())}
    assert DISCRIMINATOR_LOSS.at(**inputs).values()[0].item() == pytest.approx(2 * LN2)
    assert GENERATOR_LOSS.at(**inputs).values()[0].item() == pytest.approx(LN2)


def test_a_small_step_lowers_the_loss_it_goes_down() -> None:
    inputs = game(lr=1e-3)
    moved = inputs | {"discriminator": MOVED_DISCRIMINATOR.at(**inputs).values()[0]}
    assert DISCRIMINATOR_LOSS.at(**moved).values()[0] < DISCRIMINATOR_LOSS.at(**inputs).values()[0]
    moved = inputs | {"generator": MOVED_GENERATOR.at(**inputs).values()[0]}
    assert GENERATOR_LOSS.at(**moved).values()[0] < GENERATOR_LOSS.at(**inputs).values()[0]


# ---------------------------------------------------------------- misconceptions

FAR = elbo_inputs(5, 3, 2, 4)  # where every clamp changes something
FAR |= {
    "x_reconst": FAR["x_reconst"].logit().mul(4).sigmoid(),
    "posterior_mean": 9 * FAR["posterior_mean"],
    "posterior_stddev": torch.linspace(-6, 2.5, 15, dtype=torch.float64).exp().reshape(5, 3),
}
FORMS = {"elbo": (ELBO, FAR)} | {name: (form, game()) for name, form in GAN_FORMS.items()}
FORMS |= {
    f"{form}_by_adam": (known, game() | {"calls": torch.tensor(2)})
    for form, known in (("generator", GENERATOR_BY_ADAM), ("discriminator", DISCRIMINATOR_BY_ADAM))
}


@pytest.mark.parametrize(
    ("name", "sentence"), [(name, s) for name, (form, _) in FORMS.items() for s in form.misconceptions]
)
def test_no_misconception_gives_the_right_value_or_that_of_another(name: str, sentence: str) -> None:
    form: ClosedForm
    form, inputs = FORMS[name]
    expected = form.at(**inputs)
    value = expected.misconceived(sentence)
    assert not any(torch.allclose(value, right) for right in expected.values())
    others = [s for s in form.misconceptions if s != sentence]
    assert [s for s in others if torch.allclose(value, expected.misconceived(s))] == []


# ---------------------------------------------------------------- what lies behind layers


def chain(names: tuple[str, ...], gains: Tensor) -> Tensor:
    """What comes out of a chain with these activations, in float32."""
    unit = torch.ones(len(gains))
    for name, gain in zip(names, gains.float().unbind(1), strict=True):
        unit = mlp.ACTIVATIONS[name](gain * unit)
    return unit.double()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", mlp.ACTIVATIONS)
def test_activations_are_named(name: str, layers: int) -> None:
    gains = mlp.draw_gains(layers)
    assert mlp.name_activations(gains, chain((name,) * layers, gains)) == (name,) * layers
    mixed = ("a ReLU",) * (layers - 1) + (name,)
    assert mlp.name_activations(gains, chain(mixed, gains)) == mixed


def test_an_unknown_activation_is_not_named() -> None:
    gains = mlp.draw_gains(2)
    assert mlp.name_activations(gains, torch.sin(chain(("a ReLU", "a ReLU"), gains))) == ()


@pytest.mark.parametrize("hidden", ["a ReLU", "a LeakyReLU with the slope 0.2", "a tanh", "a SiLU"])
@pytest.mark.parametrize("sentence", mlp.OUTPUTS)
def test_what_comes_behind_the_last_layer_is_named(sentence: str, hidden: str) -> None:
    unit = chain((hidden, hidden), torch.ones(1, 2)).item()
    assert mlp.name_output(mlp.OUTPUTS[sentence](torch.tensor(mlp.GAINS) * unit).double(), 2) == sentence
    right = (torch.tensor(mlp.GAINS) * unit).sigmoid().double()
    assert mlp.name_output(right, 2) == ""


SIGMAS = {
    "exponential": torch.exp,
    "root of softplus": lambda a: torch.nn.functional.softplus(a).sqrt(),
    "has a beta": lambda a: torch.nn.functional.softplus(a, beta=3),
    "A number is added": lambda a: torch.nn.functional.softplus(a) + 0.1,
    "ELU + 1": lambda a: torch.nn.functional.elu(a) + 1,
}


@pytest.mark.parametrize("says", SIGMAS)
def test_a_standard_deviation_is_told_from_softplus(says: str) -> None:
    head, scales = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    sigma = SIGMAS[says]
    known = {"above": sigma(head), "below": sigma(-head), "zero": sigma(0 * head)}
    fits = {
        sentence
        for sentence in mlp.SIGMA.misconceptions
        if all(torch.allclose(sigma(s * head), mlp.SIGMA.at(**known, scale=s).misconceived(sentence)) for s in scales)
    }
    assert [says in sentence for sentence in fits] == [True]


# ---------------------------------------------------------------- Adam


@pytest.mark.parametrize("form", [GENERATOR_BY_ADAM, DISCRIMINATOR_BY_ADAM])
def test_steps_by_adam_are_those_of_modules_and_their_optimizers(form: ClosedForm) -> None:
    inputs = game()
    layers = generator, discriminator = nn.Linear(2, 3).double(), nn.Linear(3, 1).double()
    optimizers = []
    for layer, name in zip(layers, ("generator", "discriminator"), strict=True):
        weights = torch.atleast_2d(inputs[name])
        layer.load_state_dict({"weight": weights[:, :-1], "bias": weights[:, -1]})
        rate = float(inputs[f"{name}_lr"])
        optimizers.append(torch.optim.Adam(layer.parameters(), lr=rate, betas=(0.5, 0.9), eps=0.1, weight_decay=0.2))
    for _ in range(2):
        for optimizer, loss in (
            (optimizers[1], lambda fake: -F.logsigmoid(discriminator(inputs["x"])) - F.logsigmoid(-fake)),
            (optimizers[0], lambda fake: -F.logsigmoid(fake)),
        ):
            optimizer.zero_grad()
            loss(discriminator(generator(inputs["z"]))).mean().backward()
            optimizer.step()
    layer = generator if form is GENERATOR_BY_ADAM else discriminator
    expected = form.at(calls=torch.tensor(2), **inputs).values()[0]
    testing.assert_close(torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().view_as(expected), expected)
