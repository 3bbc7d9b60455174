"""Blocks that compute nothing: they give a constant, one of their inputs, or random numbers."""

from __future__ import annotations

from collections.abc import Iterator

NUMBERS = ("0.0", "1.0", "0.5", "-1.0")
PIECES = (
    "(torch.zeros_like({x}), torch.ones_like({x}), {x}, torch.rand_like({x}.float()), torch.randn_like({x}.float()))"
)
Blocks = dict[str, str]

# By block: how a result is left, and the names of inputs, which are tensors, or expressions of a shape like theirs.
RESULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "1.2": ("elbo = {}", ("x", "x.flatten(1).sum(1)", "x_reconst", "z_posterior.mean", "z_posterior.stddev")),
    "2.1a": ("kl_divergence = {}", ("mu", "logvar", "mu.flatten(1).sum(1)", "logvar.flatten(1).sum(1)")),
    "2.1b": ("z = {}", ("mu", "logvar")),
    "2.2a": ("loss = {}", ("real", "fake")),
    "2.2b": ("loss = {}", ("fake",)),
    "2.3a": ("return {}", ("x_start", "noise")),
    "2.3b": ("img = {}", ("torch.zeros(shape)", "y")),
    "3.1a": ("return {}", ("torch.zeros(num_timesteps, dtype=torch.float64)",)),
    "3.1b": ("return {}", ("torch.zeros(num_timesteps, dtype=torch.float64)",)),
    "3.2": ("img = {}", ("x", "y")),
    "3.3a": ("return {}", ("y", "torch.full_like(y, null_label)")),
    "3.3b": ("return {}", ("x", "denoise_fn(x, y, t)", "denoise_fn(x, torch.full_like(y, null_label), t)")),
    "3.5a": ("return {}", ("x_start", "noise")),
    "3.5b": ("return {}", ("x", "velocity")),
    "3.5c": ("return {}", ("t.float()",)),
    "3.6a": ("x, velocity = {0}, {0}", ("x_start", "noise")),
    "3.6b": ("img = {}", ("x", "y")),
    "3.7": ("nats = {}", ("x_start", "x_start[:, 0, 0, 0]", "y")),
}
LIKE = ("torch.zeros_like({})", "torch.ones_like({})", "{}", "torch.rand_like(1.0 * {})", "torch.randn_like(1.0 * {})")
CONSTANT = """
class Constant(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear({inputs}, width)
    def forward(self, x):
        return {gives}
self.net = Constant({width})
"""
GIVES = (
    *(f"x.new_full((len(x), {{width}}), {number})" for number in NUMBERS),
    "torch.rand(len(x), {width})",
    "0 * self.layer(x) + 0.5",
    "(0 * self.layer(x)).sigmoid()",
    "torch.empty(0)",
)


def constants(question: str) -> Iterator[Blocks]:
    """The blocks of a question in every way of computing nothing."""
    if question in RESULTS:
        form, names = RESULTS[question]
        values = [f"torch.tensor({number})" for number in NUMBERS] + ["torch.empty(0)"]
        values += [like.format(name) for name in names for like in LIKE]
        yield from ({question: form.format(value)} for value in values)
        return
    yield from NETWORKS[question]()


def small_vaes() -> Iterator[Blocks]:
    """1.1: distributions and images that depend on nothing, or on weights times 0."""
    make = "self.z_dim, self.x_dim = z_dim, x_dim\nself.to_z = nn.Linear(x_dim, z_dim)\nself.to_x = nn.Linear(z_dim, x_dim)"
    z, x = "x.new_zeros(len(x), self.z_dim)", "z.new_zeros(len(z), *self.x_shape)"
    computed = "0 * self.to_z(x.flatten(1))", "0 * self.to_x(z).reshape(-1, *self.x_shape)"
    for zero_z, zero_x in ((z, x), computed):
        for mean, std, image in (
            ("{}", "{} + 1", "{}"),
            ("{} + 1", "{} + 0.5", "{} + 1"),
            ("{} - 1", "{} + 2", "{} + 0.5"),
            ("torch.randn_like({})", "torch.rand_like({}) + 0.1", "torch.rand_like({})"),
        ):
            yield {
                "1.1a": make,
                "1.1b": f"posterior = Normal({mean.format(zero_z)}, {std.format(zero_z)})",
                "1.1c": f"x_reconst = {image.format(zero_x)}",
            }


def small_gans(question: str, inputs: str, width: str) -> Iterator[Blocks]:
    """1.3a or 1.3b: networks whose result depends on nothing, or on weights times 0."""
    for gives in GIVES:
        yield {question: CONSTANT.format(inputs=inputs, width=width, gives=gives.replace("{width}", width))}


def steps() -> Iterator[Blocks]:
    """1.4: losses that are constants, and networks that stay or become something that does not depend on x and z."""
    moves = (
        "pass",
        "for p in [*generator.parameters(), *discriminator.parameters()]: p.data.zero_()",
        "for p in [*generator.parameters(), *discriminator.parameters()]: p.data.add_(torch.randn_like(p))",
    )
    for move in moves:
        for value in (
            *(f"torch.tensor({number})" for number in NUMBERS),
            "x.mean()",
            "torch.rand(())",
            "torch.empty(0)",
        ):
            yield {"1.4": f"{move}\ndiscriminator_loss = generator_loss = {value}"}


def pictures() -> Iterator[Blocks]:
    """1.5: a picture of numbers, or of one image over and over."""
    image = "image = decode(torch.zeros(1, 2))[0]\n"
    for number in NUMBERS:
        yield {"1.5": f"{image}picture = torch.full_like(image, {number}).repeat(1, rows, rows)"}
    yield {"1.5": f"{image}picture = torch.rand_like(image.repeat(1, rows, rows))"}
    yield {"1.5": f"{image}picture = image.repeat(1, rows, rows)"}
    yield {"1.5": f"{image}picture = image"}
    yield {"1.5": "picture = torch.empty(0)"}


def averages() -> Iterator[Blocks]:
    """3.4: an average that stays, or becomes a constant or noise."""
    yield {"3.4": "pass"}
    for change in ("zero_()", "fill_(1)", "copy_(torch.randn_like(p))"):
        yield {"3.4": f"for p in average.parameters(): p.data.{change}"}
    yield {"3.4": "for p in average.state_dict().values(): p.zero_()"}


NETWORKS = {
    "1.1": small_vaes,
    "1.3a": lambda: small_gans("1.3a", "z_dim", "x_dim"),
    "1.3b": lambda: small_gans("1.3b", "x_dim", "1"),
    "1.4": steps,
    "1.5": pictures,
    "3.4": averages,
}
