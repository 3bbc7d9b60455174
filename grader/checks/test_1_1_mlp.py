"""Question 1.1, the small VAE: a network whose layers are told by what comes out of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from grader.engine.student import Failure, Remote, Student, at_once, fetch, later
from grader.oracle.mlp import GAINS, SIGMA, name_head

from .draw import Draw
from .expect import close, numbers, wrong
from .mlp import (
    AS_IT_IS,
    BATCH,
    BOTH,
    CUT,
    DECODER,
    ENCODER,
    EXACT,
    FEWER,
    HIDDEN,
    INERT,
    LARGE,
    MOST_HIDDEN,
    NORMAL,
    SIZES,
    X_SHAPE,
    Z_DIM,
    Circuit,
    expect_alone,
    expect_any_size,
    expect_depth,
    expect_different_units,
    expect_every_input,
    expect_input_gradient,
    expect_kept,
    expect_layers,
    expect_probabilities,
    expect_rectifiers,
    expect_shape,
    expect_sigmoid,
    expect_slope,
    expect_trained,
    explain_digits,
    find_cut_off,
    find_gradients,
    image_hints,
    inner_call,
    layer,
    logits,
    outputs_explained,
    pixel_name,
    plain,
    positive,
    read_parameters,
    rows,
    seed,
    sizes_explained,
    suppressed,
    used_parameters,
    variation,
)
from .runner import question

FAR = 1000.0  # times as large as they are, means are not cut off
WIDE, NARROW = 40.0, -12.0  # of the head of sigma: where softplus is the head itself, and where it is next to nothing
FLOOR = 1e-4  # may be added to softplus
MEANS, SIGMAS = slice(0, Z_DIM), slice(Z_DIM, None)  # of what encode_both gives
SOFTPLUS = "Normal takes the standard deviation: softplus of a linear layer, with nothing before or behind."
FREE = "mu is any number, and linear in what enters its head: no activation and no clamp behind it."


def make_vae(student: Student) -> Remote:
    """A small VAE, called once, after which lazy layers know their shapes too. A question may need but one half."""
    vae = student.model.MLPVAE(X_SHAPE, Z_DIM, HIDDEN)
    student.settle()
    x, z = torch.full((2, *X_SHAPE), 0.5), torch.full((2, Z_DIM), 0.5)
    try:
        list(at_once(vae, [partial(vae.encode, x), partial(vae.decode, z)]))
    except Failure as failure:
        if failure.status not in ("error", "not_attempted"):  # the worker is gone
            raise
    return vae


def encode(vae: Remote, x: Tensor, z_dim: int = Z_DIM) -> tuple[Remote, Tensor, Tensor]:
    """q(z|x), its mean and its standard deviation, judged up to their values."""
    posterior = later(vae.encode, x)
    try:
        mean, std = fetch(posterior.mean, posterior.stddev)
    except Failure as failure:
        if failure.status not in ("error", "not_attempted"):  # the worker is gone
            raise
        posterior = encode_again(vae, x, z_dim)
        mean, std = fetch(posterior.mean, posterior.stddev)
    shape = (len(x), z_dim)
    hints = posterior_hints(*shape)
    mean = expect_shape(mean, shape, "The mean of q(z|x)", hints)
    std = expect_shape(std, shape, "The standard deviation of q(z|x)", hints)
    if not bool((std > 0).all()):
        least = float(std.min())
        raise wrong(
            f"The standard deviation of q(z|x) is {least:.4g} somewhere; it must be above 0.",
            explain_normal(vae, x, z_dim, least < 0),
        )
    return posterior, mean, std


def encode_again(vae: Remote, x: Tensor, z_dim: int) -> Remote:
    """q(z|x) where the call fails, or gives something that has no mean and no standard deviation: says why."""
    try:
        with sizes_explained(len(x), tuple(x.shape[1:]), z_dim, takes_images=True):
            posterior = vae.encode(x)
    except Failure as failure:
        if "satisfy the constraint" not in failure.message:
            raise
        negative = bool(re.search(r"-\d", failure.message.partition("invalid values")[2]))
        raise failure.told(explain_normal(vae, x, z_dim, negative)) from None
    if not isinstance(posterior, Remote):
        kind = "a tensor" if isinstance(posterior, Tensor) else "no distribution"
        raise wrong(
            f"MLPVAE.encode returned {kind}; a torch.distributions.Normal is expected.",
            "Return the distribution itself, not a sample of it and not its parameters.",
        )
    return posterior


def posterior_hints(batch: int, z_dim: int) -> dict[tuple[int, ...], str]:
    """What was done to get a mean or a standard deviation of other shapes."""
    widths = {
        (batch, width): f"{width} latent variables come out, whatever z_dim is; z_dim = {z_dim} is expected."
        for width in range(1, 4 * z_dim)
    }
    gone = (
        "The axis of the latent variables is gone: leave out squeeze()."
        if z_dim == 1
        else "The latent variables of an image are averaged or summed; each has a mean and a standard deviation."
    )
    return widths | {
        (batch, 2 * z_dim): "It is as wide as both heads: one half of it belongs to mu, the other to sigma.",
        (
            (batch + 1) // 2,
            2 * z_dim,
        ): "The images are split in two, half of them for mu: split the latent variables, dim=1.",
        (z_dim,): "The axis of the batch is gone: leave out squeeze() and the mean over it.",
        (batch,): gone,
    }


def explain_normal(vae: Remote, x: Tensor, z_dim: int, negative: bool) -> str:
    """Why a standard deviation is not positive. Positive weights make the mean and it linear, where they are that."""
    if not negative:
        return "It is 0 in places, as a ReLU or a clamp makes it; softplus is never 0."
    if (tuple(x.shape[1:]), z_dim) != (X_SHAPE, Z_DIM):
        return NORMAL
    with suppressed():

        def run(x: Tensor) -> Tensor:
            posterior = later(vae.encode, x)
            return torch.cat([plain(value, "q(z|x)") for value in fetch(posterior.mean, posterior.stddev)], dim=1)

        circuit = Circuit(vae, read_parameters(vae._student, vae), ENCODER, Draw(0, ""), run)
        whole, half = circuit.chain().chunk(2, dim=1), circuit.chain(last=0.5).chunk(2, dim=1)
        mean_is_linear, std_is_linear = (close(b, a / 2) for a, b in zip(whole, half, strict=True))
        if std_is_linear and mean_is_linear:
            return "Nothing makes it positive, it is the linear head itself: softplus is missing."
        if std_is_linear:
            return (
                "The standard deviation is linear, and the mean is not: the two are swapped. Normal takes the mean "
                "first, and softplus belongs on the standard deviation."
            )
    return NORMAL


def encode_both(vae: Remote, x: Tensor) -> Tensor:
    """Mean and standard deviation of q(z|x), side by side."""
    _, mean, std = encode(vae, x)
    return torch.cat([mean, std], dim=1)


def decode(vae: Remote, z: Tensor, x_shape: tuple[int, ...] = X_SHAPE) -> Tensor:
    """Decoded images, judged up to their values."""
    batch = len(z)
    with sizes_explained(batch, x_shape, z.shape[1]):
        images = vae.decode(z)
    return expect_probabilities(images, (batch, *x_shape), "What MLPVAE.decode returns", image_hints(batch, x_shape))


def open_encoder(vae: Remote, parameters: Mapping[str, Tensor], draw: Draw) -> Circuit:
    """The encoder with weights of the check's; `parameters` may be those of the decoder as well."""
    hidden = sum(ENCODER.is_middle(x) for x in parameters.values())
    if hidden > 2 * MOST_HIDDEN:
        raise wrong(f"{hidden} layers lie between hidden units; encoder and decoder may have at most 12 each.", FEWER)
    circuit = Circuit(vae, parameters, ENCODER, draw, lambda x: encode_both(vae, x))
    if not circuit.last:
        raise wrong(
            f"No parameters lead to mu and sigma of z_dim = {Z_DIM}.",
            "The heads are layers with z_dim outputs each, made in __init__ and registered in the network.",
        )
    return circuit


