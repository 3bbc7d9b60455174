"""Pictures: grids of images, files, and the map of a two-dimensional latent space."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor


def latent_grid(decode: Callable[[Tensor], Tensor], rows: int = 20, bound: float = 3.0) -> Tensor:
    """Decode a square of a latent space of two dimensions into one picture, laid out like a plot.

    The first latent variable grows from left to right and the second from bottom to top, each over `rows` evenly
    spaced values from -bound to bound, both included.

    Args:
        decode: z (B, 2), float32 on the CPU -> images (B, C, H, W), which go into the picture as they are.
        rows: number of images along each side.
        bound: largest value of a latent variable.

    Returns:
        (C, rows * H, rows * W).
    """
    ############################ Your code here ############################
    # TODO(1.5): decode the points of the square, and put the images together. Leave the picture in `picture`.
    ########################################################################
    raise NotImplementedError("1.5")
    ########################################################################
    return picture


def image_grid(images: Tensor, columns: int = 8) -> Tensor:
    """Put images (B, C, H, W) in rows of `columns`: (C, ceil(B / columns) * H, columns * W), black where none is."""
    b, c, h, w = images.shape
    rows = -(-b // columns)
    padded = torch.cat([images, images.new_zeros(rows * columns - b, c, h, w)])
    return padded.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)


def to_pixels(image: Tensor) -> Tensor:
    """An image (C, H, W) in [0, 1] as bytes (H, W, C) on the CPU; what lies outside is clamped."""
    return (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu()


def save_image(image: Tensor, path: Path, scale: int = 1) -> None:
    """Write an image (C, H, W) in [0, 1], C 1 or 3, to a file, every pixel `scale` times as wide and high."""
    from PIL import Image

    pixels = to_pixels(image).repeat_interleave(scale, dim=0).repeat_interleave(scale, dim=1)
    Image.fromarray(pixels.squeeze(2).numpy()).save(path)


def save_animation(frames: Sequence[Tensor], path: Path, milliseconds: int = 60) -> None:
    """Write images (C, H, W) in [0, 1] to an animated GIF that rests on the last one."""
    from PIL import Image

    pictures = [Image.fromarray(to_pixels(frame).squeeze(2).numpy()) for frame in frames]
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
