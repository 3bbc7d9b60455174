"""What checks have to show, as pictures: on the page of a submission, and small on the page of a class."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from grader.checks.draw import Exhibits

COLUMNS, HALF, GAP = 10, 5, 1  # images side by side; in each of two halves, as phones are narrow; pixels between them
HALF_WIDTH = 346  # pixels on the screen
CURVE_WIDTH, CURVE_HEIGHT, CURVE_MARGIN = 100, 36, 3
STRIP = 8  # images
COLOURS = 64  # of a strip, so that a page has room for those of 500 students


def to_bytes(images: Tensor) -> Tensor:
    """Images as bytes; floating-point numbers outside [0, 1] are clamped, and those that are none are black."""
    if images.dtype == torch.uint8:
        return images
    return (images.double().nan_to_num(0).clamp(0, 1) * 255).round().byte()


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images (N, C, H, W), C 1 or 3, in rows, with transparent gaps."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    sheet = Image.new("RGBA", (columns * (w + GAP) - GAP, rows * (h + GAP) - GAP))
    for at, pixels in enumerate(to_bytes(images).expand(n, 3, h, w).permute(0, 2, 3, 1)):
        place = (at % columns * (w + GAP), at // columns * (h + GAP))
        sheet.paste(Image.fromarray(pixels.contiguous().numpy()), place)
    return sheet


def picture(images: Tensor, title: str) -> Markup:
    """Images in rows of COLUMNS as elements, one for the left half of the rows and one for the right."""
    columns = torch.arange(len(images)) % COLUMNS
    return Markup("").join(
        half_picture(images[columns // HALF == half], f"{title}: {name} half")
        for half, name in enumerate(("left", "right"))
        if bool((columns // HALF == half).any())
    )


def half_picture(images: Tensor, alternative: str) -> Markup:
    """Images in rows of HALF as an element, with a PNG file inside it."""
    sheet = grid(images, min(HALF, len(images)))
    scale = HALF_WIDTH / sheet.width
    width, height = round(scale * sheet.width), round(scale * sheet.height)
    element = Markup('<img src="{}" width="{}" height="{}" alt="{}">')
    return element.format(address(png(sheet)), width, height, alternative)


def png(image: Image.Image) -> bytes:
    """An image as a PNG file: the same bytes for the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def address(file: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def curve(values: list[float], title: str) -> Markup:
    """Finite numbers as a curve from left to right, drawn between the least and the greatest."""
    low, high = min(values), max(values)
    across = (CURVE_WIDTH - 2 * CURVE_MARGIN) / max(len(values) - 1, 1)
    up = CURVE_HEIGHT - 2 * CURVE_MARGIN
    places = []
    for at, value in enumerate(values):
        share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5  # halves do not overflow
        places.append(f"{CURVE_MARGIN + at * across:.2f},{CURVE_MARGIN + (1 - share) * up:.2f}")
    return Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title><polyline points="{}"/></svg>').format(
        CURVE_WIDTH, CURVE_HEIGHT, f"{title}: {', '.join(f'{value:.4g}' for value in values)}", " ".join(places)
    )


# ---------------------------------------------------------------- strips, which are kept


@dataclass(frozen=True)
class Strip:
    """The first images of an exhibit, side by side.

    Attributes:
        check: the id of the check that shows it.
        title: of the exhibit.
        count: of images, all of the same width.
        png: a file, with COLOURS colours at most.
    """

    check: str
    title: str
    count: int
    png: bytes


def strips(exhibits: Mapping[str, Exhibits]) -> list[Strip]:
    """The images of exhibits, by the id of a check, as strips."""
    return [
        Strip(check, title, min(STRIP, len(images)), png(strip(images)))
        for check, shown in exhibits.items()
        for title, images in shown.images.items()
        if images.numel()
    ]


def strip(images: Tensor) -> Image.Image:
    """The first of images (N, C, H, W), C 1 or 3, at their own size and without gaps."""
    pixels = to_bytes(images[:STRIP]).permute(2, 0, 3, 1).flatten(1, 2).contiguous().numpy()
    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels).quantize(COLOURS)


def exhibits_of(kept: Iterable[Strip]) -> dict[str, Exhibits]:
    """What strips show, by the id of a check: bytes (N, 3, H, W)."""
    found: dict[str, Exhibits] = {}
    for each in kept:
        with Image.open(io.BytesIO(each.png)) as image:
            width, height = image.size
            pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        parts = pixels.view(height, each.count, width // each.count, 3).permute(1, 3, 0, 2)
        found.setdefault(each.check, Exhibits()).images[each.title] = parts.contiguous()
    return found
