"""The page of Part 3: samplers, guidance, schedules, predictions and averages of weights, by quality and by cost."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .measure import Judge, solution
from .page import NAMES, Page, as_picture, commands, how_it_was_made, minutes
from .plan import DATASETS, LDM_KL_WEIGHT, VARIANTS, Planned

DDIM_STEPS = (10, 25, 50, 100, 250)
FLOW_STEPS = (5, 10, 25, 50, 100)
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 7.5)
FEW, FEWER = 50, 10  # steps; variants are compared at the first
DIFFUSIONS = ("noise", "cosine", "velocity")  # variants that DDPM and DDIM sample
BASES = ("noise", "velocity")  # variants that are guided, and sampled without the average
PICTURED = "velocity"
WHY = """Where DDIM falls behind DDPM of the same model, it carries the errors of the network along to the end; DDPM
forgets them with the new noise of every step. Noise that is predicted with an error e implies data that are off by e
times the ratio of noise to data: 157 at the last of 1000 steps of the linear schedule, and 20,000 at that of the cosine
schedule. A velocity with an error e implies data that are off by e at most, at every step (Salimans and Ho, 2022,
section 4). The cosine schedule is hard on predicted noise in DDPM as well: its last step, where beta is 0.999, makes
32 e of an error, that of the linear schedule 0.02 e. On pixels the implied data are clamped; latents have no bounds."""
BATCH = 64
BOUNDED = 128  # held-out latents whose bits per dimension are measured
QUALITY = "quality.json"  # in the directory of a run: what was measured of it
CLOSE = 1.15
MARKS = {"DDPM": ("s", "none"), "DDIM": ("o", "solid"), "Euler": ("o", "solid"), "Heun": ("x", "dotted")}  # of a plot
DRAWS = 3  # of noise, for what is compared


@dataclass(frozen=True)
class Measured:
    """What was measured of one way to sample from a run.

    Attributes:
        frechet, floor, recall: see `grader.oracle.quality`.
        evaluations: passes of the UNet for each image.
        seconds: for 64 images, decoding included; the median over batches.
    """

    frechet: float
    floor: float
    recall: float
    evaluations: float
    seconds: float


def kept(run: Path, key: str, measure: Callable[[], Any]) -> Any:
    """What `measure` gives, from the file of the run where it was measured before."""
    path = run / QUALITY
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if key not in known:
        known[key] = measure()
        path.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    return known[key]


def load_sampler(run: Path, noise: int, sampling: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The configuration of a run and its model, which samples by some options of `Sampling` from a seed of noise."""
    config, training = solution("recipes").load_training(run, part_3=True)
    training.sampling = solution("enhanced_ldm").Sampling(**sampling)
    solution("devices").seed_noise(noise)
    return config, training


def measure(judge: Judge, run: Path, noise: int = 0, **sampling: Any) -> Measured:
    """How good samples are that a run draws by some options of `Sampling`, and what they cost."""
    options = [f"{name} {value}" for name, value in sampling.items()] + [f"noise {noise}"] * (noise > 0)
    key = f"{judge.count} samples, {', '.join(options)}"
    return Measured(**kept(run, key, lambda: asdict(_measure(judge, run, noise, sampling))))


@torch.no_grad()
def _measure(judge: Judge, run: Path, noise: int, sampling: dict[str, Any]) -> Measured:
    config, training = load_sampler(run, noise, sampling)
    calls, seconds, parts = 0, [], []

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for network in (training.unet, training.average):
        network.register_forward_hook(count)
    for labels in (torch.arange(judge.count) % len(config["classes"])).split(BATCH):
        started = time.perf_counter()
        parts.append(training.sample(len(labels), labels))
        if len(labels) == BATCH:
            seconds.append(time.perf_counter() - started)
    found = judge.judge(torch.cat(parts))
    typical = statistics.median(seconds) if seconds else 0.0
    return Measured(found.frechet, found.floor, found.recall, calls / len(parts), typical)


@torch.no_grad()
def bits_per_dim(judge: Judge, run: Path) -> float:
    """The variational bound of held-out latents, with the average of the weights."""

    def bound() -> float:
        _, training = solution("recipes").load_training(run, part_3=True)
        held_out = training.encode(solution("dataset").load(judge.source, train=False).first(BOUNDED), fit=False)
        solution("devices").seed_noise(0)
        bits = training.diffusion.bits_per_dim(training.denoiser(), held_out.pixels, held_out.labels)
        return float(bits.mean())

    return float(kept(run, f"bits per dimension of {BOUNDED}", bound))


