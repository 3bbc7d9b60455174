"""Steps of a GAN of two linear networks by gradient descent or by Adam (Goodfellow et al., 2014, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .closed_form import ClosedForm, Formula

Loss = Callable[[Tensor, Tensor], Tensor]  # of the logits (B,) of real and of generated images


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))]: a scalar."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(G(z))], the non-saturating loss of section 3: a scalar."""
    return F.softplus(-fake).mean()


def saturating_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))], what the generator minimises in equation (1): a scalar."""
    return -F.softplus(fake).mean()


def total_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The losses of both networks added."""
    return discriminator_loss(real, fake) + generator_loss(real, fake)


def descend(loss: Callable[[Tensor], Tensor], parameters: Tensor, lr: Tensor) -> Tensor:
    """Parameters after one step of gradient descent."""
    leaf = parameters.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return parameters - lr * gradient


@dataclass(frozen=True)
class Game:
    """Both networks before a call of `gan_step`, and what it is called with.

    Networks hold their bias in the last column: images are z W' + b, and logits x w + b.

    Attributes:
        generator: (n, z_dim + 1).
        discriminator: (n + 1,).
        x: (B, n) real images.
        z: (B, z_dim) noise.
        generator_lr, discriminator_lr: learning rates.
    """

    generator: Tensor
    discriminator: Tensor
    x: Tensor
    z: Tensor
    generator_lr: Tensor
    discriminator_lr: Tensor

    @property
    def new_discriminator(self) -> Tensor:
        """The discriminator after its right step, which judges the generator's."""
        return self.step_discriminator()

    def value(self, loss: Loss, discriminator: Tensor, generator: Tensor | None = None) -> Tensor:
        """A loss, a scalar."""
        weights = self.generator if generator is None else generator
        images = self.z @ weights[:, :-1].T + weights[:, -1]
        real, fake = (batch @ discriminator[:-1] + discriminator[-1] for batch in (self.x, images))
        return loss(real, fake)

    def step_discriminator(
        self, loss: Loss = discriminator_loss, start: Tensor | None = None, generator: Tensor | None = None
    ) -> Tensor:
        """The discriminator after a step down a loss, from where it was or from `start`."""
        weights = self.discriminator if start is None else start
        return descend(lambda d: self.value(loss, d, generator), weights, self.discriminator_lr)

    def step_generator(self, loss: Loss, discriminator: Tensor, start: Tensor | None = None) -> Tensor:
        """The generator after a step down a loss, from where it was or from `start`."""
        weights = self.generator if start is None else start
        return descend(lambda generator: self.value(loss, discriminator, generator), weights, self.generator_lr)


def formulas(games: Mapping[str, Callable[[Game], Tensor]]) -> dict[str, Formula]:
    """Functions of a game as formulas of its tensors."""

    def formula(of: Callable[[Game], Tensor]) -> Formula:
        return lambda **inputs: of(Game(**inputs))

    return {sentence: formula(of) for sentence, of in games.items()}


def closed_form(right: Callable[[Game], Tensor], misconceptions: Mapping[str, Callable[[Game], Tensor]]) -> ClosedForm:
    """A closed form of a game."""
    return ClosedForm(tuple(formulas({"right": right}).values()), formulas(misconceptions))


def values(losses: Mapping[str, Loss], judge: str) -> dict[str, Callable[[Game], Tensor]]:
    """The values of some losses, by `judge`: the discriminator or the new_discriminator."""

    def value(loss: Loss) -> Callable[[Game], Tensor]:
        return lambda game: game.value(loss, getattr(game, judge))

    return {sentence: value(loss) for sentence, loss in losses.items()}


def discriminator_steps(losses: Mapping[str, Loss]) -> dict[str, Callable[[Game], Tensor]]:
    """The discriminator after a step down each of some losses."""

    def step(loss: Loss) -> Callable[[Game], Tensor]:
        return lambda game: game.step_discriminator(loss)

    return {sentence: step(loss) for sentence, loss in losses.items()}


