"""The training code of the assignment: it runs, stops, goes on to the same numbers, and leaves pictures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace as Names

import pytest
import torch
from PIL import Image
from torch import nn, testing

from grader.assignment import HANDOUT, SOLUTION

SMALL = ["--limit", "48", "--batch-size", "16", "--device", "cpu", "--num-channels", "8", "--hidden-dim", "32"]
MODELS = {
    "mlp-vae": ["--z-dim", "2"],
    "mlp-gan": [],
    "vae": ["--gan-weight", "0.1", "--gan-loss-start", "2", "--grad-clip", "1"],
    "ldm": ["--num-timesteps", "25", "--schedule", "linear", "--lr-schedule", "cosine"],
}


@pytest.fixture(scope="module")
def vae_run(solved: Names, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An auto-encoder to train a diffusion model on."""
    return run(solved, tmp_path_factory.mktemp("vae") / "run", "vae", "--steps", "2")


def run(solved: Names, folder: Path, model: str, *arguments: str) -> Path:
    """Train in this process."""
    solved.recipes.train(solved.train.parse([model, *SMALL, *MODELS[model], *arguments, "--run-dir", str(folder)]))
    return folder


def extra(model: str, vae_run: Path) -> list[str]:
    return ["--vae", str(vae_run)] if model == "ldm" else []


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("model", MODELS)
def test_a_run_leaves_numbers_pictures_and_a_checkpoint(
    solved: Names, tmp_path: Path, vae_run: Path, model: str
) -> None:
    folder = run(solved, tmp_path / "run", model, "--epochs", "2", *extra(model, vae_run))
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "train.csv", "checkpoint.pt", "samples-000003.png", "samples-000006.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert [int(row["step"]) for row in rows(folder / "train.csv")] == [1, 2, 3, 4, 5, 6]
    assert all(abs(float(value)) < 1e6 for row in rows(folder / "train.csv") for value in row.values())
    if model in ("mlp-vae", "vae"):
        assert size(folder / "reconstructions-000006.png") == ((560, 112) if model == "mlp-vae" else (640, 128))
    if model == "mlp-vae":
        assert size(folder / "latent-grid-000006.png") == (20 * 28 * 2, 20 * 28 * 2)
    config, training = solved.recipes.load_training(folder)
    assert config["model"] == model
    assert not training.training


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_run_resumes_to_the_same_numbers(
    solved: Names, tmp_path: Path, vae_run: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(solved, tmp_path / "whole", model, "--epochs", "3", *extra(model, vae_run))
    steps = solved.loop.train_steps

    def killed(*arguments: object, **keywords: object) -> Iterator[object]:
        for n, terms in enumerate(steps(*arguments, **keywords)):
            if n == 5:
                raise KeyboardInterrupt
            yield terms

    monkeypatch.setattr(solved.loop, "train_steps", killed)
    with pytest.raises(KeyboardInterrupt):
        run(solved, tmp_path / "killed", model, "--epochs", "3", *extra(model, vae_run))
    monkeypatch.undo()
    assert [int(row["step"]) for row in rows(tmp_path / "killed" / "train.csv")] == [1, 2, 3, 4, 5]
    solved.recipes.train(solved.train.parse([model, "--resume", "--run-dir", str(tmp_path / "killed")]))
    for file in whole.glob("*.csv"):
        assert file.read_text("utf-8") == (tmp_path / "killed" / file.name).read_text("utf-8")
    ours, theirs = (torch.load(folder / "checkpoint.pt") for folder in (whole, tmp_path / "killed"))
    assert ours["step"] == theirs["step"] == 9
    for name, value in ours["training"].items():
        assert torch.equal(value, theirs["training"][name]), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(solved: Names, tmp_path: Path) -> None:
    first, same, other = (
        torch.load(run(solved, tmp_path / str(n), "mlp-gan", "--steps", "2", "--seed", seed) / "checkpoint.pt")[
            "training"
        ]
        for n, seed in enumerate("778")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


def test_a_run_is_not_overwritten_and_options_are_kept(solved: Names, tmp_path: Path) -> None:
    folder = run(solved, tmp_path / "run", "mlp-vae", "--steps", "1")
    with pytest.raises(solved.runs.RunError, match="continue it with --resume, replace it with --overwrite"):
        run(solved, folder, "mlp-vae")
    options = solved.train.parse(["mlp-vae", "--resume", "--run-dir", str(folder), "--steps", "2"])
    assert (options.hidden_dim, options.limit, options.steps, options.resume) == (32, 48, 2, True)
    assert json.loads((folder / "config.json").read_text("utf-8"))["options"]["z_dim"] == 2


def test_what_a_run_without_a_checkpoint_left_is_replaced_and_nothing_else(solved: Names, tmp_path: Path) -> None:
    """As after a block that was not filled in, or with --overwrite after any run."""
    folder = tmp_path / "run"
    left = solved.runs.Run(folder)
    left.start({"model": "vae"})
    left.log("train", 1, {"mse": 1.0})
    for name in ("samples-000003.png", "my-notes.txt", "samples.png"):
        (folder / name).write_text("x", "utf-8")
    left.start({"model": "vae", "again": True})
    assert {path.name for path in folder.iterdir()} == {"config.json", "my-notes.txt", "samples.png"}
    left.save({"step": 1})
    with pytest.raises(solved.runs.RunError, match="holds a run"):
        left.start({"model": "vae"})
    left.start({"model": "vae"}, overwrite=True)
    assert not (folder / "checkpoint.pt").exists()


def test_ctrl_c_saves_the_step_and_says_how_to_continue(
    solved: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(solved, tmp_path / "whole", "mlp-gan", "--epochs", "2")
    steps = solved.loop.train_steps

    def pressed(*arguments: object, **keywords: object) -> Iterator[object]:
        for n, terms in enumerate(steps(*arguments, **keywords)):
            if n == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield terms

    monkeypatch.setattr(solved.loop, "train_steps", pressed)
    options = ["mlp-gan", *SMALL, "--epochs", "2", "--run-dir", str(tmp_path / "stopped")]
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        solved.train.main()
    assert (ended.value.code, signal.getsignal(signal.SIGINT)) == (130, before)
    said = capsys.readouterr().out
    assert f"Stopped. Continue with: python train.py mlp-gan --run-dir {tmp_path / 'stopped'} --resume" in said
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt")["step"] == 2
    monkeypatch.undo()
    solved.recipes.train(solved.train.parse(["mlp-gan", "--resume", "--run-dir", str(tmp_path / "stopped")]))
    ours, theirs = (torch.load(folder / "checkpoint.pt") for folder in (whole, tmp_path / "stopped"))
    assert all(torch.equal(value, theirs["training"][name]) for name, value in ours["training"].items())


def test_pictures_are_drawn_about_ten_times(solved: Names, tmp_path: Path) -> None:
    folder = run(solved, tmp_path / "run", "mlp-gan", "--epochs", "25")
    drawn = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("samples-*.png"))
    assert drawn == [*range(6, 75, 6), 75]  # three steps an epoch: after every second, and at the end


def test_numbers_end_their_lines_in_one_way(solved: Names, tmp_path: Path) -> None:
    kept = solved.runs.Run(tmp_path)
    for step in (1, 2):
        kept.log("train", step, {"mse": 1.0})
    kept.rewind(1)
    kept.log("train", 2, {"mse": 2.0})
    assert (tmp_path / "train.csv").read_bytes() == b"step,mse\n1,1\n2,2\n"


def test_of_several_processes_one_begins_the_run(solved: Names, tmp_path: Path) -> None:
    first, second = (solved.runs.Run(tmp_path / "run", writes=writes) for writes in (True, False))
    first.start({"by": "first"})
    second.start({"by": "second"})
    assert second.config() == {"by": "first"}


def test_a_checkpoint_is_written_whole_or_not_at_all(
    solved: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    kept = solved.runs.Run(tmp_path / "run")
    kept.save({"step": 1})

    def half(value: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        kept.save({"step": 2})
    assert kept.load() == {"step": 1}


def test_a_full_disk_leaves_the_checkpoint_of_before(
    solved: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = solved.runs.Run(tmp_path)
    kept.save({"step": 1})

    def full(value: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(solved.runs.RunError, match="is the disk full"):
        kept.save({"step": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt"}
    assert kept.load() == {"step": 1}


def test_a_damaged_checkpoint_and_one_of_other_networks_are_said(solved: Names, tmp_path: Path) -> None:
    folder = run(solved, tmp_path / "run", "mlp-gan", "--steps", "1")
    whole = (folder / "checkpoint.pt").read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        (folder / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(solved.runs.RunError, match="is damaged"):
            solved.recipes.load_training(folder)
    torch.save({"step": 1, "training": {"w": torch.zeros(1)}, "optimizers": {}}, folder / "checkpoint.pt")
    with pytest.raises(solved.runs.RunError, match="of other networks"):
        solved.recipes.load_training(folder)
    with pytest.raises(solved.runs.RunError, match=r"holds a mlp-gan; continue it with train\.py mlp-gan"):
        solved.train.parse(["vae", "--resume", "--run-dir", str(folder)])


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "--steps: 0 must be an integer of at least 1"),
        (["--steps", "-5"], "--steps: -5 must be an integer of at least 1"),
        (["--epochs", "0"], "--epochs: 0 must be"),
        (["--batch-size", "0"], "--batch-size: 0 must be"),
        (["--num-channels", "10"], "--num-channels: 10 must be a multiple of 8"),
        (["--lr", "nan"], "--lr: nan must be a number above 0"),
        (["--lr", "fast"], "--lr: fast must be a number above 0"),
        (["--kl-weight", "-1"], "--kl-weight: -1 must be a number of at least 0"),
        (["--label-dropout", "2"], "--label-dropout: 2 must be a number from 0 to 1"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    solved: Names, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        solved.train.parse(["vae", *arguments])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert says in said


def test_a_device_that_is_not_there_is_said(solved: Names) -> None:
    for name in ("gpu", "cuda:99"):
        with pytest.raises(solved.runs.RunError, match=f"has no device {name} that PyTorch can use"):
            solved.devices.choose_device(name)


def test_only_the_placeholder_of_a_question_is_taken_for_an_empty_block(
    solved: Names, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "vae"])

    def raising(message: str) -> None:
        def fail(options: object) -> None:
            raise NotImplementedError(message)

        monkeypatch.setattr(solved.train, "train", fail)

    raising("2.1a")
    with pytest.raises(SystemExit):
        solved.train.main()
    assert "This needs question 2.1a, which is not filled in yet." in capsys.readouterr().err
    raising("\"bitwise_xor_cpu\" not implemented for 'Float'")
    with pytest.raises(NotImplementedError, match="bitwise_xor_cpu"):
        solved.train.main()


def test_sampling_options_without_effect_are_said(solved: Names) -> None:
    parse = solved.sample.parse
    assert solved.sample.ignored(parse(["run"]), is_ldm=True) == []
    assert solved.sample.ignored(parse(["run", "--sampler", "ddim", "--num-steps", "5"]), is_ldm=True) == []
    said = solved.sample.ignored(parse(["run", "--num-steps", "5", "--eta", "0.5", "--class", "3"]), is_ldm=False)
    assert [sentence.split()[0] for sentence in said] == ["--num-steps", "--eta", "this"]
    with pytest.raises(SystemExit):
        parse(["run", "-n", "0"])


def call(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_train_and_sample_as_a_student_types_it(tmp_path: Path, vae_run: Path) -> None:
    ldm = str(tmp_path / "ldm")
    done = call(
        SOLUTION, "train.py", "ldm", *SMALL, *MODELS["ldm"], "--steps", "3", "--vae", str(vae_run), "--run-dir", ldm
    )
    assert (done.returncode, "3/3" in done.stdout, "noise_mse" in done.stdout) == (0, True, True), done.stderr
    done = call(SOLUTION, "sample.py", ldm, "--class", "blue square", "-n", "10", "--columns", "5")
    assert done.returncode == 0, done.stderr
    assert size(Path(done.stdout.strip())) == (5 * 64, 2 * 64)
    done = call(SOLUTION, "sample.py", ldm, "--trajectory", "-n", "4", "--columns", "4")
    assert size(Path(done.stdout.strip())) == (128, 32)


def test_a_trajectory_has_a_frame_for_a_step_and_one_for_the_result(solved: Names) -> None:
    training = solved.enhanced_ldm.EnhancedLDMTraining(
        {"z_channels": 3, "num_channels": 8}, num_channels=8, num_timesteps=130, schedule="linear"
    )
    with torch.no_grad():
        frames = solved.sample.sample_trajectory(training, torch.tensor([1, 2]), columns=2)
    assert [tuple(frame.shape) for frame in frames] == [(3, 32, 64)] * (130 // 3 + 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train.py", "ldm", "--num-timesteps", "10"], "error: --num-timesteps 10 needs a schedule of that length"),
        (["train.py", "ldm", "--prediction", "flow", "--schedule", "cosine"], "error: A flow has no schedule"),
        (["train.py", "ldm"], "error: A latent diffusion model needs an auto-encoder"),
        (["train.py", "vae", "--dataset", "nothing"], "error: There is no data set nothing"),
        (["train.py", "vae", "--resume", "--run-dir", "nowhere"], "error: nowhere is not a run directory"),
        (["sample.py", "nowhere"], "error: nowhere is not a run directory"),
    ],
)
def test_errors_are_one_line(arguments: list[str], says: str) -> None:
    done = call(SOLUTION, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1


def test_an_empty_block_is_named(tmp_path: Path) -> None:
    done = call(HANDOUT, "train.py", "vae", *SMALL, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr == "error: This needs question 2.1b, which is not filled in yet.\n"


def test_classes_by_name_and_number(solved: Names) -> None:
    choose, classes = solved.sample.choose_labels, ["cat", "dog"]
    assert choose(None, 3, classes).tolist() == [0, 1, 0]
    assert choose("dog", 2, classes).tolist() == choose("1", 2, classes).tolist() == [1, 1]
    for wrong in ("2", "zebra", "-1"):
        with pytest.raises(solved.runs.RunError, match=r"there are 0 \(cat\), 1 \(dog\)"):
            choose(wrong, 1, classes)


# ---------------------------------------------------------------- how numbers are computed


def test_bfloat16_is_for_training_and_hands_float32_on(solved: Names) -> None:
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3), nn.Sigmoid())
    x = torch.randn(5, 8)
    exact = network(x)
    solved.devices.use_bfloat16(network, torch.device("cpu"))
    rough = network(x)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    testing.assert_close(rough, exact, rtol=0.02, atol=0.02)
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert torch.equal(network.eval()(x), exact)


def test_gradients_are_clipped_after_backward(solved: Names) -> None:
    layer = nn.Linear(3, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    solved.devices.before_each_step(optimizer, grad_clip=0.5, world=1)
    solved.loop.minimise(layer(torch.tensor([[0.0, 300.0, 400.0]])).sum(), optimizer)
    testing.assert_close(before - layer.weight.detach(), torch.tensor([[0.0, 0.3, 0.4]]))
    solved.loop.minimise(layer(torch.tensor([[0.0, 0.1, 0.0]])).sum(), optimizer)
    testing.assert_close(before - layer.weight.detach(), torch.tensor([[0.0, 0.4, 0.4]]))


TWO_PROCESSES = """
from pathlib import Path
import torch
from devices import before_each_step, choose_device, join_processes, leave_processes
rank, world = join_processes(choose_device("cpu"))
layer = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.zeros_(layer.weight)
optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
before_each_step(optimizer, None, world)
x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])[rank::world]
layer(x).mean().backward()
optimizer.step()
Path(__file__).with_name(f"{rank} of {world}").write_text(str(layer.weight.flatten().tolist()))
leave_processes()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torchrun and gloo are tried on Linux alone")
def test_processes_share_a_batch_and_average_their_gradients(tmp_path: Path) -> None:
    """Over the loopback: the step of two processes is that of the whole batch, -(4, 5)."""
    (tmp_path / "two.py").write_text(TWO_PROCESSES, "utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    done = call(SOLUTION, *torchrun, str(tmp_path / "two.py"), PYTHONPATH=str(SOLUTION), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"{rank} of 2").read_text("utf-8") for rank in (0, 1)] == ["[-4.0, -5.0]"] * 2


def test_the_learning_rate_falls_along_a_cosine(solved: Names) -> None:
    training = solved.recipes.MLPGANTraining((1, 4, 4), 2, 8)
    options = Names(lr=2.0, lr_schedule="cosine")
    rates = []
    for step in (0, 50, 100):
        solved.loop.set_learning_rate(training, options, step, 100)
        rates += {group["lr"] for optimizer in training.optimizers.values() for group in optimizer.param_groups}
    assert rates == pytest.approx([2, 1, 0])


def test_latents_are_normalised_by_channel(solved: Names) -> None:
    training = solved.recipes.LDMTraining({"z_channels": 3, "num_channels": 8})
    pixels = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    images = solved.dataset.Images(pixels, torch.zeros(64, dtype=torch.int64), ["only"])
    latents = training.encode(images, fit=True).pixels
    testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    testing.assert_close(latents.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    assert {"latent_mean", "latent_std"} <= set(training.state_dict())
    with torch.no_grad():
        testing.assert_close(training.decode(latents[:4]), (training.vae.decode(training.vae.encode(solved.dataset.signed(pixels[:4]))) + 1) / 2)  # fmt: skip


def test_neighbouring_seeds_give_unlike_noise(solved: Names) -> None:
    """The correlation of 64 pairs of 4,096 numbers stays below 6 / sqrt(4096), but with a probability below 1e-6."""
    noises = []
    for step in range(65):
        solved.devices.seed_noise(0, step, 0)
        noises.append(torch.randn(4096))
    for first, second in pairwise(noises):
        assert abs(float((first * second).mean())) < 6 / 64


# ---------------------------------------------------------------- pictures


def test_image_grid_fills_rows_and_leaves_black(solved: Names) -> None:
    images = torch.arange(1.0, 6.0)[:, None, None, None].expand(5, 1, 2, 3)
    grid = solved.visualize.image_grid(images, columns=3)
    assert grid.shape == (1, 4, 9)
    assert grid[0, ::2, ::3].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_pictures_are_written_as_they_are(solved: Names, tmp_path: Path) -> None:
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[-1.0, 0.25]]])
    solved.visualize.save_image(image, tmp_path / "a.png", scale=2)
    with Image.open(tmp_path / "a.png") as png:
        assert (png.size, png.getpixel((0, 0)), png.getpixel((3, 1))) == ((4, 2), (0, 128, 0), (255, 255, 64))
    solved.visualize.save_animation([image, image.flip(0)], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 2
