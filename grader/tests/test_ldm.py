"""Part 3 at work: what each option of train.py ldm and of sample.py does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace as Names
from typing import Any

import pytest
import torch
from torch import Tensor, testing

from .test_training import run

TINY_VAE = {"z_channels": 3, "num_channels": 8}
SHORT = {"num_timesteps": 8, "schedule": "cosine"}
TRAINED = ["--prediction", "velocity", "--min-snr", "5", "--label-dropout", "0.5", "--average-decay", "0.9"]


@pytest.fixture(scope="module")
def vae_run(solved: Names, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(solved, tmp_path_factory.mktemp("vae") / "run", "vae", "--steps", "2")


def make(solved: Names, **arguments: Any) -> Any:
    """A small model with weights that are not those of the start, where a UNet is the zero function."""
    torch.manual_seed(0)
    training = solved.enhanced_ldm.EnhancedLDMTraining(
        TINY_VAE, num_classes=4, num_channels=8, **{**SHORT, **arguments}
    )
    for parameter in training.unet.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return training


def drawn(training: Any, solved: Names, seed: int = 1, watch: Any = None, **sampling: Any) -> Tensor:
    training.sampling = solved.enhanced_ldm.Sampling(**sampling)
    torch.manual_seed(seed)
    return training.sample(3, torch.tensor([0, 1, 3]), watch)


# ---------------------------------------------------------------- training


def test_everything_at_once_resumes_to_the_same_numbers(solved: Names, tmp_path: Path, vae_run: Path) -> None:
    options = [*TRAINED, "--schedule", "cosine", "--num-timesteps", "8", "--vae", str(vae_run)]
    options += ["--lr-schedule", "constant"]
    whole = run(solved, tmp_path / "whole", "ldm", *options, "--steps", "6")
    run(solved, tmp_path / "half", "ldm", *options, "--steps", "3")
    again = ["ldm", "--resume", "--run-dir", str(tmp_path / "half"), "--steps", "6"]
    solved.recipes.train(solved.train.parse(again))
    _, expected = solved.recipes.load_training(whole)
    _, training = solved.recipes.load_training(tmp_path / "half")
    state = training.state_dict()
    assert {"unet.conv_in.weight", "average.conv_in.weight"} <= set(state)
    assert not torch.equal(state["unet.conv_in.weight"], state["average.conv_in.weight"])
    for name, value in expected.state_dict().items():
        assert torch.equal(state[name], value), name


def test_the_average_follows_the_network(solved: Names) -> None:
    training = make(solved, average_decay=0.5)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    start = {name: value.clone() for name, value in training.average.state_dict().items()}
    training.step(x, y, 0)  # of a decay that is (1 + 0) / (10 + 0) at first
    for name, value in training.unet.state_dict().items():
        testing.assert_close(training.average.state_dict()[name], 0.1 * start[name] + 0.9 * value)
    assert not any(parameter.requires_grad for parameter in training.average.parameters())
    assert set(training.optimizers) == {"unet"}


def test_labels_are_dropped_in_training_alone(solved: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make(solved, label_dropout=0.5)
    seen: list[Tensor] = []
    monkeypatch.setattr(training, "loss", lambda x, y: seen.append(y) or training.unet.conv_in.weight.sum())
    training.step(torch.randn(400, 3, 8, 8), torch.arange(400) % 4, 0)
    training.measure(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)
    assert 100 < int((seen[0] == 4).sum()) < 300
    assert torch.equal(seen[1], torch.arange(8) % 4)
    assert training.unet.label_embedding.num_embeddings == 5
    assert make(solved).unet.label_embedding.num_embeddings == 4


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_weighted_loss_of_a_perfect_network_is_zero(solved: Names, prediction: str) -> None:
    """For x_0 = 0, where x_t is noise alone: its multiples are the noise, and the velocity."""
    training = make(solved, prediction=prediction, min_snr=5.0)
    abar = training.diffusion.alphas_cumprod
    factor = (1 / (1 - abar)).sqrt() if prediction == "noise" else (abar / (1 - abar)).sqrt()
    training.unet = None
    object.__setattr__(training, "unet", lambda x, y, t: factor[t][:, None, None, None] * x)
    assert float(training.loss(torch.zeros(64, 3, 8, 8), torch.zeros(64, dtype=torch.int64))) < 1e-9


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    ("prediction", "sampler", "calls"),
    [
        ("noise", None, [7, 6, 5, 4, 3, 2, 1, 0]),
        ("noise", "ddim", [7, 4, 0]),
        ("velocity", "ddpm", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("velocity", "ddim", [7, 4, 0]),
        ("flow", None, [1, 2 / 3, 1 / 3]),
        ("flow", "heun", [1, 2 / 3, 2 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_samplers_call_the_network_where_they_should(
    solved: Names, prediction: str, sampler: str | None, calls: list[float]
) -> None:
    training = make(solved, **({"prediction": prediction} | ({"schedule": None} if prediction == "flow" else {})))
    seen: list[Tensor] = []
    images = drawn(training, solved, watch=lambda x, t: seen.append(t), sampler=sampler, num_steps=3)
    assert (images.shape, bool(images.isfinite().all())) == ((3, 3, 32, 32), True)
    assert [tuple(t.shape) for t in seen] == [(3,)] * len(calls)
    assert [float(t[0]) for t in seen] == pytest.approx(calls)


def test_ddim_draws_nothing_on_the_way_without_eta(solved: Names) -> None:
    training = make(solved)
    once, again = (drawn(training, solved, sampler="ddim", num_steps=4) for _ in range(2))
    noisy = drawn(training, solved, sampler="ddim", num_steps=4, eta=1.0)
    assert torch.equal(once, again)
    assert not torch.equal(once, noisy)


def test_guidance_of_one_is_none_and_zero_forgets_the_label(solved: Names) -> None:
    training = make(solved, label_dropout=0.1)
    plain = drawn(training, solved)
    testing.assert_close(drawn(training, solved, guidance_weight=1.0), plain, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(drawn(training, solved, guidance_weight=3.0), plain, atol=1e-3)
    training.sampling = solved.enhanced_ldm.Sampling(guidance_weight=0.0)
    unlabelled = []
    for label in (0, 3):
        torch.manual_seed(2)
        unlabelled.append(training.sample(2, torch.tensor([label, label])))
    testing.assert_close(*unlabelled)


def test_the_average_samples_unless_it_is_asked_not_to(solved: Names) -> None:
    training = make(solved, average_decay=0.9)
    with_average, without = drawn(training, solved), drawn(training, solved, average=False)
    training.average.load_state_dict(training.unet.state_dict())
    assert torch.equal(drawn(training, solved), without)
    assert not torch.equal(with_average, without)


@pytest.mark.parametrize(
    ("arguments", "sampling", "says"),
    [
        ({}, {"sampler": "euler"}, "predicts noise does not sample by euler; take ddpm or ddim"),
        ({"prediction": "flow", "schedule": None}, {"sampler": "ddim"}, "take euler or heun"),
        ({}, {"guidance_weight": 2.0}, "trained with --label-dropout can be guided"),
        ({}, {"sampler": "ddim", "num_steps": 9}, "--num-steps 9 cannot be taken; give 1 or more, and no more than 8."),
        ({"prediction": "flow", "schedule": None}, {"num_steps": 0}, "--num-steps 0 cannot be taken; give 1 or more."),
    ],
)
def test_what_cannot_be_sampled_is_said(solved: Names, arguments: dict, sampling: dict, says: str) -> None:
    with pytest.raises(solved.runs.RunError, match=says):
        drawn(make(solved, **arguments), solved, **sampling)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 25, 50, 100, 250, 1000])
def test_steps_are_spaced_evenly_from_end_to_end(solved: Names, count: int) -> None:
    steps = solved.enhanced_ldm.spaced_steps(1000, count).tolist()
    assert (len(steps), steps[0], steps[-1]) == (count, 0, 999 if count > 1 else 0)
    gaps = {after - before for before, after in pairwise(steps)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)


# ---------------------------------------------------------------- the command line


def test_sample_and_measure_as_a_student_types_it(
    solved: Names, tmp_path: Path, vae_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TRAINED, "--schedule", "linear", "--num-timesteps", "20", "--vae", str(vae_run), "--steps", "2"]
    folder = str(run(solved, tmp_path / "ldm", "ldm", *options))

    def typed(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["sample.py", folder, "-n", "4", "--device", "cpu", *arguments])
        solved.sample.main()
        return capsys.readouterr().out.strip()

    assert typed("--sampler", "ddim", "--num-steps", "5", "--eta", "0.5", "--guidance-weight", "2").endswith(".png")
    assert typed("--sampler", "ddim", "--num-steps", "5", "--trajectory").endswith("trajectory.gif")
    words = typed("--bits-per-dim").split()
    assert words[1:] == ["bits", "per", "dimension", "of", "4", "held-out", "latents"]
    assert 0 < float(words[0]) < 100
    with pytest.raises(SystemExit):
        typed("--sampler", "heun")
    assert "does not sample by heun" in capsys.readouterr().err
