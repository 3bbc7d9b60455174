"""The sampler of Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2021), equations (12) and (16).

Increasing steps (S,) are taken from the last down to the first. Each move goes from x_t to x at the step before t among
them; the move from the first goes to x_0, where abar is 1. What is listed by move starts with the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .closed_form import ClosedForm, Formula
from .diffusion import GaussianData, Schedule

ONE = torch.ones((), dtype=torch.float64)


# ---------------------------------------------------------------- without noise


@dataclass(frozen=True)
class Move:
    """A move without noise, before it is made.

    Attributes:
        schedule: of the process.
        steps: all that are taken, increasing.
        position: which of them it starts from.
        first: (B, C, H, W), the x that sampling began with.
        x: (B, C, H, W), x_t.
        noise: (B, C, H, W), as it is predicted in x_t.
    """

    schedule: Schedule
    steps: list[int]
    position: int
    first: Tensor
    x: Tensor
    noise: Tensor

    @property
    def t(self) -> int:
        """The step that it starts from."""
        return self.steps[self.position]

    @property
    def abar(self) -> Tensor:
        """abar at t, a scalar."""
        return self.schedule.alphas_cumprod[self.t]

    @property
    def before(self) -> Tensor:
        """abar at the step that it leads to, a scalar."""
        return self.at_previous(self.schedule.alphas_cumprod)

    def at_previous(self, schedule: Tensor, otherwise: Tensor = ONE) -> Tensor:
        """A schedule (T,) at the step that it leads to, a scalar; `otherwise` if that is x_0."""
        return schedule[self.steps[self.position - 1]] if self.position else otherwise

    @property
    def start(self) -> Tensor:
        """The predicted x_0."""
        return self.predict(self.abar)

    def predict(self, abar: Tensor, x: Tensor | None = None) -> Tensor:
        """x_0 from some x, x_t by default, and the noise."""
        return ((self.x if x is None else x) - (1 - abar).sqrt() * self.noise) / abar.sqrt()

    def posterior_mean(self) -> Tensor:
        """The mean of DDPM's move from t to t - 1."""
        schedule, t = self.schedule, self.t
        return schedule.posterior_mean_coef1[t] * self.start + schedule.posterior_mean_coef2[t] * self.x


Moved = Callable[[Move], Tensor]


def mixed(abar: Tensor, start: Tensor, noise: Tensor) -> Tensor:
    """x where abar is a scalar, of x_0 and noise."""
    return abar.sqrt() * start + (1 - abar).sqrt() * noise


def moved(move: Move) -> Tensor:
    """The right move, equation (12) without noise."""
    return mixed(move.before, move.start, move.noise)


def leading_to(abar: Callable[[Move], Tensor]) -> Moved:
    """Moves that mix x_0 and noise for another abar than that of the step they lead to."""
    return lambda move: mixed(abar(move), move.start, move.noise)


def predicting(start: Callable[[Move], Tensor]) -> Moved:
    """Moves with another x_0 than the predicted one."""
    return lambda move: mixed(move.before, start(move), move.noise)


def one_before(move: Move) -> Tensor:
    """abar at t - 1, which for t = 0 is the last of a tensor."""
    return move.schedule.alphas_cumprod[move.t - 1]


def clamped(bound: int) -> dict[str, Moved]:
    """What is cut off at a bound, by sentence."""
    return {
        f"Every x is clamped to [-{bound}, {bound}]; latents are not.": lambda move: moved(move).clamp(-bound, bound),
        f"The predicted x_0 is clamped to [-{bound}, {bound}]; latents are not.": predicting(
            lambda move: move.start.clamp(-bound, bound)
        ),
        f"The predicted noise is clamped to [-{bound}, {bound}]; it is not bounded.": (
            lambda move: moved(replace(move, noise=move.noise.clamp(-bound, bound)))
        ),
    }