def expect_encodes_alone(vae: Remote, draw: Draw) -> None:
    """Expect the same q(z|x) at every call, for each image of a batch by itself."""
    expect_alone(vae, lambda x: encode_both(vae, x), draw.uniform(0, 1, BATCH, *X_SHAPE), "MLPVAE.encode")


def expect_varied(circuit: Circuit, inputs: Tensor, mean: Tensor, std: Tensor) -> None:
    """Expect that mean and standard deviation depend on the image, at weights of the check's or at minus the heads'."""
    for name, value, half in [("mean", mean, 0), ("standard deviation", std, 1)]:
        if variation(value) < INERT and variation(circuit.respond_to_last(inputs, -1).chunk(2, dim=1)[half]) < INERT:
            raise wrong(
                f"The {name} of q(z|x) is the same for different images, whatever the weights.",
                "It is computed from the image, by a head behind the hidden layers.",
            )


def expect_encoder(student: Student, vae: Remote, draw: Draw) -> dict[str, Tensor]:
    """Expect hidden layers and heads of the right widths. Returns the parameters that q(z|x) depends on."""
    vae.requires_grad_(True)  # that parameters learn is a check of its own
    x = draw.uniform(0, 1, 2, *X_SHAPE)
    posterior, *_ = encode(vae, x)
    results = {"the mean of q(z|x)": posterior.mean, "the standard deviation of q(z|x)": posterior.stddev}
    try:
        used = used_parameters(student, vae, torch.ones(2, Z_DIM), results)
    except Failure as failure:
        if failure.hint == CUT:
            circuit, inputs = open_encoder(vae, read_parameters(student, vae), draw), positive(draw, 4, *X_SHAPE)
            expect_varied(circuit, inputs, *circuit.respond(inputs).chunk(2, dim=1))
        raise

    def cut_off() -> list[str]:
        return find_cut_off(vae, read_parameters(student, vae), used, lambda: encode_both(vae, x))

    expect_layers(used, ENCODER, cut_off)
    return used


