"""Measures of sample quality against values known in closed form, and the classifier on the embedded data sets."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, testing

from data.embedded import glyphs, shapes
from grader.oracle.quality import (
    Classifier,
    frechet_distance,
    precision,
    psnr,
    quality,
    recall,
    train_classifier,
)

D = 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(mean: Tensor, root: Tensor, seed: int, count: int = 200) -> Tensor:
    """Features whose sample mean is `mean` and whose sample covariance is root root^T, both exactly."""
    x = draw(count, len(mean), seed=seed)
    x = x - x.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return mean + white @ root.T


def rotation(size: int = D, seed: int = 9) -> Tensor:
    return torch.linalg.qr(draw(size, size, seed=seed)).Q


ZERO, ONE = torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)


# ---------------------------------------------------------------- Frechet distance


def test_frechet_of_shifted_gaussians_is_the_squared_shift() -> None:
    shift = draw(D, seed=5)
    root = draw(D, D, seed=6)
    found = frechet_distance(sample(ZERO, root, 0), sample(shift, root, 1))
    assert found == pytest.approx(shift.square().sum().item(), rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1.0, 4.0), (0.25, 9.0), (2.0, 2.0), (1e-6, 1e3)])
def test_frechet_of_isotropic_gaussians(a: float, b: float) -> None:
    found = frechet_distance(sample(ZERO, math.sqrt(a) * ONE, 0), sample(ZERO, math.sqrt(b) * ONE, 1, count=300))
    assert found == pytest.approx(D * (math.sqrt(a) - math.sqrt(b)) ** 2, rel=1e-9, abs=1e-9)


def test_frechet_of_covariances_that_commute() -> None:
    q = rotation()
    a, b = draw(D, seed=1).exp(), draw(D, seed=2).exp()  # standard deviations along the columns of q
    found = frechet_distance(sample(ZERO, q * a, 0), sample(ONE[0], q * b, 1))
    assert found == pytest.approx(1 + (a - b).square().sum().item(), rel=1e-9)


def test_frechet_of_full_covariances_in_the_plane() -> None:
    # Of a 2x2 matrix with eigenvalues p, q: (sqrt p + sqrt q)^2 = trace + 2 sqrt(det).
    mean, a, b = torch.zeros(2, dtype=torch.float64), draw(2, 2, seed=1), draw(2, 2, seed=2)
    cov_a, cov_b = a @ a.T, b @ b.T
    product = cov_a @ cov_b
    shared = torch.sqrt(product.trace() + 2 * product.det().sqrt())
    expected = (cov_a.trace() + cov_b.trace() - 2 * shared).item()
    assert frechet_distance(sample(mean, a, 0), sample(mean, b, 1)) == pytest.approx(expected, rel=1e-9)


def test_frechet_from_a_single_point_is_the_variance_and_the_squared_shift() -> None:
    point = torch.ones(50, D, dtype=torch.float64)
    assert frechet_distance(sample(ZERO, 3 * ONE, 0), point) == pytest.approx(D * 9 + D, rel=1e-9)


def test_frechet_is_zero_for_equal_sets_even_where_the_covariance_is_singular() -> None:
    for x in (draw(500, 64), draw(20, 64), draw(500, 3) @ draw(3, 64), torch.ones(5, 64)):
        assert 0 <= frechet_distance(x, x) < 1e-10


def test_frechet_is_symmetric_and_the_same_in_any_orientation() -> None:
    a, b = draw(300, D) @ draw(D, D, seed=3), draw(200, D, seed=1) + 0.5
    found = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(found, rel=1e-9)
    q = rotation()
    assert frechet_distance(a @ q, b @ q) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(a + 100, b + 100) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(2 * a, 2 * b) == pytest.approx(4 * found, rel=1e-9)


def test_frechet_of_float32_and_of_one_dimension() -> None:
    a, b = draw(100, 1), draw(100, 1, seed=1) * 2 + 1
    expected = (a.mean() - b.mean()).item() ** 2 + (a.std() - b.std()).item() ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a.float(), b.float().requires_grad_()) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- recall and precision


def test_equal_sets_are_covered_and_far_ones_not_at_all() -> None:
    x = draw(600, D)  # more than one chunk of rows
    assert recall(x, x) == precision(x, x) == 1
    assert recall(x, x + 100) == precision(x, x + 100) == 0


def test_recall_and_precision_by_hand() -> None:
    # The nearest neighbours of the fakes 0, 1, 3 are 1, 1 and 2 away: their balls cover [-1, 5].
    fake, real = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-1.0], [5.0], [5.1], [-1.1]])
    assert recall(real, fake, k=1) == 0.5
    # Those of the reals are 0.1 away, and no fake is that near to one.
    assert precision(real, fake, k=1) == 0
    # Second neighbours of the fakes are 3, 2 and 3 away: [-3, 6].
    assert recall(real, fake, k=2) == 1


def test_a_dropped_mode_lowers_recall_and_not_precision() -> None:
    modes = torch.tensor([0.0, 50.0], dtype=torch.float64)[torch.arange(400) % 2, None]
    real = draw(400, 2) + modes
    only_one = draw(400, 2, seed=1)
    both = draw(400, 2, seed=2) + modes
    assert recall(real, both) > 0.9
    assert 0.4 < recall(real, only_one) <= 0.5
    assert precision(real, both) > 0.9
    assert precision(real, only_one) > 0.9


def test_half_garbage_lowers_precision_and_not_recall() -> None:
    real, fake = draw(400, 2), draw(400, 2, seed=1)
    fake[::2] += 1000 * draw(200, 2, seed=2)
    assert precision(real, fake) < 0.55
    assert recall(real, fake) > 0.9


def test_repeated_points_have_balls_of_radius_zero() -> None:
    point = torch.zeros(10, D)
    assert recall(point, point) == 1
    assert recall(point + 1e-6, point) == 0


# ---------------------------------------------------------------- PSNR


@pytest.mark.parametrize(("error", "peak", "decibels"), [(0.1, 1.0, 20), (1.0, 1.0, 0), (0.02, 2.0, 40), (255, 255, 0)])
def test_psnr_of_known_errors(error: float, peak: float, decibels: float) -> None:
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    found = psnr(x, x + error, peak)
    testing.assert_close(found, torch.full((2,), decibels, dtype=torch.float64), atol=1e-9, rtol=0)


def test_psnr_is_per_image_and_infinite_for_equal_ones() -> None:
    x = torch.zeros(2, 1, 2, 2)
    y = x.clone()
    y[1, 0, 0, 0] = 0.2  # a mean squared error of 0.01
    testing.assert_close(psnr(x, y), torch.tensor([math.inf, 20], dtype=torch.float64), atol=1e-6, rtol=0)


def test_psnr_of_bytes_does_not_wrap_around() -> None:
    x, y = torch.tensor([[10]], dtype=torch.uint8), torch.tensor([[20]], dtype=torch.uint8)
    assert psnr(x, y, 255).item() == psnr(y, x, 255).item() == pytest.approx(20 * math.log10(25.5))


# ---------------------------------------------------------------- the classifier, and samples measured on it


def embedded(make: Callable, count: int, seed: int) -> tuple[Tensor, Tensor]:
    images, labels = make(count, seed)
    return torch.from_numpy(images), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def knows_glyphs() -> Classifier:
    return train_classifier(*embedded(glyphs, 4000, 0), num_classes=10, epochs=3, seed=0)


@pytest.fixture(scope="module")
def knows_shapes() -> Classifier:
    return train_classifier(*embedded(shapes, 4000, 0), num_classes=10, epochs=4, seed=0)


@pytest.mark.parametrize(("fixture", "make"), [("knows_glyphs", glyphs), ("knows_shapes", shapes)])
def test_the_classifier_knows_images_it_never_saw(fixture: str, make: Callable, request: pytest.FixtureRequest) -> None:
    classifier = request.getfixturevalue(fixture)
    pixels, labels = embedded(make, 2000, 1)
    with torch.no_grad():
        right = classifier(pixels.float() / 255).argmax(dim=1) == labels
    assert right.double().mean() > 0.97


def test_training_is_repeatable_and_leaves_the_global_random_state_alone() -> None:
    pixels, labels = embedded(glyphs, 150, 0)
    before = torch.get_rng_state()
    first = train_classifier(pixels, labels, num_classes=10, epochs=1, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    torch.manual_seed(99)
    again = train_classifier(pixels, labels, num_classes=10, epochs=1, seed=3)
    other = train_classifier(pixels, labels, num_classes=10, epochs=1, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 32)])
def test_shapes_of_features_and_logits(shape: tuple[int, ...]) -> None:
    classifier = Classifier(channels=shape[0], num_classes=7).eval()
    x = torch.rand(5, *shape)
    assert classifier.features(x).shape == (5, 64)
    assert classifier(x).shape == (5, 7)


def test_real_images_are_as_good_as_the_floor_and_noise_is_not(knows_glyphs: Classifier) -> None:
    real, fake, more = (embedded(glyphs, 500, seed)[0] for seed in (1, 2, 3))
    good = quality(knows_glyphs, real, fake, more)
    assert 0.2 * good.floor < good.frechet < 5 * good.floor  # two draws of one thing
    assert min(good.recall, good.precision) > 0.8
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0))
    bad = quality(knows_glyphs, real, noise, more)
    assert bad.floor == good.floor
    assert bad.frechet > 100 * bad.floor
    assert bad.recall == 0
    assert bad.precision < 0.5  # not 0: all noise looks alike, and may fall into the ball of an outlier


def test_frechet_grows_with_the_noise_on_samples(knows_glyphs: Classifier) -> None:
    real, fake, more = (embedded(glyphs, 500, seed)[0] / 255 for seed in (1, 2, 3))
    noise = torch.randn(fake.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(fake + amount * noise).clamp(0, 1) for amount in (0, 0.1, 0.2, 0.4)]
    found = [quality(knows_glyphs, real, images, more).frechet for images in noisy]
    assert found == sorted(found)
    assert found[2] > 5 * found[0]


def test_a_few_images_repeated_fool_precision_but_not_recall(knows_glyphs: Classifier) -> None:
    real, fake, more = (embedded(glyphs, 500, seed)[0] for seed in (1, 2, 3))
    found = quality(knows_glyphs, real, fake[:20].repeat(25, 1, 1, 1), more)
    assert found.precision > 0.7
    assert found.recall < 0.1
    assert found.frechet > 5 * found.floor


def test_missing_classes_show_in_recall_and_frechet_not_in_precision(knows_shapes: Classifier) -> None:
    real, more = (embedded(shapes, 500, seed)[0] for seed in (1, 2))
    pixels, labels = embedded(shapes, 1000, 3)
    found = quality(knows_shapes, real, pixels[labels < 5], more)
    assert found.frechet > 10 * found.floor
    assert found.recall < 0.6
    assert found.precision > 0.8


def test_quality_depends_on_neither_batch_nor_scale_of_the_numbers_nor_mode(knows_glyphs: Classifier) -> None:
    sets = [embedded(glyphs, 60, seed)[0] for seed in (1, 2, 3)]
    expected = quality(knows_glyphs, *sets)
    knows_glyphs.train()
    try:
        found = quality(knows_glyphs, *(images.double() / 255 for images in sets), batch=7)
        assert knows_glyphs.training
    finally:
        knows_glyphs.eval()
    assert found.frechet == pytest.approx(expected.frechet, rel=1e-3)
    assert found.floor == pytest.approx(expected.floor, rel=1e-3)


# ---------------------------------------------------------------- what is refused

BYTES, LABELS = torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.arange(8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(draw(9, 3), draw(9, 4)), "Features are"),
        (lambda: frechet_distance(draw(9), draw(9)), "Features are"),
        (lambda: frechet_distance(draw(9, 3), draw(1, 3)), "At least 2 and 2 rows"),
        (lambda: frechet_distance(draw(9, 3), draw(9, 3).log()), "not finite"),
        (lambda: recall(draw(9, 3), draw(3, 3)), "At least 4 and 1 rows"),
        (lambda: precision(draw(9, 3), draw(0, 3)), "At least 4 and 1 rows"),
        (lambda: recall(draw(9, 3), draw(9, 3), k=0), "k is 0"),
        (lambda: recall(draw(9, 3), draw(9, 3) / 0), "not finite"),
        (lambda: psnr(draw(2, 3), draw(2, 4)), "of one shape"),
        (lambda: psnr(draw(2), draw(2)), "of one shape"),
        (lambda: Classifier(2, 10), "1 or 3 channels"),
        (lambda: Classifier(1, 10)(torch.rand(1, 1, 30, 28)), "multiples of 4"),
        (lambda: Classifier(1, 10)(torch.rand(1, 3, 28, 28)), "multiples of 4"),
        (lambda: train_classifier(BYTES.float(), LABELS, 10, 1, 0), "should be bytes"),
        (lambda: train_classifier(BYTES, LABELS[:5], 10, 1, 0), "each image needs one"),
        (lambda: train_classifier(BYTES, LABELS, 5, 1, 0), "from 0 to 7"),
        (lambda: quality(Classifier(1, 10), BYTES, BYTES[:4], BYTES), "of one shape and number"),
        (lambda: quality(Classifier(1, 10), BYTES, BYTES, BYTES.clone()), "are the same"),
        (lambda: quality(Classifier(1, 10), BYTES, BYTES - 1.0, BYTES + 1), "outside"),
        (lambda: quality(Classifier(1, 10), BYTES, BYTES * math.nan, BYTES + 1), "not numbers"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
