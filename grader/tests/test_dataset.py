"""Data sets as the training code sees them: whole tensors of bytes, and batches that follow from the seed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Names

import numpy as np
import pytest
import torch
from PIL import Image
from torch import testing


def test_embedded_sets_load(solved: Names) -> None:
    for name, shape, classes in (("glyphs", (1, 28, 28), 10), ("shapes", (3, 32, 32), 10)):
        images, held_out = solved.dataset.load(name), solved.dataset.load(name, train=False)
        assert images.pixels.shape == (5000, *shape)
        assert len(held_out) == 1000
        assert images.pixels.dtype == torch.uint8
        assert len(images.classes) == classes
        assert not torch.equal(images.pixels[:1000], held_out.pixels)


def test_some_images_come_from_all_over_the_set(solved: Names) -> None:
    images = solved.dataset.Images(torch.zeros(100, 1, 2, 2), torch.arange(100), [])
    assert images.spread(4).labels.tolist() == [0, 25, 50, 75]
    assert images.first(3).labels.tolist() == [0, 1, 2]


def test_unit_and_signed_images(solved: Names) -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8)[:, None, None, None].expand(3, 1, 28, 28)
    testing.assert_close(solved.dataset.unit(pixels)[:, 0, 3, 3], torch.tensor([0, 1, 0.2]))
    signed = solved.dataset.signed(pixels)
    assert signed.shape == (3, 3, 32, 32)
    testing.assert_close(signed[:, :, 16, 16], torch.tensor([[-1.0], [1.0], [-0.6]]).expand(3, 3))
    assert bool((signed[:, :, :2] == -1).all())
    coloured = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    testing.assert_close(solved.dataset.signed(coloured), coloured.float() / 127.5 - 1)


def test_batches_go_through_all_images_in_every_epoch_and_start_anywhere(solved: Names) -> None:
    def batches(first: int, last: int, seed: int = 3) -> list[list[int]]:
        return [index.tolist() for index in solved.dataset.batches(10, 3, seed, first, last)]

    whole = batches(0, 9)
    assert len(whole) == 9
    for epoch in range(3):
        seen = [n for batch in whole[3 * epoch : 3 * epoch + 3] for n in batch]
        assert len(set(seen)) == 9
        assert set(seen) < set(range(10))
    assert whole[:3] != whole[3:6]
    for first in range(9):
        assert batches(first, 9) == whole[first:]
    assert batches(0, 9, seed=4) != whole
    with pytest.raises(solved.dataset.DatasetError, match="10 images, fewer than a batch of 64"):
        next(solved.dataset.batches(10, 64, 0, 0, 1))


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_a_folder_of_pictures(solved: Names, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_picture(tmp_path / split / "red" / "a.png", (255, 0, 0))
        write_picture(tmp_path / split / "blue" / "a.png", (0, 0, 255), (32, 32))
    (tmp_path / "train" / "red" / "notes.txt").write_text("no picture", "utf-8")
    images = solved.dataset.load(f"folder:{tmp_path}")
    assert images.classes == ["blue", "red"]
    assert images.pixels[:, :, 5, 5].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert images.labels.tolist() == [0, 1]
    assert len(solved.dataset.load(f"folder:{tmp_path}", train=False)) == 2


def test_a_folder_without_splits_holds_every_tenth_picture_out(solved: Names, tmp_path: Path) -> None:
    for n in range(20):
        write_picture(tmp_path / "grey" / f"{n:02}.png", (n, n, n), (32, 32))
    found = {
        train: solved.dataset.load(f"folder:{tmp_path}", train=train).pixels[:, 0, 0, 0] for train in (True, False)
    }
    assert found[False].tolist() == [0, 10]
    assert sorted([*found[True].tolist(), 0, 10]) == list(range(20))


def test_the_classes_of_a_folder_are_those_of_its_training_images(solved: Names, tmp_path: Path) -> None:
    for split, names in (("train", "abc"), ("test", "bc")):
        for n, name in enumerate(names):
            write_picture(tmp_path / split / name / "x.png", (n, n, n))
    held_out = solved.dataset.load(f"folder:{tmp_path}", train=False)
    assert (held_out.classes, held_out.labels.tolist()) == (["a", "b", "c"], [1, 2])
    write_picture(tmp_path / "test" / "d" / "x.png", (0, 0, 0))
    with pytest.raises(solved.dataset.DatasetError, match=r"has the class d, which .* does not have"):
        solved.dataset.load(f"folder:{tmp_path}", train=False)


def test_damaged_and_hidden_files_of_a_folder_are_left_out_and_counted(
    solved: Names, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "train" / "red" / "whole.png", (255, 0, 0))
    whole = (tmp_path / "train" / "red" / "whole.png").read_bytes()
    for name, content in {"cut.png": whole[: len(whole) // 2], "text.png": b"no picture", "._whole.png": b"\0"}.items():
        (tmp_path / "train" / "red" / name).write_bytes(content)
    (tmp_path / "train" / "empty").mkdir()
    write_picture(tmp_path / "train" / ".ipynb_checkpoints" / "x.png", (0, 0, 0))
    images = solved.dataset.load(f"folder:{tmp_path}")
    assert (len(images), images.classes) == (1, ["red"])
    said = capsys.readouterr().err
    assert said.startswith(f"2 files of {tmp_path / 'train'} cannot be read as pictures")
    assert said.count("\n") == 1
    with pytest.raises(solved.dataset.DatasetError, match="holds no pictures to test on"):
        solved.dataset.load(f"folder:{tmp_path}", train=False)


def test_errors_say_what_to_do(solved: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading:\nTried many mirrors")

    monkeypatch.setenv("DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(datasets, "MNIST", offline)
    for name, says in (
        ("mnist", "could not be downloaded; connect to the internet once, set DATA_DIR"),
        ("imagenet", "There is no data set imagenet; there are shapes"),
        (f"folder:{tmp_path}", "holds no pictures"),
        ("folder:/nonexistent", "holds no pictures"),
    ):
        with pytest.raises(solved.dataset.DatasetError, match=says) as caught:
            solved.dataset.load(name)
        assert "\n" not in str(caught.value)


def test_mnist_is_read_where_it_lies(solved: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images in the files that torchvision reads: a header of big-endian integers, then bytes."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    for split in ("train", "t10k"):
        header = np.array([2051, 2, 28, 28], ">i4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(np.array([2049, 2], ">i4").tobytes() + bytes([7, 3]))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    images = solved.dataset.load("mnist")
    assert images.pixels.shape == (2, 1, 28, 28)
    assert images.pixels[:, 0].numpy().tolist() == pixels.tolist()
    assert images.labels.tolist() == [7, 3]