# ---------------------------------------------------------------- the page


def cells(found: Measured) -> list[str]:
    """The numbers of one way to sample, for a table."""
    return [f"{found.evaluations:.0f}", f"{found.frechet:.1f}", f"{found.recall:.2f}", f"{found.seconds:.2f}"]


HEADER = ("network passes an image", "Frechet distance", "recall", "seconds for 64 images")


def samplers(page: Page, judge: Judge, data: str) -> None:
    """The table of samplers and the plot of quality against cost."""
    runs = {variant: page.runs / f"enhanced-{data}-{variant}" for variant in VARIANTS}
    curves = {}
    for variant in DIFFUSIONS:
        curves[f"{variant}, DDPM"] = {1000: measure(judge, runs[variant], sampler="ddpm")}
        curves[f"{variant}, DDIM"] = {
            steps: measure(judge, runs[variant], sampler="ddim", num_steps=steps) for steps in DDIM_STEPS
        }
    for sampler in ("euler", "heun"):
        curves[f"flow, {sampler.capitalize()}"] = {
            steps: measure(judge, runs["flow"], sampler=sampler, num_steps=steps) for steps in FLOW_STEPS
        }
    floor = next(iter(curves["flow, Euler"].values())).floor
    page.text(f"By variant. The floor of the Frechet distance is {floor:.1f}.")
    rows = [[f"{name}, {n} steps", *cells(found)] for name, curve in curves.items() for n, found in curve.items()]
    page.table(["sampler", *HEADER], rows)
    plot(page, f"enhanced-{data}-cost", curves, floor)


def plot(page: Page, name: str, curves: dict[str, dict[int, Measured]], floor: float) -> None:
    """Add a picture of quality against network evaluations."""
    with page.plot(name, "Quality against the number of network passes, both logarithmic", 3.6) as axes:
        for curve, by_steps in curves.items():
            variant, _, sampler = curve.partition(", ")
            marker, line = MARKS[sampler]
            passes, distances = zip(*((found.evaluations, found.frechet) for found in by_steps.values()), strict=True)
            colour = f"C{list(VARIANTS).index(variant)}"
            axes.plot(passes, distances, marker=marker, linestyle=line, color=colour, label=curve)
        axes.axhline(floor, color="grey", linestyle="dashed", linewidth=1, label="floor")
        axes.set(xscale="log", yscale="log", xlabel="network passes for an image", ylabel="Frechet distance")


def guidance(page: Page, judge: Judge, data: str) -> None:
    """The tables and the pictures of guidance."""
    options: dict[str, Any] = {"sampler": "ddim", "num_steps": FEW}
    page.text(f"### Guidance, DDIM in {FEW} steps")
    rows = []
    for variant in BASES:
        run = page.runs / f"enhanced-{data}-{variant}"
        found = {weight: measure(judge, run, **options, guidance_weight=weight) for weight in WEIGHTS}
        rows += [[f"{variant}, {weight:g}", *cells(one)] for weight, one in found.items()]
    page.table(["variant, weight", *HEADER], rows)
    run = page.runs / f"enhanced-{data}-{PICTURED}"
    pictures = [samples(run, **options, guidance_weight=weight) for weight in WEIGHTS]
    told = ", ".join(f"{weight:g}" for weight in WEIGHTS)
    caption = f"{PICTURED}, a column for each class, rows of two: weight {told}"
    page.picture(f"enhanced-{data}-guidance", sheet(pictures), caption)


def variants(page: Page, judge: Judge, data: str) -> None:
    """The table of schedules and predictions, with the average of weights and without."""
    rows = []
    for variant in VARIANTS:
        run = page.runs / f"enhanced-{data}-{variant}"
        options: dict[str, Any] = {"sampler": "euler" if variant == "flow" else "ddim", "num_steps": FEW}
        found = measure(judge, run, **options), measure(judge, run, **options, average=False)
        bits = "" if variant == "flow" else f"{bits_per_dim(judge, run):.2f}"
        quality = [f"{one.frechet:.1f} ({one.recall:.2f})" for one in found]
        rows.append([variant, *quality, bits, minutes(run)])
    page.text(
        f"### Schedules, predictions and averages, {FEW} steps",
        "",
        "Frechet distance, and in brackets recall. Bits per dimension are those of latents, which schedules of other "
        "noise at the first step bound differently.",
    )
    header = ["variant", "with the average", "with the last weights", "bits per dimension", "minutes of training"]
    page.table(header, rows)


