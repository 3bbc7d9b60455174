"""Calibration: what a ledger keeps, that stated rates are those that are spent, and the report."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grader.bank import load_bank
from grader.bench.calibrate import TWO_THREADS, Call, Found, Job, grade_all, grade_right, grade_wrong, plan, render
from grader.checks import noise
from grader.checks.draw import Draw
from grader.checks.expect import expect
from grader.checks.margins import ATOL, RTOL, Ledger, close, kept_in, within
from grader.checks.noise import SHARE, expect_standard_normal, rated, used_between
from grader.engine.launcher import ZygoteLauncher
from grader.grading import in_order, load_checks, session
from grader.oracle.statistics import mean_bound
from grader.submission import Submission

from .conftest import EXACT, QUESTIONS, filled

DEFAULT = "1e-05 + 1e-04 of the value"
STATED = re.compile(r"\n    False-failure rate: at most (\S+), at ([\d,]+) numbers\.\n")


# ---------------------------------------------------------------- ledgers


def test_half_of_the_tolerance_is_a_half() -> None:
    right = torch.tensor([2.0, -4.0], dtype=torch.float64)
    ledger = Ledger()
    with kept_in(ledger):
        assert close(right + 0.5 * (ATOL + RTOL * right.abs()), right)
    assert ledger == {DEFAULT: pytest.approx(0.5)}


def test_the_largest_share_stays_and_what_does_not_agree_is_not_kept() -> None:
    one, ledger = torch.ones(3, dtype=torch.float64), Ledger()
    with kept_in(ledger):
        assert close(one + 0.5e-3, one, 0.0, 1e-3)
        assert close(one + 0.1e-3, one, 0.0, 1e-3)
        assert not close(one + 1.1e-3, one, 0.0, 1e-3)
        assert not close(one, torch.ones(2))
        assert not close(one * math.nan, one)
        assert not within("distance", 1.0)
    assert ledger == {"1e-03 + 0e+00 of the value": pytest.approx(0.5), "distance": 1.0}


def test_nothing_is_kept_outside_a_check() -> None:
    ledger = Ledger()
    with kept_in(ledger):
        pass
    assert close(torch.zeros(1), torch.zeros(1))
    assert ledger == {}


def test_a_check_has_the_ledger_of_its_draw() -> None:
    draw = Draw(0, "test")
    assert draw.within("bound", 0.25)
    assert not draw.within("bound", math.nan)
    with kept_in(draw.margins):
        assert within("distance", 0.75)
    assert draw.margins["distance"] == 0.75


def test_two_sided_bounds() -> None:
    assert used_between(0.5, 0.75, 3.0) == 0.5
    assert used_between(0.5, 2.0, 3.0) == 0.5
    assert used_between(-math.inf, 0.0, 3.0) == 0.0
    assert used_between(0.0, 4.0, 3.0) == 1.5


def test_noise_says_what_its_tolerance_was_bought_at() -> None:
    x = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound, ledger = mean_bound(x.numel(), SHARE), Ledger()
    with kept_in(ledger):
        expect_standard_normal(x - x.mean() + bound / 2, {"image": (0,)}, "The noise")
    assert ledger["mean of 65,536 numbers, at a rate of 1.4e-11"] == pytest.approx(0.5)
    assert len(ledger) == 8
    assert all(used < 1 for used in ledger.values())


def test_an_accepted_value_is_kept_by_how_close_it_is() -> None:
    from .test_checks import EXPECTED, RIGHT

    ledger = Ledger()
    with kept_in(ledger):
        expect(RIGHT.double() + 0.25 * (ATOL + RTOL * RIGHT.abs()), EXPECTED)
    assert ledger == {DEFAULT: pytest.approx(0.25, abs=0.01)}


# ---------------------------------------------------------------- rates


def test_checks_with_chance_in_them_state_the_rate_that_they_spend(
    solution: Submission, launcher: ZygoteLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statistic on the way of a right submission is counted with its rate, and with the size of its sample."""
    load_checks()
    rates: list[float] = []
    sizes: list[int] = []

    def counted(statistic: str, count: int, rate: float) -> str:
        rates.append(rate)
        sizes.append(count)
        return rated(statistic, count, rate)

    def standard(*sums: float, judge=noise._standard) -> bool:
        rates.append(2 * SHARE)  # a mean and a variance
        return judge(*sums)

    monkeypatch.setattr(noise, "_standard", standard)
    for name, module in list(sys.modules.items()):
        if name.startswith("grader.checks.") and hasattr(module, "rated"):
            monkeypatch.setattr(module, "rated", counted)
    found = {}
    with session(solution, EXACT, launcher, 0) as current:
        for check in in_order(EXACT):
            assert current.run(check).status == "passed"
            stated = STATED.search(check.function.__doc__ or "")
            assert bool(stated) == bool(rates), check.id
            if stated:
                assert sum(rates) <= float(stated[1]) <= 1e-9, check.id
                assert max(sizes) == int(stated[2].replace(",", "")), check.id
                found[check.id] = float(stated[1])
            rates.clear()
            sizes.clear()
    assert len(found) == 14