MOVES: dict[str, Moved] = {
    "alphas_cumprod[t - 1] is used; a move leads to the step before t among `steps`, and at t = 0 the index -1 is the "
    "last step.": leading_to(one_before),
    "alphas_cumprod[t - 1] is used; a move leads to the step before t among `steps`.": leading_to(
        lambda move: one_before(move) if move.position else ONE
    ),
    "alphas_cumprod of t - 1 is used; what belongs here is that of the step before t among `steps`.": leading_to(
        lambda move: move.schedule.alphas_cumprod_prev[move.t]
    ),
    "alphas_cumprod_prev of the step before is used, which is one step too early: alphas_cumprod belongs here.": (
        leading_to(lambda move: move.at_previous(move.schedule.alphas_cumprod_prev))
    ),
    "The way from the first of `steps` to x_0 goes wrong: x stays as it is, but alphas_cumprod of x_0 is 1.": (
        leading_to(lambda move: move.before if move.position else move.abar)
    ),
    "The way from the first of `steps` to x_0 goes wrong: alphas_cumprod[0] is used, but alphas_cumprod of x_0 is 1.": (
        leading_to(lambda move: move.at_previous(move.schedule.alphas_cumprod, move.schedule.alphas_cumprod[0]))
    ),
    "The way from the first of `steps` to x_0 goes wrong: alphas_cumprod of x_0 is 1, not 0.": leading_to(
        lambda move: move.at_previous(move.schedule.alphas_cumprod, 0 * ONE)
    ),
    "The way from the first of `steps` to x_0 goes wrong: the position -1 is the end of the schedule, not x_0.": (
        leading_to(lambda move: move.at_previous(move.schedule.alphas_cumprod, move.schedule.alphas_cumprod[-1]))
    ),
    "The way from the first of `steps` to x_0 goes wrong: the position -1 is the last of `steps`, not x_0.": leading_to(
        lambda move: move.schedule.alphas_cumprod[move.steps[move.position - 1]]
    ),
    "The way from the first of `steps` to x_0 goes wrong: it goes to the step t - 1, and is to go to x_0.": leading_to(
        lambda move: move.at_previous(move.schedule.alphas_cumprod, move.schedule.alphas_cumprod_prev[move.t])
    ),
    "x stays as it is: x_0 is predicted with alphas_cumprod of t, and x is mixed with that of the step before.": (
        lambda move: move.x
    ),
    "alphas_cumprod is read at positions in `steps`; it is to be read at the steps themselves.": (
        lambda move: mixed(
            move.schedule.alphas_cumprod[move.position - 1] if move.position else ONE,
            move.predict(move.schedule.alphas_cumprod[move.position]),
            move.noise,
        )
    ),
    "alpha of a single step is used; the product of all so far, alphas_cumprod, belongs here.": leading_to(
        lambda move: move.at_previous(1 - move.schedule.betas)
    ),
    "The predicted x_0 has alphas_cumprod of t for its weight; that of the step before belongs here.": (
        lambda move: move.abar.sqrt() * move.start + (1 - move.before).sqrt() * move.noise
    ),
    "The noise has alphas_cumprod of t in its weight; that of the step before belongs here.": (
        lambda move: move.before.sqrt() * move.start + (1 - move.abar).sqrt() * move.noise
    ),
    "alphas_cumprod of t and that of the step before are swapped.": (
        lambda move: mixed(move.abar, move.predict(move.before), move.noise)
    ),
    "The predicted x_0 lacks the division by sqrt(alphas_cumprod).": predicting(
        lambda move: move.start * move.abar.sqrt()
    ),
    "The prediction of x_0 divides by alphas_cumprod; it divides by its square root.": predicting(
        lambda move: move.start / move.abar.sqrt()
    ),
    "The noise is added in the prediction of x_0; it is to be taken away.": predicting(
        lambda move: (move.x + (1 - move.abar).sqrt() * move.noise) / move.abar.sqrt()
    ),
    "x_0 is predicted from the x of the start at every step; it is predicted from the x of that step.": predicting(
        lambda move: move.predict(move.abar, move.first)
    ),
    "The same x is passed to every step: what a step makes is the x of the next.": (
        lambda move: move.x if move.position else moved(move)
    ),
    "The predicted x_0 is taken for the x of the next step; the predicted noise belongs into it too.": (
        lambda move: move.start
    ),
    "The predicted noise is missing: x at the step before is made of the predicted x_0 and of the noise.": (
        lambda move: move.before.sqrt() * move.start
    ),
    "x is used where the predicted noise belongs.": lambda move: mixed(move.before, move.start, move.x),
    "The predicted noise is subtracted; it is added, as in any x_t.": (
        lambda move: mixed(move.before, move.start, -move.noise)
    ),
    "The predicted x_0 keeps its full size; its weight is sqrt(alphas_cumprod) of the step before.": (
        lambda move: move.start + (1 - move.before).sqrt() * move.noise
    ),
    "The square root of the weight of x_0 is missing.": (
        lambda move: move.before * move.start + (1 - move.before).sqrt() * move.noise
    ),
    "The square root of the weight of the noise is missing.": (
        lambda move: move.before.sqrt() * move.start + (1 - move.before) * move.noise
    ),
    "The square roots are missing in the weights of x_0 and of the noise.": (
        lambda move: move.before * move.start + (1 - move.before) * move.noise
    ),
    "The weight of the noise is 1 - sqrt(alphas_cumprod); the root is to be taken of the difference.": (
        lambda move: move.before.sqrt() * move.start + (1 - move.before.sqrt()) * move.noise
    ),
    "The moves are the means of DDPM, which go from t to t - 1 alone; those of DDIM go to any step.": (
        Move.posterior_mean
    ),
    "x becomes what denoise_fn returns, which is the noise in x.": lambda move: move.noise,
    **clamped(1),
    **clamped(3),
    **clamped(5),
    **clamped(10),
    "The result is clamped to [-1, 1]; latents are not.": (
        lambda move: moved(move) if move.position else moved(move).clamp(-1, 1)
    ),
}