def generator_steps(losses: Mapping[str, Loss], judge: str) -> dict[str, Callable[[Game], Tensor]]:
    """The generator after a step down each of some losses, by `judge`: the discriminator or the new_discriminator."""

    def step(loss: Loss) -> Callable[[Game], Tensor]:
        return lambda game: game.step_generator(loss, getattr(game, judge))

    return {sentence: step(loss) for sentence, loss in losses.items()}


# ---------------------------------------------------------------- the discriminator

DISCRIMINATOR_MISTAKES: dict[str, Loss] = {
    "The sign of the discriminator's loss is flipped: a step makes the discriminator worse.": (
        lambda real, fake: -discriminator_loss(real, fake)
    ),
    "The discriminator's loss is halved: its two terms are to be added, not averaged.": (
        lambda real, fake: discriminator_loss(real, fake) / 2
    ),
    "The discriminator's loss lacks the term of the generated images.": lambda real, fake: F.softplus(-real).mean(),
    "The discriminator's loss lacks the term of the real images.": lambda real, fake: F.softplus(fake).mean(),
    "The labels of the discriminator are swapped: real images have the label 1, generated ones 0.": (
        lambda real, fake: discriminator_loss(fake, real)
    ),
    "The discriminator gets the label 1 for generated images too; theirs is 0.": (
        lambda real, fake: F.softplus(-real).mean() + F.softplus(-fake).mean()
    ),
    "The discriminator gets the label 0 for real images too; theirs is 1.": (
        lambda real, fake: F.softplus(real).mean() + F.softplus(fake).mean()
    ),
    "The discriminator's loss is summed over the batch; it is to be the mean.": (
        lambda real, fake: F.softplus(-real).sum() + F.softplus(fake).sum()
    ),
    "The labels of the real images are smoothed to 0.9; theirs is 1.": (
        lambda real, fake: discriminator_loss(real, fake) + 0.1 * real.mean()
    ),
    "The generator's loss stands where the discriminator's belongs.": generator_loss,
    "The generator's loss is added to the discriminator's: each network has its own loss and its own step.": total_loss,
    "The discriminator's terms are subtracted; -log D(x) and -log(1 - D(G(z))) are to be added.": (
        lambda real, fake: F.softplus(-real).mean() - F.softplus(fake).mean()
    ),
    "The discriminator's probabilities are taken for logits, as by binary_cross_entropy_with_logits; they went "
    "through a sigmoid already.": lambda real, fake: discriminator_loss(real.sigmoid(), fake.sigmoid()),
    "The logarithms are missing from the discriminator's loss.": (
        lambda real, fake: fake.sigmoid().mean() - real.sigmoid().mean()
    ),
    "Least squares stand in the discriminator's loss; it is the binary cross-entropy.": (
        lambda real, fake: (1 - real.sigmoid()).square().mean() + fake.sigmoid().square().mean()
    ),
    "The logarithm of the mean is taken in the discriminator's loss; it is the mean of the logarithm.": (
        lambda real, fake: -real.sigmoid().mean().log() - (1 - fake.sigmoid().mean()).log()
    ),
}
GENERATOR_FIRST = "The discriminator learns from images of the generator after its step; the discriminator goes first."


def _moved_by_both(game: Game) -> Tensor:
    """The discriminator after its step and one down the generator's loss."""
    return game.step_discriminator(generator_loss, start=game.step_discriminator())


DISCRIMINATOR_LOSS = closed_form(
    lambda game: game.value(discriminator_loss, game.discriminator),
    {
        **values(DISCRIMINATOR_MISTAKES, "discriminator"),
        "The two losses are returned in the wrong order: the discriminator's comes first.": (
            lambda game: game.value(generator_loss, game.new_discriminator)
        ),
        "The discriminator's loss is one after its step, or of a second step; return that of the only step it takes.": (
            lambda game: game.value(discriminator_loss, game.new_discriminator)
        ),
        GENERATOR_FIRST: lambda game: game.value(
            discriminator_loss, game.discriminator, game.step_generator(generator_loss, game.discriminator)
        ),
    },
)

