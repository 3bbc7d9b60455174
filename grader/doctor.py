"""What a machine has for grading: Python, torch, a device, and the layers that isolate a submission."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .engine import landlock
from .engine.isolation import Isolation
from .engine.launcher import StartError, default_launcher

REMEDIES = {
    "limits": "Linux and macOS have resource limits; grade there.",
    "user": "Root gives every worker a user of its own if Python lies where other users may read it (install it "
    "outside root's home folder), or if Landlock is there and root has CAP_DAC_READ_SEARCH (`docker run --cap-add "
    "DAC_READ_SEARCH`). Or grade as an ordinary user: without root the other layers do.",
    "capabilities": "Grade on Linux.",
    "parent": "Grade on Linux.",
    "inspection": "Grade on Linux.",
    "privileges": "Grade on Linux 3.5 or newer.",
    "landlock": "Grade on Linux 5.13 or newer, with `landlock` in /sys/kernel/security/lsm. Without it a worker that "
    "has seccomp is sealed, and can import only what is imported beforehand.",
    "seccomp": "Grade on Linux, x86_64 or aarch64, with seccomp filters allowed (a container must not forbid them).",
}


# Since which version Landlock, and since which release Linux, can stop what; before, seccomp does so alone.
LANDLOCK_STOPS = {
    3: ("6.2", "truncation"),
    4: ("6.7", "TCP"),
    5: ("6.10", "requests to devices"),
    6: ("6.12", "signals and abstract sockets"),
}


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        facts: pairs of a name and what was found.
        isolation: what a worker found, None if none started.
        problem: why none started, or "".
    """

    facts: list[tuple[str, str]]
    isolation: Isolation | None
    problem: str = ""


def examine() -> Report:
    """Look at this machine, and start one worker on an empty folder."""
    with closing(default_launcher()) as launcher, TemporaryDirectory() as name:
        facts = [
            ("Python", f"{platform.python_version()} at {sys.executable}"),
            ("system", f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} cores"),
            ("user", "root" if hasattr(os, "geteuid") and os.geteuid() == 0 else "an ordinary user"),
            *((package, _package(package)) for package in ("torch", "torchvision")),
            ("device", _device()),
            ("Landlock", describe_landlock(landlock.version())),
        ]
        try:
            process = launcher.spawn(Path(name).resolve())
        except StartError as error:
            return Report(facts, None, str(error))
        process.end()
        return Report(facts, process.isolation)


def describe_landlock(version: int) -> str:
    """Version of Landlock, what it lacks, and what follows."""
    if version == 0:
        return "none: a worker is sealed, opens no file, and imports only what was imported beforehand"
    later = {since: entry for since, entry in LANDLOCK_STOPS.items() if since > version}
    lacking = [f"{what} (Linux {release})" for release, what in later.values()]
    return f"version {version}" + (f"; seccomp alone stops {', '.join(lacking)}" if lacking else "")


def _package(name: str) -> str:
    """Version of a package, or why it does not import."""
    try:
        return str(importlib.import_module(name).__version__)
    except Exception as error:  # a package that is broken can raise anything, and saying so is the point
        note = "; it is needed to load MNIST and CIFAR-10, not to grade" if name == "torchvision" else ""
        return f"does not import ({type(error).__name__}: {str(error)[:100]}){note}"


def _device() -> str:
    """The GPU, if torch can use one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu; torch finds no GPU"


def print_report(report: Report, console: Console | None = None) -> None:
    """Print what was found, and what to do about what is missing."""
    console = console or Console(highlight=False)
    table = Table(show_header=False, box=None)
    for name, found in report.facts:
        table.add_row(name, Text(found))
    if report.isolation is None:
        console.print(table)
        console.print(Text(f"No worker started: {report.problem}", "red"))
        return
    for name, state in report.isolation.layers.items():
        remedy = "" if state == "on" else f"\n{REMEDIES.get(name, '')}"
        table.add_row(f"layer: {name}", Text(f"{state}{remedy}", "green" if state == "on" else "yellow"))
    for what, stopped in report.isolation.stopped.items():
        table.add_row("a worker tried to", Text(f"{what}: {'stopped' if stopped else 'NOT STOPPED'}"))
    console.print(table)
    console.print(Text(f"isolation: {report.isolation.summary}", "bold"))