def ddim_trajectory(schedule: Schedule, mean: float, std: float) -> ClosedForm:
    """The x of every call of the denoiser of N(mean, std^2), then the result, with eta = 0: (B, S + 1, C, H, W).

    Of x (B, C, H, W) and steps (S,).
    """
    data = GaussianData(schedule, mean, std)

    def path(move: Moved) -> Formula:
        def formula(x: Tensor, steps: Tensor) -> Tensor:
            taken, found = steps.tolist(), [x]
            for position in reversed(range(len(taken))):
                noise = data.denoise(found[-1], torch.full((len(x),), taken[position]))
                found.append(move(Move(schedule, taken, position, x, found[-1], noise)))
            return torch.stack(found, dim=1)

        return formula

    return ClosedForm((path(moved),), {sentence: path(move) for sentence, move in MOVES.items()})


# ---------------------------------------------------------------- with noise


@dataclass(frozen=True)
class Levels:
    """How much noise there is, by move: (S,) each, and eta.

    Attributes:
        abar: where a move starts.
        before: where it leads.
        eta: a scalar.
        posterior: DDPM's variance of the move from t to t - 1.
        betas: of t.
    """

    abar: Tensor
    before: Tensor
    eta: Tensor
    posterior: Tensor
    betas: Tensor

    @property
    def full(self) -> Tensor:
        """The variance that is added with eta = 1."""
        return (1 - self.before) / (1 - self.abar) * (1 - self.abar / self.before)

    @property
    def variance(self) -> Tensor:
        """The variance that is added, equation (16)."""
        return self.eta**2 * self.full

    def weights(self, added: Tensor | None = None, taken: Tensor | None = None) -> Tensor:
        """Weights of the predicted x_0, the predicted noise and fresh noise, (S, 3).

        Args:
            added: variance of the fresh noise, the right one by default.
            taken: what is taken away from the variance of the predicted noise for it, by default what is added.
        """
        added = self.variance if added is None else added
        rest = 1 - self.before - (added if taken is None else taken)
        return torch.stack([self.before.sqrt(), rest.clamp(min=0).sqrt(), added.sqrt()], dim=-1)

    def blunt(self) -> Tensor:
        """The weights with the standard deviation taken away from the weight of the predicted noise."""
        signal, noise, fresh = self.weights(taken=0 * self.abar).unbind(-1)
        return torch.stack([signal, noise - fresh, fresh], dim=-1)


