"""Question 1.5, the map of a latent space: which point of the square every image of the picture shows, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Failure, Student

from .draw import Draw
from .expect import close, numbers, tensor, wrong
from .margins import within
from .mlp import DIGITS, SMALL
from .runner import question

MAX_IMAGES = 1000
PRIME, STRIDE = 1031, 637  # the nth image is called n * STRIDE modulo PRIME: names of the first few are far apart
PLOT = "Lay it out like a plot: z_1 grows from left to right, and z_2 from bottom to top."
GRID = "Every value of z_1 must go with every value of z_2 once."
RANDOM = "Two calls show different points: they are drawn at random. Take evenly spaced ones from -bound to bound."
AS_THEY_ARE = "Put the images together as they are."
FLIPPED = "Put the images together as they are: to turn z_2 around, flip its values and not the picture."
Z_SHAPE = "decode takes z of the shape (B, 2), a float32 row of z_1 and z_2 for every image."


@dataclass(frozen=True)
class Task:
    """What a picture is asked for with.

    Attributes:
        rows: images along each side.
        bound: the largest value of a latent variable.
        shape: (C, H, W) of an image; rows differ from every axis, and no two axes are alike.
        low, high: pixels are in between: no picture may be cut off at 0 and 1.
    """

    rows: int
    bound: float
    shape: tuple[int, int, int]
    low: float
    high: float


def draw_task(draw: Draw, rows: Sequence[int], bound: tuple[float, float], channels: int) -> Task:
    """A task of one of some numbers of rows, a bound in a range, and images of 2 to 5 pixels along an axis."""
    count = draw.shuffled(rows)[0]
    height, width = draw.shuffled([size for size in (2, 3, 4, 5) if size not in (channels, count)])[:2]
    low, high = draw.number(-2.5, -1.5), draw.number(2.5, 3.5)
    return Task(count, draw.number(*bound), (channels, height, width), low, high)


def draw_tasks(draw: Draw) -> list[Task]:
    """Three tasks; the largest map is more than any usual chunk of images, and a multiple of none."""
    some = draw_task(draw, (5, 6), (1.2, 1.8), 3), draw_task(draw, (5, 7), (9.0, 14.0), 1)
    return [*some, draw_task(draw, (17, 19, 23), (3.2, 4.8), 1)]


@dataclass
class Decoder:
    """Decodes z into images that name it: every pixel tells which z it belongs to, and where in the image it is.

    A pixel is name + place, brought from (0, PRIME) to (low, high): every z has a name from 1 to PRIME - 1, and places
    in (0, 1) differ for every channel, row and column.
    """

    task: Task
    z: list[Tensor] = field(default_factory=list)

    def places(self) -> Tensor:
        """Places (C, H, W) of the pixels of an image."""
        count = torch.Size(self.task.shape).numel()
        return ((torch.arange(count, dtype=torch.float64) + 0.5) / count).reshape(self.task.shape)

    def decode(self, z: object) -> Tensor:
        """z (B, 2) -> images (B, C, H, W). Raises Failure where z is none."""
        if isinstance(z, Tensor) and (z.ndim != 2 or z.shape[1] != 2):
            raise wrong(f"Your code passes z with the shape {tuple(z.shape)} to decode.", Z_SHAPE)
        if isinstance(z, Tensor) and z.dtype != torch.float32:
            raise wrong(f"Your code passes z of {z.dtype} to decode.", Z_SHAPE)
        batch, first = len(z) if isinstance(z, Tensor) else 1, len(self.z) + 1
        if first + batch > MAX_IMAGES:
            raise wrong(f"Your code decodes {MAX_IMAGES} images or more, for a picture of far fewer.")
        points = tensor(z, (batch, 2), "What your code passes to decode")
        self.z += points.unbind()
        names = (torch.arange(first, first + batch) * STRIDE % PRIME).reshape(-1, 1, 1, 1)
        return self.pixels(names + self.places()).float()

    def pixels(self, named: Tensor) -> Tensor:
        """Pixels of names and places."""
        return self.task.low + named * (self.task.high - self.task.low) / PRIME

    def named(self, pixels: Tensor) -> Tensor:
        """Names and places of pixels."""
        return (pixels - self.task.low) * PRIME / (self.task.high - self.task.low)

    def numbers(self, names: Tensor) -> Tensor:
        """Which of its z, counted from 1, have these names; 0 or more than there are where none has."""
        return names.long() * pow(STRIDE, -1, PRIME) % PRIME


@dataclass(frozen=True)
class Map:
    """A student's picture, taken apart.

    Attributes:
        points: (rows, rows, 2), the z of every image, from the top left.
        places: (rows, rows, C, H, W), the places that its pixels have in the image as it was decoded.
        right_places: (C, H, W), those of an image that is upright.
    """

    points: Tensor
    places: Tensor
    right_places: Tensor


def draw_map(student: Student, task: Task) -> Map:
    """Ask for a picture and take it apart. Raises Failure if it is not made of images of `decode`."""
    decoder, rows, shape = Decoder(task), task.rows, task.shape
    try:
        picture = student.visualize.latent_grid(decoder.decode, rows, task.bound)
    except Failure as failure:
        given = f"It was called with rows = {rows} and a decode that returns B images of shape {shape}."
        hint = failure.hint or (given if failure.status == "error" else "")
        raise failure.told(hint) from None
    if not decoder.z:
        raise wrong("Your code never called decode.", "The picture is made of the images that decode returns.")
    channels, height, width = shape
    _expect_shape(picture, rows, shape)
    pixels = tensor(picture, (channels, rows * height, rows * width), "The picture")
    tiles = pixels.reshape(channels, rows, height, rows, width).permute(1, 3, 0, 2, 4)
    empty = (tiles == 0).flatten(2).all(2)
    if bool(empty.any()) and float(pixels.min()) < 0:
        row, column = (empty.nonzero()[0] + 1).tolist()
        raise wrong(
            f"In the picture there is a place without an image: row {row} from the top, column {column}.",
            f"It must hold {rows} x {rows} images; {int(empty.sum())} of these places are black.",
        )
    tiles = decoder.named(tiles)
    names = tiles.floor()
    steps = (tiles - names) * torch.Size(shape).numel() - 0.5
    named = within("places of pixels", float((steps - steps.round()).abs().max()) / 0.1)
    numbers_of = decoder.numbers(names)
    if not named or not bool(numbers_of.clamp(1, len(decoder.z)).eq(numbers_of).all()):
        raise wrong("The picture holds values that decode did not return.", explain_pixels(picture, decoder))
    first = names[:, :, :1, :1, :1]
    if not torch.equal(names, first.expand_as(names)):
        raise wrong(
            "In the picture the pixels of different images are mixed up.",
            "Beside H there belongs an axis of rows, and beside W one of columns: permute the axes, then reshape.",
        )
    return Map(
        torch.stack(decoder.z)[decoder.numbers(first.flatten(2).squeeze(2)) - 1], tiles - names, decoder.places()
    )


def explain_pixels(picture: Tensor, decoder: Decoder) -> str:
    """What was done to the pixels."""
    low, high = float(picture.min()), float(picture.max())
    names = torch.arange(1, len(decoder.z) + 1) * STRIDE % PRIME
    dark, bright = decoder.pixels(torch.stack([names.min(), names.max() + 1])).tolist()
    range_of = f"They are from {low:.3g} to {high:.3g}, and decode returned some from {dark:.3g} to {bright:.3g}"
    if (low, high) == (0.0, 1.0):
        return f"{range_of}: they are stretched to [0, 1], or cut off or rounded to it. {AS_THEY_ARE}"
    if abs(1 - low - bright) < 0.01 and abs(1 - high - dark) < 0.01:
        return f"Black and white are exchanged, 1 - x for x. {AS_THEY_ARE}"
    return f"{range_of}. {AS_THEY_ARE}"


def _expect_shape(picture: Any, rows: int, shape: tuple[int, int, int]) -> None:
    """Raise Failure, with what went wrong, if a picture is not (C, rows * H, rows * W)."""
    channels, height, width = shape
    right = (channels, rows * height, rows * width)
    if not isinstance(picture, Tensor) or tuple(picture.shape) == right:
        return
    got = tuple(picture.shape)
    hints = {
        right[1:]: "Keep the axis of the channels, even of a single one.",
        (*right[1:], channels): "The channels come first in the picture.",
        (channels, rows * width, rows * height): "H and W are swapped.",
        (1, *right): "The picture has no axis of a batch.",
        (rows * rows, *shape): "Put the images together into one picture.",
        (rows, rows, *shape): "Put the images together into one picture.",
    }
    hint = hints.get(got, "")
    if not hint and len(got) == 3 and got[0] != channels:
        hint = "Keep every channel of the images, however many there are."
    elif not hint and len(got) == 3 and got[1] % height == got[2] % width == 0:
        hint = f"It has room for {got[1] // height} rows of {got[2] // width} images, not for {rows} of {rows}."
    raise wrong(f"With rows = {rows} and images of shape {shape}, the picture has the shape {got}, not {right}.", hint)


def directions(points: Tensor) -> list[str]:
    """In which direction of the picture z_1, and z_2, grows: "" where it is in none.

    Args:
        points: (rows, rows, 2).
    """
    found = []
    for values in points.unbind(-1):
        across, down = values.diff(dim=1), values.diff(dim=0)
        ways = {
            "from left to right": (across, down),
            "from right to left": (-across, down),
            "from top to bottom": (down, across),
            "from bottom to top": (-down, across),
        }
        fits = [
            way for way, (grows, stays) in ways.items() if bool((grows > 1e-4).all() and (stays.abs() < 1e-4).all())
        ]
        found.append(fits[0] if fits else "")
    return found


@question("1.5")
def test_latent_grid_orientation(student: Student, draw: Draw) -> None:
    """z_1 grows from left to right and z_2 from bottom to top, and every image is upright."""
    for task in draw_tasks(draw):
        drawn = draw_map(student, task)
        expect_directions(student, drawn, task)
        right = drawn.right_places
        views = {"right": right, "upside down": right.flip(1), "mirrored": right.flip(2), "turned": right.flip(1, 2)}
        fits = [
            view for view, places in views.items() if close(drawn.places, places.expand_as(drawn.places), atol=1e-2)
        ]
        if "right" not in fits:
            how = fits[0] if fits else "not as decode returned them"
            raise wrong(f"The images in the picture are {how}.", FLIPPED if how == "upside down" else AS_THEY_ARE)


def expect_directions(student: Student, drawn: Map, task: Task) -> None:
    """Expect that z_1 grows from left to right, and z_2 from bottom to top."""
    found = directions(drawn.points)
    if found != ["from left to right", "from bottom to top"]:
        seen = [f"z_{n} grows {way}" if way else f"z_{n} grows in no direction" for n, way in enumerate(found, 1)]
        raise wrong(f"In the picture {' and '.join(seen)}.", explain_directions(student, found, task))


def explain_directions(student: Student, found: list[str], task: Task) -> str:
    """What belongs where, of latent variables that grow in these directions."""
    if is_random(student, task):
        return RANDOM
    across, down = found
    if across in ("from top to bottom", "from bottom to top") and down in ("from left to right", "from right to left"):
        return f"The axes are exchanged. {PLOT}"
    if found == ["from left to right", "from top to bottom"]:
        return f"The first row of images is the top one: it takes the largest z_2. {PLOT}"
    return PLOT


def is_random(student: Student, task: Task) -> bool:
    """Whether two pictures show different points."""
    one, other = (draw_map(student, task).points for _ in range(2))
    return not close(one, other)


@question("1.5")
def test_latent_grid_covers_the_square(student: Student, draw: Draw) -> None:
    """One image for each of rows x rows points, evenly spaced from -bound to bound with both ends."""
    for task in draw_tasks(draw):
        expect_square(student, draw_map(student, task), task)


def expect_square(student: Student, drawn: Map, task: Task) -> None:
    """Expect that images show every point of the square once, wherever in the picture."""
    points, rows, bound = drawn.points.reshape(-1, 2), task.rows, task.bound
    given = f"With rows = {rows} and bound = {bound:g},"
    for axis, values in enumerate(points.unbind(1), 1):
        distinct = values.sort().values
        distinct = distinct[torch.cat([torch.tensor([True]), distinct.diff() > 1e-4])]
        if len(distinct) != rows:
            raise wrong(
                f"{given} z_{axis} takes {len(distinct)} values in the picture: {numbers(distinct)}.",
                RANDOM if is_random(student, task) else GRID,
            )
        if not close(distinct, torch.linspace(-bound, bound, rows, dtype=torch.float64)):
            raise wrong(f"{given} z_{axis} takes the values {numbers(distinct)}.", explain_values(distinct, bound))
    distance = torch.cdist(points, points).fill_diagonal_(1)
    if float(distance.min()) < 1e-4:
        raise wrong(f"{given} some points of the square are shown twice, and others are not.", GRID)


def explain_values(values: Tensor, bound: float) -> str:
    """The mistake in values of a latent variable that are not the evenly spaced ones from -bound to bound."""
    count, low, high = len(values), float(values[0]), float(values[-1])
    if close(values, torch.linspace(-bound, bound, count, dtype=torch.float64), SMALL, SMALL * bound):
        return DIGITS
    step = 2 * bound / count
    ends = [
        (-bound, bound - step, "The last value, bound, is left out: arange stops before its end, linspace does not."),
        (step - bound, bound, "The first value, -bound, is left out."),
        (step / 2 - bound, bound - step / 2, "The ends are left out; the first value is -bound, the last is bound."),
        (0.0, bound, "The values start at 0; they must start at -bound."),
        *(
            (first, last, f"bound is not used: the values are those from {first:g} to {last:g}.")
            for first, last in [(-1.0, 1.0), (0.0, 1.0), (-3.0, 3.0), (-2.0, 2.0)]
            if count > 2  # a clamp gives the same for two values
        ),
    ]
    if not close(values, torch.linspace(low, high, count, dtype=torch.float64), rtol=1e-3, atol=1e-3):
        return (
            "The values are not evenly spaced: take them as they are, without quantiles of a distribution or a clamp."
        )
    matching = [text for first, last, text in ends if abs(first - low) + abs(last - high) < 1e-3]
    return matching[0] if len(matching) == 1 else "The first value must be -bound, and the last must be bound."
