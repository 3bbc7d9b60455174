"""The same seed gives the same results.json, byte by byte, but for the seconds it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grader.assignment import REPOSITORY
from grader.submission import Submission

from .conftest import EXACT, Graded, filled, write

UNSTEADY = {
    "1.2": "raise ValueError(f'{object()} is in {__file__}')",
    "2.1a": "print(object(), __file__)\nimport warnings\nwarnings.warn(str(object()))\nloss = 2 * mu.sum() + logvar.sum()",
    "2.1b": "z = mu + 1.1 * torch.exp(logvar / 2) * torch.randn_like(mu)",
    "2.2a": "print(sorted(map(id, (real, fake)))[0] > 0, self)\nloss = real.missing_name",
    "2.2b": "import os\nos._exit(3)",
    "2.3a": "x_t = x_start + torch.randn_like(noise)",
    "2.3b": "x = torch.randn(shape)\nfor t in range(3):\n    x = denoise_fn(x, y, torch.full((len(x),), t))",
}


def without_seconds(value: Any) -> Any:
    """`value` less every field "seconds" in it."""
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def grade_once(folder: Path, results: Path, hash_seed: int, *options: str) -> str:
    """results.json of a run in a process of its own, less the seconds; sets have another order for every hash seed."""
    command = [sys.executable, "-m", "grader", "grade", str(folder), "--results", str(results), "--seed", "7", *options]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=240)
    return json.dumps(without_seconds(json.loads(results.read_text("utf-8"))), indent=1)


@pytest.fixture
def unsteady(handout: Submission) -> Submission:
    """A wrong submission that shows addresses, paths and what else may differ from run to run."""
    for question, code in UNSTEADY.items():
        handout = filled(handout, question, code)
    return handout


def test_a_wrong_submission(unsteady: Submission, tmp_path: Path) -> None:
    folder = write(tmp_path / "submission", unsteady)
    first, second = (grade_once(folder, tmp_path / "r.json", seed, "--no-training") for seed in (1, 2))
    assert first == second


def test_the_solution_which_trains_one_model(solution: Submission, tmp_path: Path) -> None:
    folder, questions = write(tmp_path / "submission", solution), ",".join([*(q.id for q in EXACT), "1.6a"])
    first, second = (grade_once(folder, tmp_path / "r.json", seed, "--only", questions) for seed in (1, 2))
    assert first == second
    assert {question["status"] for question in json.loads(first)["questions"]} == {"passed"}


def test_addresses_and_the_staged_folder_are_left_out(unsteady: Submission, graded: Graded) -> None:
    result = graded(unsteady, "1.2", "2.1a")
    assert "ValueError: <object object at 0x...> is in loss.py" in result.questions[0].checks[0].message
    assert "<object object at 0x...> loss.py" in result.output
    assert "submission-" not in result.to_json()