# ---------------------------------------------------------------- the report


def test_every_check_has_a_margin_or_is_listed_as_exact(solution: Submission, launcher: ZygoteLauncher) -> None:
    found = grade_right(Job("solution", solution, tuple(EXACT), range(1)), launcher)
    assert found.lost == []
    assert all(0 <= call.used < 1 and call.by == "solution, seed 0" for call in found.calls.values())
    report = render(found, EXACT, "", 0)
    exact = report.split("(shapes, orders, labels): ")[1].split(".\n")[0].split(", ")
    listed = re.findall(r"^\| (\d\.\S+) \|", report, flags=re.MULTILINE)
    assert sorted({*exact, *listed}) == sorted(check.id for check in in_order(EXACT))
    assert not set(exact) & set(listed)


def test_the_report() -> None:
    found = Found()
    kind = "2.2b/generator_gradient", DEFAULT
    found.add(Found({kind: Call(0.25, "solution, seed 0")}, runs=1))
    found.add(Found({kind: Call(0.5, "other, seed 3")}, runs=2, lost=["other, seed 4: why"]))
    found.add(Found(caught=Counter({"sure": 10, "lucky": 9})))
    report = render(found, [QUESTIONS["2.2b"]], "How it was made.", 10)
    assert "# Calibration\n\nHow it was made.\n\nRight submissions were graded 3 times and failed 1 checks." in report
    assert "- other, seed 4: why\n" in report
    assert f"| 2.2b/generator_gradient | {DEFAULT} | 0.5 | other, seed 3 |\n" in report
    assert "labels): 2.2b/generator_single_logits, 2.2b/generator_batches_and_patches" in report
    assert (
        "2 wrong fillings were graded at 10 seeds each; 1 were missed at one or more.\n- lucky: caught at 9 of 10"
        in report
    )


def test_what_is_graded_covers_every_seed_and_filling_once() -> None:
    seeds = defaultdict(list)
    for job in plan([QUESTIONS["2.2b"]], 103, 7):
        seeds[job.name, job.right] += job.seeds
        assert all((seed % TWO_THREADS == 1) == (job.threads == 2) for seed in job.seeds if job.right)
    assert all(sorted(found) == list(range(103 if right else 7)) for (_, right), found in seeds.items())
    fillings = [str(filling) for filling in load_bank() if filling.question == "2.2b"]
    assert [name for name, _ in seeds] == ["solution", *fillings]


def test_wrong_submissions_are_counted_by_the_seeds_that_catch_them(
    handout: Submission, solution: Submission, launcher: ZygoteLauncher
) -> None:
    question = (QUESTIONS["2.2b"],)
    wrong = filled(handout, "2.2b", "loss = fake.mean()")
    assert grade_wrong(Job("wrong", wrong, question, range(2)), launcher).caught == {"wrong": 2}
    assert grade_wrong(Job("right", solution, question, range(2)), launcher).caught == {"right": 0}
    assert (
        "2.2b/generator_single_logits wrong: " in grade_right(Job("wrong", wrong, question, range(1)), launcher).lost[0]
    )


def test_a_calibration_that_was_ended_goes_on(
    solution: Submission, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("grader.bench.calibrate.REPOSITORY", tmp_path)
    jobs = [Job("solution", solution, (QUESTIONS["2.2b"],), range(2))]
    first, seconds = grade_all(jobs, "cpu", 1)
    assert (first.runs, first.lost) == (2, [])
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(kept.read_text().replace(str(seconds), "1000.0"))
    assert grade_all(jobs, "cpu", 1) == (first, 1000.0)
    grade_all([replace(jobs[0], seeds=range(1))], "cpu", 1)
    assert len(list(tmp_path.rglob("*.json"))) == 2
