"""Writes the report: pictures and numbers of finished runs, as a Markdown page with PNG files beside it."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from grader.oracle.quality import Quality

from .measure import Judge, pictures, rows, solution
from .plan import DATASETS, GAN_WEIGHTS, KL_WEIGHTS, LDM_KL_WEIGHT, SECONDS, Planned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
EPOCHS_SHOWN = 4


class Page:
    """The page under construction.

    Args:
        runs: folder of the run directories.
        out: folder of the page and its pictures.
        name: of its file.
    """

    def __init__(self, runs: Path, out: Path, name: str = "README.md"):
        self.runs, self.out, self.name = runs, out, name
        self.lines: list[str] = []
        out.mkdir(parents=True, exist_ok=True)

    def text(self, *lines: str) -> None:
        """Add a paragraph."""
        self.lines += [*lines, ""]

    def table(self, header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        cells = [list(header), ["---"] * len(header), *map(list, body)]
        self.text(*("| " + " | ".join(row) + " |" for row in cells))

    def picture(self, name: str, image: Image.Image, caption: str) -> None:
        """Add a picture, written to <name>.png."""
        image.save(self.out / f"{name}.png", optimize=True)
        self.text(f"![{caption}]({name}.png)", "", f"*{caption}*")

    @contextmanager
    def plot(self, name: str, caption: str, height: float = 3.2) -> Iterator[Axes]:
        """Add a picture of curves that are drawn on the axes given; 700 pixels wide, `height` in hundreds of them."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, height), dpi=100, layout="constrained")
        axes = figure.subplots()
        yield axes
        axes.grid(alpha=0.3, which="both")
        figure.legend(frameon=False, loc="outside right upper")
        with io.BytesIO() as file:
            figure.savefig(file, format="png")
            with Image.open(file) as image:
                self.picture(name, image.convert("RGB"), caption)

    def write(self) -> Path:
        """Write the page. Returns its path."""
        path = self.out / self.name
        path.write_text("\n".join(self.lines).rstrip() + "\n", "utf-8")
        return path


def pictures_of(run: Path, name: str) -> list[Path]:
    """The pictures of that name that a run left, in order."""
    return sorted(run.glob(f"{name}-[0-9]*.png"))


