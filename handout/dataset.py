"""Data sets as tensors of bytes, all in memory: batches are slices. Given: there is nothing to fill in here.

Two small sets are drawn by ../data/embedded.py and need no download: `glyphs` (grey 28x28 digits, like MNIST) and
`shapes` (coloured 32x32 shapes). `mnist` and `cifar10` come through torchvision, into the folder that the environment
variable DATA_DIR names (../data if it names none). `folder:PATH` reads pictures from folders named after their class.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

DATA = Path(__file__).resolve().parent.parent / "data"
EMBEDDED_SIZES = {True: (5000, 0), False: (1000, 1)}  # for training and for testing: number of images, seed
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class DatasetError(Exception):
    """There is no such data set; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        pixels: (N, C, H, W) bytes.
        labels: (N,) integers in [0, len(classes)).
        classes: names of the labels.
    """

    pixels: Tensor
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> "Images":
        """The first `count` images; all of them where there are fewer."""
        return replace(self, pixels=self.pixels[:count], labels=self.labels[:count])

    def spread(self, count: int) -> "Images":
        """`count` images from all over the set."""
        index = torch.arange(count) * len(self) // count
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device) -> "Images":
        """The same on a device; images that would fill more than half of its free memory stay where they are."""
        if device.type == "cuda" and self.pixels.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


def unit(pixels: Tensor) -> Tensor:
    """Bytes (B, C, H, W) as numbers in [0, 1], for Part 1."""
    return pixels.float() / 255


def signed(pixels: Tensor) -> Tensor:
    """Bytes (B, C, H, W) as numbers in [-1, 1], for Part 2: (B, 3, 32, 32), padded with black, grey repeated."""
    margin = (32 - pixels.shape[-1]) // 2
    return F.pad(pixels, [margin] * 4).expand(-1, 3, -1, -1).float() / 127.5 - 1


def batches(count: int, batch_size: int, seed: int, first: int, last: int) -> Iterator[Tensor]:
    """Indices (batch_size,) of the images of every step from `first` up to `last`, which is left out.

    Every epoch goes through all `count` images in a new order and drops what does not fill a batch. The order follows
    from `seed` and the epoch alone, so that training can go on from any step.
    """
    steps = count // batch_size
    if steps == 0:
        raise DatasetError(f"There are {count} images, fewer than a batch of {batch_size}; make --batch-size smaller.")
    for epoch in range(first // steps, -(-last // steps)):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        for step in range(max(first - epoch * steps, 0), min(last - epoch * steps, steps)):
            yield order[step * batch_size : (step + 1) * batch_size]


def load(name: str, train: bool = True) -> Images:
    """The images for training, or those held out for testing. Raises DatasetError if they are not to be had."""
    kind, _, path = name.partition(":")
    if kind == "folder":
        return _folder(Path(path), train)
    if kind in ("glyphs", "shapes"):
        return _embedded(kind, train)
    if kind in ("mnist", "cifar10"):
        return _torchvision(kind, train)
    raise DatasetError(f"There is no data set {name}; there are shapes, glyphs, mnist, cifar10 and folder:PATH.")


def _embedded(name: str, train: bool) -> Images:
    """A set that is drawn, not downloaded."""
    script = DATA / "embedded.py"
    if not script.is_file():
        raise DatasetError(f"{script} is missing; keep the folder data/ of the assignment beside this one.")
    spec = importlib.util.spec_from_file_location("embedded", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pixels, labels = getattr(module, name)(*EMBEDDED_SIZES[train])
    classes = {"glyphs": module.GLYPH_CLASSES, "shapes": module.SHAPE_CLASSES}[name]
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), list(classes))


def _torchvision(name: str, train: bool) -> Images:
    """MNIST or CIFAR-10: read where it lies, downloaded where it does not."""
    from torchvision import datasets

    root = Path(os.environ.get("DATA_DIR", DATA))
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    try:
        data = kind(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # torchvision wraps what the network says in either
        raise DatasetError(
            f"{name} is not in {root} and could not be downloaded; connect to the internet once, set "
            "DATA_DIR to a folder that holds it, or use --dataset shapes or glyphs, which need no download."
        ) from error
    pixels = torch.as_tensor(data.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.as_tensor(data.targets), list(data.classes))


def _folder(root: Path, train: bool) -> Images:
    """Pictures under root/train/<class>/ and root/test/<class>/, or root/<class>/ with every tenth held out."""
    has_splits = (root / "train").is_dir()
    classes = list(_pictures_by_class(root / "train" if has_splits else root))
    base = (root / "train" if train else root / "test") if has_splits else root
    by_class = _pictures_by_class(base)
    if unknown := sorted(by_class.keys() - set(classes)):
        raise DatasetError(
            f"{base} has the class {unknown[0]}, which {root / 'train'} does not have; rename the folder."
        )
    found = [(path, classes.index(name)) for name, paths in by_class.items() for path in paths]
    if not has_splits:
        found = [entry for n, entry in enumerate(found) if (n % 10 > 0) == train]
    read = [(_picture(path), label, path) for path, label in found]
    if skipped := [path for pixels, _, path in read if pixels is None]:
        print(f"{len(skipped)} files of {base} cannot be read as pictures, {skipped[0]} is one.", file=sys.stderr)
    kept = [(pixels, label) for pixels, label, _ in read if pixels is not None]
    if not kept:
        raise DatasetError(
            f"{base} holds no pictures{' to test on' if not train else ''}; it needs folders that are named after "
            "classes, with ten pictures or more in them."
        )
    return Images(torch.stack([pixels for pixels, _ in kept]), torch.tensor([label for _, label in kept]), classes)


def _pictures_by_class(base: Path) -> dict[str, list[Path]]:
    """The pictures in the folders of `base`, by the name of the folder; hidden files and folders do not count."""
    folders = sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    found = {
        folder.name: sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        for folder in folders
        if not folder.name.startswith(".")
    }
    return {name: paths for name, paths in found.items() if paths}


def _picture(path: Path) -> Tensor | None:
    """A picture as bytes (3, 32, 32), scaled and cropped to fill the square; None if the file cannot be read as one."""
    import numpy
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            square = ImageOps.fit(picture.convert("RGB"), (32, 32))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for damaged files
        return None
    return torch.from_numpy(numpy.array(square)).permute(2, 0, 1)
