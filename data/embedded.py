"""Two small labelled data sets made by this script: no download, the same bits on every machine, NumPy and Pillow only.

`glyphs` are grey digits in the manner of MNIST, `shapes` are coloured shapes of the size of CIFAR-10.
`python data/embedded.py` draws the atlas of the digits, data/digits.png, anew.

The bits are the same everywhere because nothing here rounds differently from machine to machine: the streams of
`RandomState` are frozen, and pixels come from +, -, *, /, floor, minimum, maximum and sqrt on whole arrays, each of
which IEEE 754 rounds correctly. Three things are avoided on purpose: matrix products (BLAS adds in any order), the
C library's sin, cos, log (and with it normal noise), and `RandomState.uniform`, whose product and sum a compiler may
fuse into one rounding. Python floats, never NumPy scalars, meet the float32 arrays: NumPy 1 and 2 promote the latter
differently.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

GLYPH_CLASSES = tuple("0123456789")
# Every shape and every colour occurs in two classes: neither alone tells the class.
SHAPE_CLASSES = (
    "red disc",
    "green disc",
    "green square",
    "blue square",
    "blue triangle",
    "yellow triangle",
    "yellow ring",
    "purple ring",
    "purple cross",
    "red cross",
)
COLOURS = {
    "red": (0.87, 0.17, 0.17),
    "green": (0.20, 0.68, 0.27),
    "blue": (0.16, 0.36, 0.90),
    "yellow": (0.97, 0.80, 0.14),
    "purple": (0.60, 0.22, 0.76),
}

ATLAS = Path(__file__).with_name("digits.png")
CELL = 64  # side of a digit's cell in the atlas
DIGIT_HEIGHT = 44  # of the zero inside its cell
FINE = 8  # the digits are drawn this many times larger, and the distances measured there
GREY_PER_PIXEL = 12  # grey levels of the atlas per pixel of distance from the outline, which lies at 128
CHUNK = 250  # images rendered at once: the working arrays stay in the cache


def glyphs(count: int, seed: int) -> tuple[Images, Labels]:
    """Digits 0 to 9, white on black, under random affine maps and with strokes of random thickness.

    Returns images uint8 (count, 1, 28, 28) and labels int64 (count,). The classes are as balanced as `count` allows
    (equal where it is a multiple of 10) and shuffled. Raises ValueError if `count` is negative or `seed` is not in
    [0, 2**32).
    """
    rng, labels = _begin(count, seed)
    rotation = _uniform(rng, count, -0.1317, 0.1317)  # tan of half the angle: 15 degrees at most
    shear = _uniform(rng, count, -0.25, 0.25)
    height = _uniform(rng, count, 17.0, 21.0)  # of a zero, in pixels
    narrowing = _uniform(rng, count, 0.83, 1.1)  # its width is divided by this
    shift_x, shift_y = (_uniform(rng, count, -1.5, 1.5) for _ in range(2))
    thickness = _uniform(rng, count, -0.28, 0.75)  # added on each side of the stroke, in pixels
    sharpness = _uniform(rng, count, 0.65, 1.0)  # slope of the edge, per pixel
    brightness = _uniform(rng, count, 0.85, 1.0)
    noise = rng.randint(0, 256, (count, 28, 28), dtype=np.uint8)

    distance = _atlas()
    images = np.empty((count, 1, 28, 28), np.uint8)
    for part in _chunks(count):
        pixels_per_pixel = float(DIGIT_HEIGHT) / height[part, None, None]  # of the atlas per pixel of the image
        x, y = _turned_grid(28, shift_x[part], shift_y[part], rotation[part])
        x = (x + shear[part, None, None] * y) * narrowing[part, None, None]
        inside = _sample(distance, labels[part], x * pixels_per_pixel, y * pixels_per_pixel) / pixels_per_pixel
        ink = _clip(0.5 + (inside + thickness[part, None, None]) * sharpness[part, None, None], 0.0, 1.0)
        # The noise scales with the ink: the background stays black, as in MNIST.
        grain = 1.0 - noise[part].astype(np.float32) * (0.12 / 255)
        images[part, 0] = _to_bytes(ink * brightness[part, None, None] * grain)
    return images, labels


def shapes(count: int, seed: int) -> tuple[Images, Labels]:
    """Ten classes of a shape in a colour, `SHAPE_CLASSES`, on a grey background, each of random place, size and angle.

    Returns images uint8 (count, 3, 32, 32) and labels int64 (count,). The classes are as balanced as `count` allows
    (equal where it is a multiple of 10) and shuffled. Raises ValueError if `count` is negative or `seed` is not in
    [0, 2**32).
    """
    rng, labels = _begin(count, seed)
    radius = _uniform(rng, count, 8.5, 13.0)  # of the circle around the shape, in pixels
    free = 15.0 - radius  # the shape never touches the border
    shift_x, shift_y = (_uniform(rng, count, -1.0, 1.0) * free for _ in range(2))
    rotation = _uniform(rng, count, -0.1763, 0.1763)  # tan of half the angle: 20 degrees at most
    shade = _uniform(rng, count, 0.08, 0.92)[:, None]
    background = _clip(shade + _uniform(rng, (count, 3), -0.03, 0.03), 0.0, 1.0)
    palette = np.array([COLOURS[name.split()[0]] for name in SHAPE_CLASSES], np.float32)
    colour = _clip(palette[labels] + _uniform(rng, (count, 3), -0.05, 0.05), 0.0, 1.0)
    noise = rng.randint(0, 256, (count, 3, 32, 32), dtype=np.uint8)

    images = np.empty((count, 3, 32, 32), np.uint8)
    for part in _chunks(count):
        x, y = _turned_grid(32, shift_x[part], shift_y[part], rotation[part])
        inside = np.empty_like(x)
        for label in range(len(SHAPE_CLASSES)):
            of_class = np.flatnonzero(labels[part] == label)
            r = radius[part][of_class, None, None]
            inside[of_class] = _inside(SHAPE_CLASSES[label].split()[1], x[of_class], y[of_class], r)
        cover = _clip(0.5 + inside, 0.0, 1.0)[:, None]
        below, above = background[part, :, None, None], colour[part, :, None, None]
        grain = noise[part].astype(np.float32) * (0.06 / 255) - 0.03
        images[part] = _to_bytes(below + (above - below) * cover + grain)
    return images, labels


def _inside(shape: str, x: Floats, y: Floats, r: Floats) -> Floats:
    """How far, in pixels, each point (x, y) lies inside a shape of outer radius r around 0; negative outside."""
    if shape == "disc":
        return 0.9 * r - np.sqrt(x * x + y * y)
    if shape == "ring":
        return 0.21 * r - np.abs(np.sqrt(x * x + y * y) - 0.74 * r)
    if shape == "square":
        return 0.7 * r - np.maximum(np.abs(x), np.abs(y))
    if shape == "triangle":  # half planes, one below and two slanted; y points down
        return 0.49 * r - np.maximum(y, np.abs(x) * 0.8660254 - y * 0.5)
    if shape == "cross":  # the farther of the two bars that hold the point
        long, wide = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.minimum(0.92 * r - long, 0.27 * r - wide)
    raise ValueError(f"There is no shape called {shape!r}.")


def _begin(count: int, seed: int) -> tuple[np.random.RandomState, Labels]:
    """The random stream of a data set, and its labels."""
    if count < 0:
        raise ValueError(f"count is {count}; it cannot be negative.")
    rng = np.random.RandomState(seed)
    return rng, rng.permutation(np.arange(count, dtype=np.int64) % 10)


def _uniform(rng: np.random.RandomState, size: int | tuple[int, ...], low: float, high: float) -> Floats:
    return (low + (high - low) * rng.random_sample(size)).astype(np.float32)


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _clip(values: Floats, low: float, high: float) -> Floats:
    return np.minimum(np.maximum(values, low), high)


def _to_bytes(values: Floats) -> Images:
    return np.floor(_clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _turned_grid(side: int, shift_x: Floats, shift_y: Floats, tan_half: Floats) -> tuple[Floats, Floats]:
    """The coordinates of every pixel seen from an object that was turned and then shifted: two arrays (n, side, side).

    The angle comes as the tangent of its half, from which its sine and cosine follow without the C library's.
    """
    square = tan_half * tan_half
    cosine = ((1.0 - square) / (1.0 + square))[:, None, None]
    sine = (2.0 * tan_half / (1.0 + square))[:, None, None]
    axis = np.arange(side, dtype=np.float32) - (side - 1) / 2
    x = (axis[None, :] - shift_x[:, None])[:, None, :]
    y = (axis[None, :] - shift_y[:, None])[:, :, None]
    return cosine * x + sine * y, cosine * y - sine * x


def _sample(cells: Floats, labels: Labels, x: Floats, y: Floats) -> Floats:
    """Values (n, h, w) of the cells (10, CELL, CELL) of `labels` between their pixels, x and y counted from the centre.

    Bilinear. Outside its cell a digit goes on as on the cell's border.
    """
    x = _clip(x + (CELL - 1) / 2, 0.0, CELL - 1.001)
    y = _clip(y + (CELL - 1) / 2, 0.0, CELL - 1.001)
    column, row = x.astype(np.intp), y.astype(np.intp)
    x, y = x - column.astype(np.float32), y - row.astype(np.float32)
    index = labels[:, None, None] * (CELL * CELL) + row * CELL + column
    flat = cells.reshape(-1)
    top, bottom = flat.take(index), flat.take(index + CELL)
    top += (flat.take(index + 1) - top) * x
    bottom += (flat.take(index + (CELL + 1)) - bottom) * x
    return top + (bottom - top) * y


@cache
def _atlas() -> Floats:
    """The distances (10, CELL, CELL) from the outlines of the digits, in pixels of the atlas; positive inside."""
    with Image.open(ATLAS) as image:
        grey = np.asarray(image.convert("L"), np.float32)
    return np.ascontiguousarray((grey.reshape(CELL, 10, CELL).swapaxes(0, 1) - 128.0) / float(GREY_PER_PIXEL))


def draw_atlas() -> Images:
    """Draw the digits with Pillow's own font: an atlas (CELL, 10 CELL) of grey levels.

    A grey level is 128 + GREY_PER_PIXEL * d, where d is how far a pixel lies inside the outline: from distances,
    strokes of any thickness are drawn with smooth edges. What FreeType draws differs a little from version to
    version, so the atlas is kept in the repository. Raises ImportError if Pillow was built without FreeType.
    """
    zero = ImageFont.load_default(1000).getbbox("0")
    font = ImageFont.load_default(1000 * DIGIT_HEIGHT * FINE / (zero[3] - zero[1]))
    return np.concatenate([_draw_digit(font, digit) for digit in GLYPH_CLASSES], axis=1)


def _draw_digit(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, digit: str) -> Images:
    """One cell (CELL, CELL) of the atlas, the digit in its middle."""
    left, top, right, bottom = font.getbbox(digit)
    side = CELL * FINE
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).text(((side - left - right) / 2, (side - top - bottom) / 2), digit, fill=255, font=font)
    ink = np.asarray(canvas) > 127
    core = ink.copy()  # the pixels of the ink with ink on all four sides; the rest of the ink is its outline
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        core &= np.roll(ink, shift, axis)
    outline = np.argwhere(ink & ~core).astype(np.float32)

    middle = np.arange(CELL) * FINE + FINE // 2
    points = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    nearest = np.concatenate(
        [np.sqrt(((rows - outline) ** 2).sum(axis=2)).min(axis=1) for rows in np.split(points, CELL)]
    )
    distance = np.where(ink[np.ix_(middle, middle)], 1.0, -1.0) * nearest.reshape(CELL, CELL) / FINE
    return np.floor(np.clip(128.5 + GREY_PER_PIXEL * distance, 0, 255)).astype(np.uint8)


if __name__ == "__main__":
    Image.fromarray(draw_atlas()).save(ATLAS, optimize=True)
    print(f"Wrote {ATLAS}.")