def stack(images: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Pictures one below the other on white."""
    height = sum(image.height + gap for image in images) - gap
    sheet = Image.new("RGB", (max(image.width for image in images), height), "white")
    top = 0
    for image in images:
        sheet.paste(image.convert("RGB"), (0, top))
        top += image.height + gap
    return sheet


def stack_files(paths: Sequence[Path]) -> Image.Image:
    """The pictures in some files, one below the other."""
    with ExitStack() as files:
        return stack([files.enter_context(Image.open(path)) for path in paths])


def as_picture(image: Tensor, scale: int = 2) -> Image.Image:
    """An image (C, H, W) in [0, 1] as a picture."""
    picture = Image.fromarray(solution("visualize").to_pixels(image).squeeze(2).numpy())
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of some paths, evenly spaced, the first and the last among them."""
    if len(paths) <= count:
        return list(paths)
    return [paths[round(n * (len(paths) - 1) / (count - 1))] for n in range(count)]


def steps_of(paths: Sequence[Path]) -> str:
    """The steps of some pictures in words."""
    return ", ".join(f"{int(path.stem.rsplit('-', 1)[1]):,}" for path in paths)


def quality_cells(found: Quality) -> list[str]:
    """A Frechet distance, its floor and recall, for a table."""
    return [f"{found.frechet:.1f}", f"{found.floor:.1f}", f"{found.recall:.2f}"]


def draw_curves(page: Page, name: str, curves: dict[str, tuple[list[float], list[float]]], label: str) -> None:
    """Add a picture of curves: steps and values by name."""
    with page.plot(name, f"{label}, by step of training") as axes:
        for curve, (x, y) in curves.items():
            axes.plot(x, y, label=curve, linewidth=1.2)
        axes.set(xlabel="step", ylabel=label)


def column(numbers: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    """The steps and the values of one column."""
    return [row["step"] for row in numbers], [row[name] for row in numbers]


def part_1(page: Page, judge: Judge) -> None:
    """The small VAE and GAN on MNIST."""
    page.text("## Part 1: small networks on MNIST")
    runs = {z: page.runs / f"mlp-vae-{z}" for z in (20, 2)}
    numbers = {z: rows(run / "test.csv") for z, run in runs.items()}
    page.text(
        "### The VAE",
        "",
        "The bound on the 10,000 test images, grey pixels taken for probabilities, with one draw of z each.",
    )
    page.table(
        ["latent variables", "test ELBO, nats", "minutes"],
        [[str(z), f"{numbers[z][-1]['elbo']:.2f}", minutes(run)] for z, run in runs.items()],
    )
    curves = {f"z = {z}, training": column(rows(run / "train.csv")[5:], "elbo") for z, run in runs.items()}
    curves |= {f"z = {z}, test": column(numbers[z], "elbo") for z in runs}
    draw_curves(page, "mlp-vae-curves", curves, "ELBO in nats")
    shown = spread(pictures_of(runs[20], "reconstructions"), EPOCHS_SHOWN)
    caption = f"Test images and their reconstructions, z = 20, after {steps_of(shown)} steps"
    page.picture("mlp-vae-reconstructions", stack_files(shown).convert("L"), caption)
    with Image.open(pictures_of(runs[2], "latent-grid")[-1]) as grid:
        page.picture("mlp-vae-latent-grid", grid.convert("L"), "The latent space for z = 2, each variable from -3 to 3")
    page.text("### The GAN")
    run = page.runs / "mlp-gan"
    losses = rows(run / "train.csv")
    draw_curves(page, "mlp-gan-curves", {n: column(losses, n) for n in ("discriminator", "generator")}, "loss")
    page.table(["Frechet distance", "floor", "recall", "minutes"], [[*quality_cells(judge(run)), minutes(run)]])
    shown = spread(pictures_of(run, "samples"), EPOCHS_SHOWN)
    page.picture("mlp-gan-samples", stack_files(shown).convert("L"), f"Samples after {steps_of(shown)} steps")


def vae_row(page: Page, name: str, judge: Judge) -> list[str]:
    """The numbers of a convolutional auto-encoder, for a table."""
    last = rows(page.runs / name / "test.csv")[-1]
    return [
        f"{last['psnr']:.2f}",
        f"{last['kl']:.1f}",
        *quality_cells(judge(page.runs / name)),
        minutes(page.runs / name),
    ]


def vae_pictures(page: Page, name: str, judge: Judge, caption: str) -> None:
    """Originals, reconstructions and samples of an auto-encoder in one picture."""
    shown = pictures(page.runs / name, judge.source)
    sheet = stack([as_picture(shown[kind]) for kind in ("reconstructions", "samples")])
    page.picture(name, sheet, f"{caption}: test images, their reconstructions; below, samples")


def part_2(page: Page, judges: dict[str, Judge]) -> None:
    """The convolutional auto-encoders and the latent diffusion models."""
    page.text("## Part 2: convolutional networks", "", "PSNR in decibels and KL in nats, on the 10,000 test images.")
    header = ["PSNR", "KL", "Frechet distance", "floor", "recall", "minutes"]
    for data in DATASETS:
        page.text(f"### The VAE on {NAMES[data]}")
        names = {weight: f"vae-{data}-kl-{weight}" for weight in KL_WEIGHTS}
        page.table(["kl_weight", *header], [[w, *vae_row(page, name, judges[data])] for w, name in names.items()])
        for weight, name in names.items():
            vae_pictures(page, name, judges[data], f"kl_weight {weight}")
    page.text("### The VAE-GAN on CIFAR-10", "", "With kl_weight 1e-6.")
    names = {weight: f"vae-gan-{weight}" for weight in GAN_WEIGHTS}
    page.table(["gan_weight", *header], [[w, *vae_row(page, name, judges["cifar10"])] for w, name in names.items()])
    for weight, name in names.items():
        vae_pictures(page, name, judges["cifar10"], f"gan_weight {weight}")
    for data in DATASETS:
        page.text(f"### Latent diffusion on {NAMES[data]}")
        page.text(f"On the latents of the VAE with kl_weight {LDM_KL_WEIGHT}.")
        run = page.runs / f"ldm-{data}"
        error = rows(run / "test.csv")[-1]["noise_mse"]
        header = ["squared error of the noise", "Frechet distance", "floor", "recall", "minutes"]
        page.table(header, [[f"{error:.3f}", *quality_cells(judges[data](run)), minutes(run)]])
        page.picture(run.name, ldm_samples(run), "Samples, a row for each class")


@torch.no_grad()
def ldm_samples(run: Path, columns: int = 10) -> Image.Image:
    """Samples of a diffusion model, a row for each class."""
    config, training = solution("recipes").load_training(run)
    solution("devices").seed_noise(1)
    labels = torch.arange(len(config["classes"])).repeat_interleave(columns)
    samples = solution("sample").sample(training, labels)
    return as_picture(solution("visualize").image_grid(samples, columns))


def minutes(run: Path) -> str:
    """How long a run took."""
    return f"{int((run / SECONDS).read_text('utf-8')) / 60:.1f}"


def hardware() -> str:
    """What the runs were made on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} processor cores ({platform.machine()}), no GPU"


def how_it_was_made(page: Page, judges: dict[str, Judge], remark: str) -> None:
    """Add on what the runs were made, and what the numbers mean."""
    some = judges["mnist"].count
    accuracies = " and ".join(f"{judge.accuracy:.1%} of {NAMES[name]}" for name, judge in judges.items())
    page.text(
        f"Made by `make figures` on {hardware()}, PyTorch {torch.__version__.partition('+')[0]}. {remark}".strip(),
        "",
        f"The Frechet distance is taken on 64 features of a small classifier (it recognises {accuracies} test images), "
        f"over {some:,} samples against {some:,} test images. Its floor is the distance between two sets of so many "
        "real images: no samples can be expected below it. Recall is the share of real images that lie among samples "
        "(Kynkaanniemi et al., 2019). Numbers of one page can be compared with one another, and with no others.",
    )


def commands(page: Page, planned: list[Planned]) -> None:
    """Add the command of every run."""
    page.text("## Commands", "", "In `solution/`, each with a `--run-dir` of its own:")
    page.text("```console", *(run.command() for run in planned), "```")


def make_page(planned: list[Planned], runs: Path, out: Path, judges: dict[str, Judge], remark: str) -> Path:
    """Measure every run of Parts 1 and 2, and write their page. Returns its path."""
    page = Page(runs, out)
    page.text("# Report: every model of the assignment, trained")
    how_it_was_made(page, judges, remark)
    part_1(page, judges["mnist"])
    part_2(page, judges)
    commands(page, planned)
    return page.write()
