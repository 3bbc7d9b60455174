"""The embedded data sets: the same bits everywhere, balanced, and what they say they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, features

from data import embedded
from data.embedded import GLYPH_CLASSES, SHAPE_CLASSES, glyphs, shapes

Made = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
BOTH = pytest.mark.parametrize("make", [glyphs, shapes])


# More images than two chunks, so that their seams are pinned too. These change only if the data sets are changed.
@pytest.mark.parametrize(
    ("make", "digest"),
    [
        (glyphs, "814919beb1267162b1be5c9214bbcf27e4f43f221df0210c47d5167f3a4135c2"),
        (shapes, "d7f9e170c83c633deba4f284fafd45fdff6c4604a992b89546fde555ff183a64"),
    ],
    ids=["glyphs", "shapes"],
)
def test_the_bits_are_pinned(make: Made, digest: str) -> None:
    images, labels = make(600, 7)
    assert hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest() == digest


@BOTH
def test_a_seed_gives_one_set_and_another_seed_another(make: Made) -> None:
    images, labels = make(100, 3)
    again, same_labels = make(100, 3)
    other, other_labels = make(100, 4)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(labels, other_labels)
    assert (images.reshape(100, -1) != other.reshape(100, -1)).any(axis=1).all()


@pytest.mark.parametrize(("make", "shape"), [(glyphs, (1, 28, 28)), (shapes, (3, 32, 32))])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_shapes_and_types(make: Made, shape: tuple[int, ...], count: int) -> None:
    images, labels = make(count, 0)
    assert images.shape == (count, *shape)
    assert labels.shape == (count,)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.flags.c_contiguous
    assert images.flags.writeable


@BOTH
def test_classes_are_balanced_and_shuffled(make: Made) -> None:
    labels = make(1000, 0)[1]
    np.testing.assert_array_equal(np.bincount(labels), [100] * 10)
    assert len(set(labels[:50])) > 5
    assert sorted(np.bincount(make(25, 0)[1])) == [2] * 5 + [3] * 5


def test_no_image_occurs_twice() -> None:
    for make in (glyphs, shapes):
        assert len(np.unique(make(1000, 0)[0].reshape(1000, -1), axis=0)) == 1000


def test_glyphs_are_grey_on_black_and_roughly_centred() -> None:
    images = glyphs(1000, 0)[0][:, 0].astype(float)
    # The shear turns the foot of a wide digit to the border at times; ink there is rare and faint.
    assert images[:, [0, -1]].mean() < 0.2
    assert images[:, :, [0, -1]].mean() < 0.2
    assert images.max(axis=(1, 2)).min() > 100
    grey = (images > 20) & (images < 180)
    assert grey.any(axis=(1, 2)).all(), "edges are smooth"
    axis = np.arange(28) - 13.5
    ink = images.sum(axis=(1, 2))
    assert np.abs((images * axis).sum(axis=(1, 2)) / ink).max() < 5
    assert np.abs((images * axis[:, None]).sum(axis=(1, 2)) / ink).max() < 5


def test_shapes_stay_inside_and_have_their_colour() -> None:
    images, labels = shapes(1000, 0)
    signed = images.astype(float)
    border = np.concatenate([signed[:, :, 0], signed[:, :, -1], signed[:, :, :, 0], signed[:, :, :, -1]], axis=2)
    # A border is background: as even as its noise of 0.03 * 255 on either side.
    assert border.std(axis=2).max() < 8
    background = border.mean(axis=2)[:, :, None, None]
    for label, name in enumerate(SHAPE_CLASSES):
        mine = labels == label
        change = np.abs(signed[mine] - background[mine]).sum(axis=1, keepdims=True)
        farthest = change >= np.quantile(change, 0.95, axis=(2, 3), keepdims=True)
        colour = (signed[mine] * farthest).sum(axis=(2, 3)) / farthest.sum(axis=(2, 3))
        wanted = 255 * np.array(embedded.COLOURS[name.split()[0]])
        assert np.abs(colour - wanted).max() < 40, name


def test_there_are_ten_names_each_and_no_shape_or_colour_tells_the_class() -> None:
    assert len(set(GLYPH_CLASSES)) == len(set(SHAPE_CLASSES)) == 10
    colours, kinds = zip(*(name.split() for name in SHAPE_CLASSES), strict=True)
    assert {colours.count(name) for name in colours} == {kinds.count(name) for name in kinds} == {2}


@BOTH
def test_a_negative_count_is_refused(make: Made) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        make(-1, 0)


@pytest.mark.skipif(not features.check("freetype2"), reason="This Pillow was built without FreeType: it has no font.")
def test_the_atlas_drawn_anew_is_close_to_the_one_kept() -> None:
    with Image.open(embedded.ATLAS) as image:
        kept = np.asarray(image.convert("L"), float)
    drawn = embedded.draw_atlas()
    assert drawn.shape == kept.shape == (embedded.CELL, 10 * embedded.CELL)
    assert np.abs(drawn - kept).mean() < 1