@torch.no_grad()
def samples(run: Path, rows: int = 2, **sampling: Any) -> Tensor:
    """A picture (C, H, W) of samples, a column for each class."""
    config, training = load_sampler(run, 1, sampling)
    columns = len(config["classes"])
    images = solution("sample").sample(training, torch.arange(rows * columns) % columns)
    picture: Tensor = solution("visualize").image_grid(images, columns)
    return picture


def sheet(pictures: list[Tensor]) -> Image.Image:
    """Pictures (C, H, W), one below the other."""
    return as_picture(torch.cat(pictures, dim=1))


def verdicts(page: Page, judge: Judge, data: str) -> None:
    """The table of what was to be reached, and whether it was."""

    def found(variant: str, draws: int = DRAWS, sampler: str = "ddim", **options: Any) -> list[float]:
        run = page.runs / f"enhanced-{data}-{variant}"
        steps = {"num_steps": FEW} if sampler == "ddim" else {}
        return [measure(judge, run, noise, sampler=sampler, **steps, **options).frechet for noise in range(draws)]

    ddim, ddpm = {v: found(v) for v in DIFFUSIONS}, {v: found(v, 1, sampler="ddpm") for v in DIFFUSIONS}
    claims = [(f"{v}: DDIM in {FEW} steps within 15 % of DDPM in 1000", ddim[v], ddpm[v], CLOSE) for v in DIFFUSIONS]
    for v in BASES:
        claims += [
            (f"{v}: the average of weights no worse than the last weights", ddim[v], found(v, average=False), 1.0),
            (f"{v}: guidance of weight 2 no worse than of weight 1", found(v, guidance_weight=2.0), ddim[v], 1.0),
        ]
    claims += [
        ("DDPM in 1000: cosine no worse than noise", ddpm["cosine"], ddpm["noise"], 1.0),
        (f"DDIM in {FEW}: velocity no worse than noise", ddim["velocity"], ddim["noise"], 1.0),
    ]
    page.text(
        "### What was to be shown",
        "",
        f"Frechet distances of {DRAWS} draws of noise, of DDPM in 1000 steps of one: their mean, and the least and the "
        "greatest. What holds is said of means.",
    )
    rows = [[claim, spread_of(new), spread_of(old), verdict(new, old, most)] for claim, new, old, most in claims]
    page.table(["claim", "Frechet distance", "compared with", "holds"], rows)


def spread_of(distances: list[float]) -> str:
    """Mean, least and greatest, for a table."""
    around = f" ({min(distances):.1f} to {max(distances):.1f})" if len(distances) > 1 else ""
    return f"{statistics.fmean(distances):.1f}{around}"


def verdict(new: list[float], old: list[float], most: float) -> str:
    """Whether distances are on average at most `most` times others, and whether every one of them is, or none."""
    holds = statistics.fmean(new) <= most * statistics.fmean(old)
    clear = max(new) <= most * min(old) or min(new) > most * max(old)
    return f"{'yes' if holds else 'no'}{'' if clear else ', within what draws differ by'}"


def make_page(planned: list[Planned], runs: Path, out: Path, judges: dict[str, Judge], remark: str) -> Path:
    """Measure every run of Part 3, and write its page. Returns its path."""
    page = Page(runs, out, "PART3.md")
    page.text("# Part 3: better samples, faster")
    how_it_was_made(page, judges, remark)
    page.text(
        f"Every model learns the latents of the VAE with kl_weight {LDM_KL_WEIGHT}, with as many steps of training. "
        "Samples are drawn with the average of the weights where nothing else is said. Variants: noise, the linear "
        "schedule with noise to predict; cosine, the same with the cosine schedule; velocity, the linear schedule with "
        "velocities to predict; flow, straight paths.",
        "",
        WHY,
    )
    for data in DATASETS:
        page.text(f"## {NAMES[data]}", "", "### Samplers")
        judge = judges[data]
        samplers(page, judge, data)
        run = page.runs / f"enhanced-{data}-{PICTURED}"
        pictures = [samples(run), *(samples(run, sampler="ddim", num_steps=steps) for steps in (FEW, FEWER))]
        told = f"{PICTURED}, a column for each class, rows of two: DDPM in 1000 steps, DDIM in {FEW}, DDIM in {FEWER}"
        page.picture(f"enhanced-{data}-samplers", sheet(pictures), told)
        guidance(page, judge, data)
        variants(page, judge, data)
        verdicts(page, judge, data)
    commands(page, planned)
    return page.write()