@question("1.1")
def test_mlp_vae_encodes_to_a_normal(student: Student, draw: Draw) -> None:
    """q(z|x) is a Normal of shape (B, z_dim), with a linear mu and a positive sigma, for each image by itself."""
    vae = make_vae(student)
    expect_encodes_alone(vae, draw)
    steps = []
    for x_shape, z_dim, hidden_dim in SIZES:
        other = student.model.MLPVAE(x_shape, z_dim, hidden_dim)
        steps += [partial(encode, other, draw.uniform(0, 1, count, *x_shape), z_dim) for count in (4, 1)]
    *_, (posterior, _, _) = at_once(vae, steps)
    expect_normal(student, posterior)
    expect_kept(vae.encode, "x", draw.uniform(0, 1, BATCH, *X_SHAPE))
    x = positive(draw, 4, *X_SHAPE)
    circuit = open_encoder(vae, read_parameters(student, vae), draw)
    factors = (1.0, -1.0, 0.3)
    results = circuit.respond_each(x, [circuit.last_times(factor) for factor in factors])
    mean, std = next(results).chunk(2, dim=1)
    expect_varied(circuit, x, mean, std)
    if close(std, torch.nn.functional.softplus(mean)) or close(std, mean.exp()):
        raise wrong("The standard deviation is a function of the mean: both come from the same head.")
    for factor, result in zip(factors[1:], results, strict=True):
        expect_times(circuit, mean, result[:, MEANS], factor)
    head = find_head(circuit, x, MEANS)
    if not close(circuit.respond(x, head.times(torch.full([Z_DIM], 2.0)))[:, SIGMAS], std):
        raise wrong("The standard deviation changes with the head of mu.", "Each has a head behind the hidden layers.")
    expect_times(circuit, mean, circuit.respond(x, head.times(torch.full([Z_DIM], FAR)))[:, MEANS], FAR)


def expect_normal(student: Student, posterior: Remote) -> None:
    """Expect a Normal itself."""
    distributions = student.torch.distributions
    if student.builtins.isinstance(posterior, distributions.Normal) is not True:
        raise wrong(
            "MLPVAE.encode returned another distribution than a torch.distributions.Normal.",
            "Return the Normal that the Independent is made of: compute_elbo sums over the latent variables itself."
            if student.builtins.isinstance(posterior, distributions.Independent) is True
            else "",
        )


def expect_times(circuit: Circuit, mean: Tensor, scaled: Tensor, factor: float) -> None:
    """Expect that mu has taken the factor that the weights of its head have."""
    if not close(scaled, factor * mean, 0, EXACT * abs(factor) * float(mean.abs().max())):
        raise wrong(
            f"With the weights of its head times {factor:g}, mu goes from {numbers(mean[-1])} to "
            f"{numbers(scaled[-1])}, which is not {factor:g} times as much.",
            explain_mean(circuit) or explain_digits(factor * mean, scaled, FREE),
        )


