"""Run directories: what training leaves behind. Given: there is nothing to fill in here.

A run directory holds config.json, train.csv and test.csv (one row a line of numbers), checkpoint.pt, pictures, and
events for TensorBoard.
"""

import csv
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visualize import save_image

# What training and sampling write into a run directory. Nothing else there is ever deleted.
OURS = re.compile(r"config\.json|(train|test)\.csv|checkpoint\.(pt|tmp)|events\.out\.tfevents.*|[a-z-]+-\d{6,}\.png")


class RunError(Exception):
    """A run directory is not what it should be; the message says what to do."""


class Run:
    """One run directory.

    Args:
        folder: where it is.
        writes: whether this process writes; of several that train together, one does.
    """

    def __init__(self, folder: Path, writes: bool = True):
        self.folder = Path(folder)
        self.writes = writes
        self._board: Any = None

    def start(self, config: dict[str, Any], overwrite: bool = False) -> None:
        """Begin a new run. What a run without a checkpoint has left is deleted, and with `overwrite` any run.

        Raises RunError if the directory holds a run with a checkpoint, or cannot be written.
        """
        if not self.writes:  # what is there may be what the process that writes has just begun
            return
        if (self.folder / "checkpoint.pt").exists() and not overwrite:
            raise RunError(
                f"{self.folder} holds a run; continue it with --resume, replace it with --overwrite, or give another "
                "--run-dir."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if OURS.fullmatch(path.name):
                    path.unlink()
            (self.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise RunError(f"{self.folder} cannot be written: {error.strerror}; give another --run-dir.") from error

    def config(self) -> dict[str, Any]:
        """What the run was started with. Raises RunError if there is no run."""
        try:
            return json.loads((self.folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.folder} is not a run directory: {error}; give one that train.py has made."
            ) from error

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write a checkpoint. A process killed at any moment leaves the old one or the new one, and never a part.

        Raises RunError if the disk is full, say; then the old one stays.
        """
        if not self.writes:
            return
        unfinished = self.folder / "checkpoint.tmp"
        try:
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.folder / "checkpoint.pt")
        except (OSError, RuntimeError) as error:  # torch wraps what the system says in the latter
            unfinished.unlink(missing_ok=True)
            raise RunError(
                f"No checkpoint could be written to {self.folder}: is the disk full? The last one is still there; make "
                "room, and continue with --resume."
            ) from error

    def load(self) -> dict[str, Any]:
        """The last checkpoint, on the CPU. Raises RunError if there is none that can be read."""
        try:
            return torch.load(self.folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise RunError(f"{self.folder} has no checkpoint yet; start again without --resume.") from error
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise RunError(
                f"{self.folder / 'checkpoint.pt'} is damaged; train again with --overwrite, or with another --run-dir."
            ) from error

    def rewind(self, step: int) -> None:
        """Drop the numbers that were written after `step`, which are about to be computed again."""
        for path in self.folder.glob("*.csv") if self.writes else ():
            header, *rows = path.read_text("utf-8").splitlines(keepends=True)
            kept = [row for row in rows if int(row.split(",")[0]) <= step]
            path.write_text("".join([header, *kept]), "utf-8", newline="\n")

    def log(self, split: str, step: int, numbers: dict[str, float]) -> None:
        """Append numbers to <split>.csv and to TensorBoard."""
        if not self.writes:
            return
        path = self.folder / f"{split}.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", *numbers])
            writer.writerow([step, *(f"{value:.6g}" for value in numbers.values())])
        for name, value in numbers.items():
            self.board(step).add_scalar(f"{split}/{name}", value, step)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        """Write an image (C, H, W) in [0, 1] to <name>-<step>.png and to TensorBoard."""
        if self.writes:
            save_image(image, self.folder / f"{name}-{step:06d}.png", scale=2)
            self.board(step).add_image(name, image.clamp(0, 1), step)

    def board(self, step: int) -> Any:
        """TensorBoard's writer, which forgets what an earlier process wrote after `step`."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=step)
        return self._board

    def close(self) -> None:
        """Write out what TensorBoard has pending."""
        if self._board is not None:
            self._board.close()
