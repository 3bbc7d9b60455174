"""The report: every run is made, every number and picture is on the page, a stopped one goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from grader.assignment import SOLUTION
from grader.figures.measure import as_rgb32, rows
from grader.figures.page import make_page, spread, stack_files, steps_of
from grader.figures.plan import SCHEDULES, SECONDS, carry_out, plan

SOURCES = {"mnist": "glyphs", "cifar10": "shapes"}


def test_the_page_has_every_picture_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few images of the embedded sets, and in this process, so that torch is imported once."""
    from grader.figures.measure import solution

    whole = solution("dataset").load
    few = lambda name, train=True: whole(name, train).first(256)  # noqa: E731
    for module in ("dataset", "recipes"):
        monkeypatch.setattr(solution(module), "load", few)
    planned = plan(SCHEDULES["smoke"], SOURCES, tmp_path)
    for run in planned:
        options = solution("train").parse([*run.arguments, "--run-dir", str(tmp_path / run.name)])
        solution("recipes").train(options)
        (tmp_path / run.name / SECONDS).write_text("90\n", "utf-8")
    shown = plan(SCHEDULES["smoke"], {"mnist": "mnist", "cifar10": "cifar10"}, Path("runs"))
    page = make_page(shown, tmp_path, tmp_path / "report", SOURCES, SCHEDULES["smoke"], "A remark.")
    text = page.read_text("utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert {path.name for path in page.parent.glob("*.png")} == set(pictures)
    assert len(pictures) == 2 * 3 + 6 + 2 + 5
    assert text.count("| 1.5 |") == len(planned)
    assert "nan" not in text
    assert str(tmp_path) not in text
    assert "python train.py ldm --dataset mnist --vae runs/vae-mnist-kl-1e-6" in text


def test_a_run_that_is_done_is_not_made_again(tmp_path: Path) -> None:
    done = plan(SCHEDULES["smoke"], SOURCES, tmp_path)[0]
    (tmp_path / done.name).mkdir()
    (tmp_path / done.name / SECONDS).write_text("1\n", "utf-8")
    carry_out(done, tmp_path)
    assert [path.name for path in (tmp_path / done.name).iterdir()] == [SECONDS]


def test_the_committed_page_is_whole() -> None:
    text = (SOLUTION / "report" / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures
    assert {path.name for path in (SOLUTION / "report").glob("*.png")} == set(pictures)


def test_pieces(tmp_path: Path) -> None:
    paths = [tmp_path / f"samples-{n:06}.png" for n in (10, 20, 30, 40, 50)]
    for path in paths:
        Image.new("L", (6, 4), 100).save(path)
    assert stack_files(paths[:3]).size == (6, 3 * 4 + 2 * 8)
    assert steps_of(spread(paths, 3)) == "10, 30, 50"
    assert spread(paths[:2], 3) == paths[:2]
    assert rows(tmp_path / "none.csv") == []
    assert as_rgb32(torch.ones(2, 1, 28, 28)).shape == (2, 3, 32, 32)
    assert pytest.approx(float(as_rgb32(torch.ones(1, 1, 28, 28)).mean())) == (28 / 32) ** 2