NOISE: dict[str, Callable[[Levels], Tensor]] = {
    "No noise is added, but eta > 0 asks for some; the rest of the move is that of eta = 0.": (
        lambda at: at.weights(added=0 * at.abar)
    ),
    "No noise is added, but eta > 0 asks for some; the predicted noise has made room for it.": (
        lambda at: at.weights(added=0 * at.abar, taken=at.variance)
    ),
    "The predicted noise makes no room for what is added: sigma^2 is missing under its root.": (
        lambda at: at.weights(taken=0 * at.abar)
    ),
    "sigma stands under the root of the predicted noise; its square belongs there.": (
        lambda at: at.weights(taken=at.variance.sqrt())
    ),
    "sigma is subtracted outside of the root of the predicted noise; sigma^2 is subtracted under it.": Levels.blunt,
    "sigma^2 is added under the root of the predicted noise; it is subtracted.": (
        lambda at: at.weights(taken=-at.variance)
    ),
    "The added noise is scaled by its variance; it is scaled by the square root of that.": (
        lambda at: at.weights(added=at.variance**2, taken=at.variance)
    ),
    "The variance is used for sigma throughout: its square root is missing.": (
        lambda at: at.weights(added=at.variance**2)
    ),
    "eta is not squared in the variance.": lambda at: at.weights(added=at.eta * at.full),
    "eta is squared in sigma; it is squared in the variance, which is sigma^2.": (
        lambda at: at.weights(added=at.eta**4 * at.full)
    ),
    "eta scales the added noise twice.": lambda at: at.weights(added=at.eta**2 * at.variance, taken=at.variance),
    "eta is ignored: noise is added as with eta = 1.": lambda at: at.weights(added=at.full),
    "eta is missing under the root of the predicted noise.": lambda at: at.weights(taken=at.full),
    "The added noise is not scaled: its standard deviation is 1.": (
        lambda at: at.weights(added=torch.ones_like(at.abar), taken=at.variance)
    ),
    "The variance lacks the factor that has both alphas_cumprod in a ratio.": (
        lambda at: at.weights(added=at.eta**2 * (1 - at.before) / (1 - at.abar))
    ),
    "The variance lacks the ratio of what is noise at the two steps.": (
        lambda at: at.weights(added=at.eta**2 * (1 - at.abar / at.before))
    ),
    "The added noise lacks the ratio of what is noise at the two steps in its variance.": (
        lambda at: at.weights(added=at.eta**2 * (1 - at.abar / at.before), taken=at.variance)
    ),
    "The variance is DDPM's for a move from t to t - 1; the move is to the step before t among `steps`.": (
        lambda at: at.weights(added=at.eta**2 * at.posterior)
    ),
    "The variance is beta of t, which is that of a move from t - 1 to t.": (
        lambda at: at.weights(added=at.eta**2 * at.betas)
    ),
    "beta of t stands in the variance where 1 - alphas_cumprod of t / alphas_cumprod of the step before belongs, which "
    "is beta for neighbouring steps only.": (
        lambda at: at.weights(added=at.eta**2 * (1 - at.before) / (1 - at.abar) * at.betas)
    ),
    "The ratio of the two alphas_cumprod in the variance is upside down.": (
        lambda at: at.weights(added=at.eta**2 * (1 - at.before) / (1 - at.abar) * (1 - at.before / at.abar).abs())
    ),
}


def ddim_weights(schedule: Schedule) -> ClosedForm:
    """The weights of the predicted x_0, the predicted noise and fresh noise by move, (S, 3).

    Of steps (S,) and eta, a scalar in [0, 1].
    """

    def by_move(weights: Callable[[Levels], Tensor]) -> Formula:
        return lambda steps, eta: weights(levels(schedule, steps, eta))

    return ClosedForm((by_move(Levels.weights),), {text: by_move(weights) for text, weights in NOISE.items()})


def levels(schedule: Schedule, steps: Tensor, eta: Tensor) -> Levels:
    """How much noise there is when steps (S,) are taken."""
    abar, t = schedule.alphas_cumprod, steps.flip(0)
    before = torch.cat([abar[t[1:]], ONE[None]])
    return Levels(abar[t], before, eta, schedule.posterior_variance[t], schedule.betas[t])


def ddim_moments(schedule: Schedule, mean: float, std: float) -> ClosedForm:
    """Mean and variance (2,) of the samples with the denoiser of N(mean, std^2), of steps (S,) and eta, a scalar.

    x_t is sqrt(abar) mean + u, where the mean and the variance of u follow a recursion: every move is affine in u.
    """

    def moments(steps: Tensor, eta: Tensor) -> Tensor:
        at = levels(schedule, steps, eta)
        variances = at.abar * std**2 + 1 - at.abar
        kept = (at.before * at.abar).sqrt() * std**2
        gains = (kept + ((1 - at.before - at.variance) * (1 - at.abar)).sqrt()) / variances
        offset, variance = -at.abar[0].sqrt() * mean, ONE
        for gain, added in zip(gains, at.variance, strict=True):
            offset, variance = gain * offset, gain**2 * variance + added
        return torch.stack([mean + offset, variance])

    nothing: Mapping[str, Formula] = {}
    return ClosedForm((moments,), nothing)