@dataclass(frozen=True)
class Head:
    """Where in the weights of the last layers each latent variable has those of its mean, or of its sigma.

    Attributes:
        units: for every latent variable a weight's name, and a mask shaped like the weight.
    """

    units: tuple[tuple[str, Tensor], ...]

    def times(self, factors: Tensor) -> dict[str, float | Tensor]:
        """The case of a factor for each latent variable, (z_dim,)."""
        case: dict[str, float | Tensor] = {}
        for (name, mask), factor in zip(self.units, factors, strict=True):
            case[name] = case.get(name, 1.0) + mask * (factor - 1)
        return case


def find_head(circuit: Circuit, inputs: Tensor, half: slice) -> Head:
    """The head of the means or of the sigmas, by what changes when the weights of one unit are doubled."""
    units: list[tuple[str, Tensor]] = []
    for name in sorted(circuit.last):
        shape = circuit.weights[name].shape
        axis = 0 if shape[0] != HIDDEN else 1
        for number in range(shape[axis]):
            mask = torch.zeros(shape)
            mask.select(axis, number).fill_(1)
            units.append((name, mask))
    results = circuit.respond_each(inputs, [{}, *({name: 1 + mask} for name, mask in units)])
    before = next(results)
    changes = [(result - before)[:, half].abs().amax(0) for result in results]
    found = {int(by.argmax()): unit for by, unit in zip(changes, units, strict=True) if float(by.max()) > INERT}
    if len(found) != Z_DIM:
        raise wrong(
            f"{'mu' if half == MEANS else 'sigma'} of a latent variable changes with no weights of a head.",
            "It is computed from the image, by a head behind the hidden layers.",
        )
    return Head(tuple(found[number] for number in range(Z_DIM)))


def explain_mean(circuit: Circuit) -> str:
    """What comes behind the head of mu; "" if that is not known."""
    with suppressed():
        results = torch.stack([circuit.chain(last=gain)[0, 0] for gain in GAINS])
        name = name_head(results, len(circuit.hidden))
        if name and name != "nothing":
            return f"{name[0].upper()}{name[1:]} comes behind the head of mu; leave it out, mu is any number."
    return ""


@question("1.1")
def test_mlp_vae_decodes_to_images(student: Student, draw: Draw) -> None:
    """decode gives images of shape (B, *x_shape) in (0, 1), by ReLU layers of hidden_dim units and a sigmoid."""
    vae = make_vae(student)
    with outputs_explained(student, vae, vae.decode, DECODER, draw):
        expect_alone(vae, lambda z: decode(vae, z), draw.normal(BATCH, Z_DIM), "MLPVAE.decode")
        steps = []
        for x_shape, z_dim, hidden_dim in SIZES:
            other = student.model.MLPVAE(x_shape, z_dim, hidden_dim)
            some = [draw.normal(count, z_dim, std=std) for count, std in [(4, 1.0), (1, 1.0), (3, 100.0)]]
            steps += [partial(decode, other, z, x_shape) for z in some]
        list(at_once(vae, steps))
        expect_kept(vae.decode, "z", draw.normal(BATCH, Z_DIM, std=20))
        vae.requires_grad_(True)  # that parameters learn is a check of its own
        images = inner_call(vae.decode, draw.normal(2, Z_DIM))
        used = used_parameters(student, vae, torch.ones(2, *X_SHAPE), {"the decoded image": images})
        expect_layers(used, DECODER)
        z = positive(draw, 8, Z_DIM)
        circuit = Circuit(vae, used, DECODER, draw, lambda z: rows(decode(vae, z))).moderate(z)
        expect_sigmoid(circuit, z, "What MLPVAE.decode returns")
        circuit = circuit.through(logits)
        expect_rectifiers(circuit, z, 0.0, "a ReLU")
        expect_every_input(circuit, z, "The logit of a decoded pixel", lambda i: f"z_{i + 1}")
        expect_any_size(circuit, z, "The logit of a decoded pixel", (-1, LARGE, -LARGE))