MOVED_DISCRIMINATOR = closed_form(
    lambda game: game.step_discriminator(),
    {
        "The discriminator does not move: zero_grad, backward and step, in this order, with its own optimizer.": (
            lambda game: game.discriminator
        ),
        **discriminator_steps(DISCRIMINATOR_MISTAKES),
        "Each loss moves the other network: the discriminator's optimizer is to step after the discriminator's loss, "
        "the generator's after the generator's.": (
            lambda game: game.step_discriminator(
                generator_loss, generator=game.step_generator(discriminator_loss, game.discriminator)
            )
        ),
        GENERATOR_FIRST: (
            lambda game: game.step_discriminator(generator=game.step_generator(generator_loss, game.discriminator))
        ),
        "The generator's step moves the discriminator too; it is to move the generator only.": _moved_by_both,
        "The generator's step moves the discriminator too, by the gradients of both losses; it is to move the "
        "generator only.": lambda game: _moved_by_both(game) + game.step_discriminator() - game.discriminator,
        "The discriminator takes two steps; it is to take one.": (
            lambda game: game.step_discriminator(start=game.step_discriminator())
        ),
    },
)

# ---------------------------------------------------------------- the generator

GENERATOR_MISTAKES: dict[str, Loss] = {
    "This is the saturating loss of the generator, E[log(1 - D(G(z)))]; its loss is -E[log D(G(z))].": saturating_loss,
    "The generator goes down -E[log(1 - D(G(z)))], what the discriminator goes down, with the label 0: it wants its "
    "images to be taken for real, label 1.": (lambda real, fake: F.softplus(fake).mean()),
    "The sign of the generator's loss is flipped: a step makes its images worse.": (
        lambda real, fake: -generator_loss(real, fake)
    ),
    "The generator's loss is halved; it has one term and no factor.": lambda real, fake: generator_loss(real, fake) / 2,
    "The generator's loss is summed over the batch; it is to be the mean.": lambda real, fake: F.softplus(-fake).sum(),
    "The discriminator's loss reaches the generator's step too, added to its own or through gradients that were not "
    "zeroed: each network has its own loss and its own step.": total_loss,
    "The discriminator's probabilities are taken for logits in the generator's loss, as by "
    "binary_cross_entropy_with_logits; they went through a sigmoid already.": (
        lambda real, fake: generator_loss(real, fake.sigmoid())
    ),
    "The logarithm is missing from the generator's loss.": lambda real, fake: -fake.sigmoid().mean(),
    "Least squares stand in the generator's loss; it is the binary cross-entropy.": (
        lambda real, fake: (1 - fake.sigmoid()).square().mean()
    ),
    "The logarithm of the mean is taken in the generator's loss; it is the mean of the logarithm.": (
        lambda real, fake: -fake.sigmoid().mean().log()
    ),
}
VALUES_BEFORE_THE_FIRST_STEP: dict[str, Loss] = {
    "The generator is judged by the discriminator as it was before its step; the discriminator goes first, and the "
    "new one judges.": generator_loss,
    "The generator has the saturating loss, E[log(1 - D(G(z)))], and is judged by the discriminator as it was before "
    "its step.": saturating_loss,
    "One sum of both losses moves both networks; the generator's loss is its own, judged by the new discriminator.": (
        total_loss
    ),
}
STEPS_BEFORE_THE_FIRST_STEP = VALUES_BEFORE_THE_FIRST_STEP | {
    "The generator goes down the discriminator's loss; its own is -E[log D(G(z))].": discriminator_loss,
}
MOVES_IN_BOTH = "The generator moves in the discriminator's step too; it is to move in its own only."


def _leak(game: Game) -> Tensor:
    """The generator after a step by the gradients of both losses."""
    leaked = game.step_generator(discriminator_loss, game.discriminator) - game.generator
    return game.step_generator(generator_loss, game.new_discriminator) + leaked


def _moved_in_both_steps(game: Game) -> Tensor:
    """The generator after a step down the discriminator's loss and one down its own."""
    moved = game.step_generator(discriminator_loss, game.discriminator)
    return game.step_generator(generator_loss, game.new_discriminator, start=moved)


def _moved_once(game: Game) -> Tensor:
    """The generator after the right step."""
    return game.step_generator(generator_loss, game.new_discriminator)


