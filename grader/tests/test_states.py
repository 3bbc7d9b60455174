"""What student code gives back by name, and what callbacks keep: judged at once, and bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from grader.checks.draw import Draw
from grader.checks.states import expect_state
from grader.checks.test_2_3_diffusion import Recorder
from grader.engine.launcher import Launcher
from grader.engine.student import Failure, Remote, Student, Unusable, of
from grader.oracle.diffusion import GaussianData, Schedule

SHAPES: dict[str, tuple[int, ...]] = {"weight": (2, 3), "steps": ()}
RIGHT = {"weight": torch.ones(2, 3), "steps": torch.tensor(4)}


def test_a_name_of_student_code_is_a_path_in_the_worker_and_nothing_else() -> None:
    module = Remote(Student(Path("nowhere"), cast(Launcher, None)), "model", ("VAE",))
    found = of(module, "_student._launcher.__class__")
    assert type(found) is Remote
    assert repr(found) == "model.VAE._student._launcher.__class__"


def test_a_state_is_taken_as_far_as_it_is_needed() -> None:
    assert expect_state(RIGHT | {"more": Unusable("a list")}, "The state", SHAPES) == RIGHT


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "The state is not a dict of tensors by name."),
        ({}, "The state is not a dict of tensors by name."),
        ({"weight": torch.ones(2, 3)}, "The state: steps is missing."),
        (RIGHT | {"weight": Unusable("a list")}, "The state: weight is not a tensor."),
        (RIGHT | {"weight": 1.0}, "The state: weight is not a tensor."),
        (RIGHT | {"weight": torch.ones(3, 2)}, r"The state: weight has the shape \(3, 2\); \(2, 3\) is expected."),
        (RIGHT | {"weight": torch.full((2, 3), torch.nan)}, "The state: weight is not finite."),
    ],
)
def test_another_state_is_refused_in_a_sentence(value: Any, message: str) -> None:
    with pytest.raises(Failure, match=message) as failed:
        expect_state(value, "The state", SHAPES)
    assert failed.value.status == "wrong"


def test_a_recorder_keeps_no_labels_and_ends_an_endless_loop() -> None:
    shape, y = (2, 1, 1, 1), torch.tensor([3, 4])
    recorder = Recorder(GaussianData(Schedule(1e-3, 0.3, 5), 0.0, 1.0), shape, y)
    arguments = torch.zeros(shape), torch.zeros(10**6), torch.zeros(2, dtype=torch.int64)
    for _ in range(20):
        recorder.denoise_fn(*arguments)
    with pytest.raises(Failure, match="more than 20 times"):
        recorder.denoise_fn(*arguments)
    kept = [x for value in vars(recorder).values() if isinstance(value, list) for x in value if isinstance(x, Tensor)]
    assert sum(x.numel() for x in kept) < 100
    assert recorder.mislabelled == "At t = 0 it passes labels of the shape (1000000,)"


def test_draws_are_within_their_bounds() -> None:
    draw = Draw(0, "a check")
    multiples = draw.multiples(0.125, -1, 2, 1000)
    assert set(multiples.tolist()) == {n / 8 for n in range(-8, 17)}
    assert {draw.integer(3, 5) for _ in range(100)} == {3, 4, 5}
    assert all(1 <= draw.number(1, 2) <= 2 for _ in range(100))
    assert sorted(draw.shuffled("abc")) == ["a", "b", "c"]