@question("1.1")
def test_mlp_vae_encoder_layers(student: Student, draw: Draw) -> None:
    """The encoder has three hidden ReLU layers of hidden_dim units, and two heads behind them."""
    vae = make_vae(student)
    used = expect_encoder(student, vae, draw)
    circuit = open_encoder(vae, used, draw)
    expect_depth(circuit, 3)
    heads = [used[name] for name in circuit.last]
    if sum(x.numel() for x in heads) != 2 * Z_DIM * HIDDEN:
        shapes = " and ".join(str(tuple(x.shape)) for x in heads)
        raise wrong(
            f"The weights behind the hidden layers have the shape{'s' if len(heads) > 1 else ''} {shapes}.",
            "mu and sigma have a head each, from hidden_dim to z_dim, or one of 2 * z_dim that is split in two.",
        )
    x = positive(draw, 8, *X_SHAPE)
    try:
        expect_rectifiers(circuit, x, 0.0, "a ReLU")
        means = circuit.through(lambda both: both[:, MEANS])
        expect_every_input(means, x, "mu", lambda i: pixel_name(i, X_SHAPE))
        expect_any_size(means, x, "mu")
    except Failure as failure:
        expect_encodes_alone(vae, draw)
        expect_common_layers(circuit, x)
        hint = failure.hint
        if hint == AS_IT_IS:
            ones = torch.ones(2, *X_SHAPE)
            before, after = (circuit.respond(ones, circuit.last_times(factor))[:, MEANS] for factor in (1.0, 0.3))
            if not close(after, 0.3 * before):
                hint = explain_mean(circuit) or explain_digits(0.3 * before, after, FREE)
        raise Failure(failure.status, failure.message, hint) from None


def expect_common_layers(circuit: Circuit, inputs: Tensor) -> None:
    """Expect that both heads come behind every hidden layer."""
    before = circuit.respond(inputs).chunk(2, dim=1)
    for name in circuit.hidden:
        after = circuit.respond(inputs, {name: 0.5}).chunk(2, dim=1)
        for head, one, other in zip(("mu", "sigma"), before, after, strict=True):
            if close(one, other):
                raise wrong(f"{head} does not depend on {name}: its head does not come behind {layer(name)}.", BOTH)


@question("1.1")
def test_mlp_vae_sigma_is_softplus(student: Student, draw: Draw) -> None:
    """The standard deviation is softplus of its head."""
    vae = make_vae(student)
    circuit = open_encoder(vae, read_parameters(student, vae), draw)
    x = positive(draw, 4, *X_SHAPE)
    half, twice, most = draw.number(0.4, 0.6), draw.number(1.7, 2.3), draw.number(4, 4.5)
    factors = (1.0, -1.0, 0.0, half, twice, most, -twice, -most)
    results = circuit.respond_each(x, [circuit.last_times(factor) for factor in factors])
    found = {factor: result[:, SIGMAS] for factor, result in zip(factors, results, strict=True)}
    known = {"above": found[1.0], "below": found[-1.0], "zero": found[0.0]}
    expected = {factor: SIGMA.at(**known, scale=torch.tensor(factor)) for factor in factors}

    def agrees(factor: float, value: Tensor) -> bool:
        return close(found[factor], value, 1e-3, 1e-3)  # softplus plus up to 1e-4 is right as well

    if all(agrees(factor, expected[factor].values()[0]) for factor in factors):
        try:
            expect_free_sigma(circuit, x, found[1.0] - found[-1.0])
        except Failure:
            expect_encodes_alone(vae, draw)
            raise
        return
    hints = (
        sentence
        for sentence in SIGMA.misconceptions
        if all(agrees(factor, expected[factor].misconceived(sentence)) for factor in factors)
    )
    hint = next(hints, "")
    if not hint:  # it may be none of the head's
        expect_encodes_alone(vae, draw)
        expect_encoder(student, vae, draw)
    hint = hint or explain_ends(torch.stack(list(found.values())))
    rights = torch.stack([expected[factor].values()[0] for factor in factors])
    shown = (-twice, -1.0, 0.0, 1.0, twice)
    values = ", ".join(f"{float(found[factor][-1, 0]):.4g}" for factor in shown)
    raise wrong(
        "The standard deviation of q(z|x) does not follow softplus: with the weights of its head times "
        f"{', '.join(f'{factor:g}' for factor in shown)}, and no bias, it is {values}.",
        hint or explain_digits(rights, torch.stack(list(found.values())), SOFTPLUS),
    )


