"""The report: every run is made, every number and picture is on the page, a stopped one goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from grader.assignment import SOLUTION
from grader.figures import part_3
from grader.figures import plan as figures_plan
from grader.figures.measure import Judge, as_rgb32, rows, solution
from grader.figures.page import make_page, spread, stack_files, steps_of
from grader.figures.plan import SCHEDULES, SECONDS, Planned, autoencoder, carry_out, plan, plan_part_3

SOURCES = {"mnist": "glyphs", "cifar10": "shapes"}
SMOKE, NAMES = SCHEDULES["smoke"], {"mnist": "mnist", "cifar10": "cifar10"}


@pytest.fixture(scope="module")
def judges() -> Iterator[dict[str, Judge]]:
    """Of a few images of the embedded sets."""
    whole = solution("dataset").load
    with pytest.MonkeyPatch.context() as patch:
        for module in ("dataset", "recipes"):
            patch.setattr(solution(module), "load", lambda name, train=True: whole(name, train).first(256))
        yield {name: Judge(source, SMOKE.samples) for name, source in SOURCES.items()}


def train(run: Planned, folder: Path, *more: str) -> None:
    """Make a run in this process, so that torch is imported once."""
    options = solution("train").parse([*run.arguments, *more, "--run-dir", str(folder / run.name)])
    solution("recipes").train(options)
    (folder / run.name / SECONDS).write_text("90\n", "utf-8")


def pictures_on(page: Path) -> list[str]:
    return re.findall(r"!\[.*?\]\((.*?)\)", page.read_text("utf-8"))


def test_the_page_has_every_picture_and_number(tmp_path: Path, judges: dict[str, Judge]) -> None:
    planned = plan(SMOKE, SOURCES, tmp_path)
    for run in planned:
        train(run, tmp_path)
    page = make_page(plan(SMOKE, NAMES, Path("runs")), tmp_path, tmp_path / "report", judges, "A remark.")
    text, pictures = page.read_text("utf-8"), pictures_on(page)
    assert {path.name for path in page.parent.glob("*.png")} == set(pictures)
    assert len(pictures) == 2 * 3 + 6 + 2 + 5
    assert text.count("| 1.5 |") == len(planned)
    assert "nan" not in text
    assert str(tmp_path) not in text
    assert "python train.py ldm --dataset mnist --vae runs/vae-mnist-kl-1e-6" in text


def test_the_page_of_part_3_compares_what_was_measured(
    tmp_path: Path, judges: dict[str, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one data set, with schedules of ten steps, so that the longest sampler is short."""
    for module in (figures_plan, part_3):
        monkeypatch.setattr(module, "DATASETS", ("mnist",))
    for name, value in {"DDIM_STEPS": (2, 4), "FLOW_STEPS": (1, 2), "FEW": 4, "FEWER": 2, "BOUNDED": 4}.items():
        monkeypatch.setattr(part_3, name, value)
    for run in plan(SMOKE, SOURCES, tmp_path):
        if run.name == autoencoder("mnist"):
            train(run, tmp_path)
    for run in plan_part_3(SMOKE, SOURCES, tmp_path):
        others = () if "cosine" in run.arguments else ("--schedule", "linear")
        train(run, tmp_path, *(() if "flow" in run.arguments else ("--num-timesteps", "10", *others)))
    shown = plan_part_3(SMOKE, NAMES, Path("runs"))
    page = part_3.make_page(shown, tmp_path, tmp_path / "report", judges, "A remark.")
    text = page.read_text("utf-8")
    assert {path.name for path in page.parent.glob("*.png")} == set(pictures_on(page))
    assert len(pictures_on(page)) == 3
    assert text.count("| 1.5 |") == len(shown) == 4
    for row in ("DDPM, 1000 steps | 10 |", "DDIM, 4 steps | 4 |"):
        assert [text.count(f"{variant}, {row}") for variant in part_3.DIFFUSIONS] == [1, 1, 1], row
    for row in ("flow, Heun, 2 steps | 3 |", "noise, 7.5 | 8 |", "velocity, 7.5 | 8 |"):
        assert text.count(row) == 1, row
    assert len(re.findall(r"\| (yes|no)(, within what draws differ by)? \|", text)) == 3 + 2 * 2 + 2
    assert "nan" not in text
    assert "python train.py ldm --dataset mnist --vae runs/vae-mnist-kl-1e-6 --schedule cosine" in text
    measured = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/quality.json")}
    assert len(measured) == 4
    part_3.make_page(shown, tmp_path, tmp_path / "report", judges, "A remark.")
    assert page.read_text("utf-8") == text
    assert measured == {path: path.stat().st_mtime_ns for path in measured}


def test_a_run_that_is_done_is_not_made_again(tmp_path: Path) -> None:
    done = plan(SCHEDULES["smoke"], SOURCES, tmp_path)[0]
    (tmp_path / done.name).mkdir()
    (tmp_path / done.name / SECONDS).write_text("1\n", "utf-8")
    carry_out(done, tmp_path)
    assert [path.name for path in (tmp_path / done.name).iterdir()] == [SECONDS]


def test_the_committed_page_is_whole() -> None:
    pictures = [name for page in (SOLUTION / "report").glob("*.md") for name in pictures_on(page)]
    assert pictures
    assert {path.name for path in (SOLUTION / "report").glob("*.png")} == set(pictures)


def test_what_holds_is_said_with_how_far_draws_differ() -> None:
    assert part_3.verdict([1.0, 1.1], [1.2, 1.3], 1.0) == "yes"
    assert part_3.verdict([1.0, 1.25], [1.2, 1.3], 1.0) == "yes, within what draws differ by"
    assert part_3.verdict([1.2, 1.4], [1.1, 1.3], 1.0) == "no, within what draws differ by"
    assert part_3.verdict([1.2, 1.4], [1.1], 1.15) == "no, within what draws differ by"
    assert part_3.verdict([1.3, 1.4], [1.0, 1.1], 1.15) == "no"
    assert part_3.spread_of([10.0, 20.04]) == "15.0 (10.0 to 20.0)"
    assert part_3.spread_of([10.0]) == "10.0"


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
