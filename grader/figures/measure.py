"""Numbers of finished runs: what training wrote down, and how good new samples are."""

from __future__ import annotations

import csv
import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from grader.assignment import SOLUTION
from grader.oracle.quality import Classifier, Quality, quality, train_classifier

CLASSIFIER_IMAGES, CLASSIFIER_EPOCHS = 20_000, 4


@cache
def solution(name: str) -> ModuleType:
    """A module of the solution, under the name students import it by."""
    if str(SOLUTION) not in sys.path:
        sys.path.insert(0, str(SOLUTION))
    return importlib.import_module(name)


def rows(path: Path) -> list[dict[str, float]]:
    """A file of numbers that training wrote, row by row; [] where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def as_rgb32(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] as (B, 3, 32, 32): padded with black, grey repeated."""
    margin = (32 - images.shape[-1]) // 2
    return F.pad(images, [margin] * 4).expand(-1, 3, -1, -1).clamp(0, 1)


@torch.no_grad()
def pictures(run: Path, source: str) -> dict[str, Tensor]:
    """What a finished run shows of ten held-out images: pictures (C, H, W) in [0, 1] by name."""
    _, training = solution("recipes").load_training(run)
    some = solution("dataset").load(source, train=False).spread(10)
    solution("devices").seed_noise(1)
    return training.pictures(training.prepare(some.pixels), some.labels)


class Judge:
    """Judges samples of one data set by a small classifier, trained on its training images.

    Args:
        source: what to give to --dataset.
        count: number of samples, and of real images they are held against.
    """

    def __init__(self, source: str, count: int):
        self.source = source
        data = solution("dataset")
        images, held_out = data.load(source), data.load(source, train=False)
        self.count = min(count, len(held_out) // 2)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:CLASSIFIER_IMAGES]
        pixels = (as_rgb32(images.pixels[order].float() / 255) * 255).round().byte()
        classes = len(images.classes)
        self.classifier: Classifier = train_classifier(pixels, images.labels[order], classes, CLASSIFIER_EPOCHS, 0)
        shuffled = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(1))
        real = as_rgb32(held_out.pixels[shuffled[: 2 * self.count]].float() / 255)
        self.real, self.more_real = real.split(self.count)
        with torch.no_grad():
            found = self.classifier(real).argmax(1)
        self.accuracy = float((found == held_out.labels[shuffled[: 2 * self.count]]).double().mean())

    @torch.no_grad()
    def __call__(self, run: Path) -> Quality:
        """How good samples of a run are, all classes in turn. Raises RunError if it has no checkpoint."""
        config, training = solution("recipes").load_training(run)
        solution("devices").seed_noise(0)
        labels = torch.arange(self.count) % len(config["classes"])
        return self.judge(solution("sample").sample(training, labels))

    @torch.no_grad()
    def judge(self, samples: Tensor) -> Quality:
        """How good samples (`count`, C, H, W) in [0, 1] are."""
        return quality(self.classifier, self.real, as_rgb32(samples), self.more_real)