GENERATOR_LOSS = closed_form(
    lambda game: game.value(generator_loss, game.new_discriminator),
    {
        **values(GENERATOR_MISTAKES, "new_discriminator"),
        "Where the generator's loss belongs, the discriminator's is returned; the generator's comes second.": (
            lambda game: game.value(discriminator_loss, game.discriminator)
        ),
        **values(VALUES_BEFORE_THE_FIRST_STEP, "discriminator"),
        "The discriminator's loss, by the new discriminator, stands where the generator's belongs.": (
            lambda game: game.value(discriminator_loss, game.new_discriminator)
        ),
        MOVES_IN_BOTH: lambda game: game.value(
            generator_loss, game.new_discriminator, game.step_generator(discriminator_loss, game.discriminator)
        ),
        "The generator's loss is one after its step, or of a second step; return that of the only step it takes.": (
            lambda game: game.value(generator_loss, game.new_discriminator, _moved_once(game))
        ),
    },
)

MOVED_GENERATOR = closed_form(
    _moved_once,
    {
        "The generator does not move: zero_grad, backward and step, in this order, with its own optimizer, on images "
        "that are not detached.": lambda game: game.generator,
        **generator_steps(GENERATOR_MISTAKES, "new_discriminator"),
        **generator_steps(STEPS_BEFORE_THE_FIRST_STEP, "discriminator"),
        "The gradients of the discriminator's loss leak into the generator's step: the generated images are to be "
        "detached in the first step, and the generator's gradients zeroed before its backward.": _leak,
        MOVES_IN_BOTH: _moved_in_both_steps,
        "The generator takes two steps; it is to take one.": (
            lambda game: game.step_generator(generator_loss, game.new_discriminator, start=_moved_once(game))
        ),
    },
)

# ---------------------------------------------------------------- by Adam

ADAM = {
    "betas": (0.5, 0.9),
    "eps": 0.1,
    "weight_decay": 0.2,
}  # a large eps: a step is smooth where a gradient is near 0


def follow(
    game: Game, calls: Tensor, optimizer: Callable[..., torch.optim.Optimizer], **options: Any
) -> tuple[Tensor, Tensor]:
    """The generator and the discriminator after calls of `gan_step` with optimizers of a kind."""
    generator, discriminator = (x.detach().clone().requires_grad_() for x in (game.generator, game.discriminator))
    steps: list[tuple[Tensor, Loss, torch.optim.Optimizer]] = [
        (discriminator, discriminator_loss, optimizer([discriminator], lr=float(game.discriminator_lr), **options)),
        (generator, generator_loss, optimizer([generator], lr=float(game.generator_lr), **options)),
    ]
    for _ in range(int(calls)):
        for network, loss, taken in steps:
            (network.grad,) = torch.autograd.grad(game.value(loss, discriminator, generator), network)
            taken.step()
    return generator.detach(), discriminator.detach()


def _forgetting(game: Game, calls: Tensor) -> tuple[Tensor, Tensor]:
    """The same where every call makes optimizers of its own, with the options of those given."""
    for _ in range(int(calls)):
        generator, discriminator = follow(game, torch.tensor(1), torch.optim.Adam, **ADAM)
        game = replace(game, generator=generator, discriminator=discriminator)
    return game.generator, game.discriminator


def _by_adam(which: int) -> ClosedForm:
    """The generator (0) or the discriminator (1) after some calls of `gan_step` with Adam."""

    def formula(networks: Callable[[Game, Tensor], tuple[Tensor, Tensor]]) -> Formula:
        return lambda calls, **game: networks(Game(**game), calls)[which]

    def adam(**options: Any) -> Formula:
        return formula(lambda game, calls: follow(game, calls, torch.optim.Adam, **ADAM | options))

    return ClosedForm(
        (adam(),),
        {
            "The parameters move by the learning rate times the gradient, which is the step of plain SGD only: call "
            "step() of the optimizers that gan_step is given.": (
                formula(lambda game, calls: follow(game, calls, torch.optim.SGD))
            ),
            "Every call makes optimizers of its own, which know nothing of the calls before: use those that gan_step "
            "is given.": formula(_forgetting),
            "The weight decay of the optimizers is left out: call their step().": adam(weight_decay=0.0),
        },
    )


GENERATOR_BY_ADAM, DISCRIMINATOR_BY_ADAM = _by_adam(0), _by_adam(1)
