"""Grading on a GPU: the worker reaches it, stays isolated, and a right submission passes there too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from grader.bank import Filling, load_bank
from grader.engine.launcher import ZygoteLauncher
from grader.engine.sandbox import CUDA_OPEN_FILES, Policy
from grader.grading import grade
from grader.submission import Submission

from .conftest import BONUS_POINTS, EXACT, QUESTIONS, REQUIRED_POINTS, filled

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")


@pytest.fixture(scope="module")
def on_cuda() -> Iterator[ZygoteLauncher]:
    """A zygote whose workers compute on the GPU."""
    launcher = ZygoteLauncher("cuda")
    yield launcher
    launcher.close()


@pytest.mark.gpu
@needs_gpu
def test_the_solution_passes_on_a_gpu_and_is_isolated(solution: Submission, on_cuda: ZygoteLauncher) -> None:
    result = grade(solution, EXACT, on_cuda, 0, call_seconds=60.0)
    assert [check.message for q in result.questions for check in q.checks if check.status != "passed"] == []
    assert (result.score, result.device) == (REQUIRED_POINTS + BONUS_POINTS, "cuda")
    assert result.isolation["summary"].startswith("strong")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("filling", [f for f in load_bank() if not f.right and f.question == "2.3b"], ids=str)
def test_wrong_samplers_are_caught_on_a_gpu(filling: Filling, handout: Submission, on_cuda: ZygoteLauncher) -> None:
    question = QUESTIONS[filling.question]
    result = grade(filled(handout, question.id, filling.blocks), [question], on_cuda, 0, call_seconds=60.0)
    assert result.score < result.max_score


@pytest.mark.gpu
@needs_gpu
def test_tensors_reach_student_code_on_the_gpu(handout: Submission, on_cuda: ZygoteLauncher) -> None:
    code = "assert fake.is_cuda\nloss = -fake"
    result = grade(filled(handout, "2.2b", code), [QUESTIONS["2.2b"]], on_cuda, 0, call_seconds=60.0)
    assert result.score == 5


def test_the_policy_of_a_gpu_worker_trades_the_address_space_limit_for_a_data_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What can be seen without a GPU: which limits are set."""
    from grader.engine import sandbox

    if sandbox.resource is None:
        pytest.skip("this system has no resource limits")
    limits: dict[int, int] = {}
    monkeypatch.setattr(sandbox.resource, "setrlimit", lambda limit, pair: limits.update({limit: pair[0]}))
    policy = Policy("/nowhere", "/nowhere", 1, device="cuda")
    sandbox.limit_resources(policy)
    assert sandbox.resource.RLIMIT_AS not in limits
    assert limits[sandbox.resource.RLIMIT_DATA] == sandbox.DATA_BYTES
    assert limits[sandbox.resource.RLIMIT_NOFILE] == CUDA_OPEN_FILES
    limits.clear()
    sandbox.limit_resources(replace(policy, device="cpu"))
    assert limits[sandbox.resource.RLIMIT_AS] == sandbox.ADDRESS_SPACE_BYTES
    assert sandbox.resource.RLIMIT_DATA not in limits