def explain_ends(std: Tensor) -> str:
    """Where standard deviations at several weights are cut off; "" where they are not."""
    for end, never in ((float(std.max()), "above"), (float(std.min()), "below")):
        if int((std == end).sum()) > 1:
            return f"It is never {never} {end:.4g}: leave out the clamp. 1e-4 at most may be the least of it."
    return ""


def expect_free_sigma(circuit: Circuit, inputs: Tensor, head: Tensor) -> None:
    """Expect softplus where its `head`, of `inputs`, is far from 0, on either side."""
    head_of_sigma, largest = find_head(circuit, inputs, SIGMAS), head.abs().amax(0) * head[0].sign()
    if float(largest.abs().min()) < INERT:
        raise wrong("Sigma is the same with the weights of its head times -1.", "It is softplus of a linear head.")
    for target, allowed in ((WIDE, FLOOR + EXACT * WIDE), (NARROW, 1.2 * FLOOR)):
        factors = (target / largest).float()
        expected = torch.nn.functional.softplus(head * factors)
        std = circuit.respond(inputs, head_of_sigma.times(factors))[:, SIGMAS]
        if not close(std, expected, 0, allowed):
            which = int((std - expected).abs().amax(1).argmax())
            raise wrong(
                f"Where the head of sigma gives {numbers(head[which] * factors)}, softplus is "
                f"{numbers(expected[which])}; the standard deviation of q(z|x) is {numbers(std[which])}.",
                explain_digits(expected, std, "Leave softplus as it is: no clamp behind or before it.")
                if target == WIDE
                else "1e-4 at most may be added to softplus, or be the least that is left of it.",
            )


@question("1.1")
def test_mlp_vae_trains_every_parameter(student: Student, draw: Draw) -> None:
    """Mean, standard deviation and decoded image pass gradients to every layer that makes them."""
    vae = make_vae(student)
    parameters = read_parameters(student, vae)
    expect_different_units(parameters, ENCODER)
    encoder = open_encoder(vae, parameters, draw)
    encoder.set()
    x = positive(draw, 4, *X_SHAPE)
    expect_varied(encoder, x, *encoder.run(x).chunk(2, dim=1))
    encoder.set()
    seed(student)
    posterior, *_ = encode(vae, x)
    of_latents = draw.uniform(0.5, 1.5, 4, Z_DIM)
    by_mean = find_gradients(student, vae, parameters, posterior.mean, of_latents, "the mean of q(z|x)")
    by_std = find_gradients(student, vae, parameters, posterior.stddev, of_latents, "the standard deviation of q(z|x)")
    z = positive(draw, 4, Z_DIM)
    decoder = Circuit(vae, parameters, DECODER, draw, lambda z: plain(vae.decode(z), "A decoded image"))
    decoder.set()
    weights = draw.uniform(0.5, 1.5, *decoder.run(z).shape)
    seed(student)
    images = inner_call(vae.decode, z)
    by_image = find_gradients(student, vae, parameters, images, weights, "the decoded image")
    columns = zip(by_mean, by_std, by_image, strict=True)
    found = [[g.abs() for g in column if g is not None] for column in columns]
    sums = [sum(some, torch.zeros(1)) if some else None for some in found]

    def everything() -> Tensor:
        return torch.cat([encode_both(vae, x).flatten(), plain(vae.decode(z), "A decoded image").flatten()])

    expect_trained(vae, parameters, sums, "mu, sigma or the decoded image", everything)
    trunk = [name in encoder.hidden for name in parameters]
    for ours, others, mine, other in [(by_mean, by_std, "mu", "sigma"), (by_std, by_mean, "sigma", "mu")]:
        for name, hidden, gradient, reference in zip(parameters, trunk, ours, others, strict=True):
            if hidden and reference is not None and (gradient is None or not bool(gradient.any())):
                raise wrong(f"The parameter {name} gets a gradient from {other}, but none from {mine}.", BOTH)
    for circuit, inputs, gradients, factors, by in (
        (encoder.through(lambda both: both[:, MEANS]), x, by_mean, of_latents, "the mean of q(z|x)"),
        (encoder.through(lambda both: both[:, SIGMAS]), x, by_std, of_latents, "the standard deviation of q(z|x)"),
        (decoder, z, by_image, weights, "the decoded image"),
    ):
        expect_slope(circuit, inputs, dict(zip(parameters, gradients, strict=True)), factors, by)
    expect_input_gradient(vae.decode, "z", z, weights, "the encoder")
