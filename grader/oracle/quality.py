"""How good samples are, without Inception's weights: distances on the features of a small classifier trained here.

A Frechet distance depends on the number of samples, and on the classifier that gives the features: it means something
only beside the same distance between two sets of real images of the same number, the floor. It does not tell bad
images from missing ones; recall and precision do. Precision alone is fooled by a generator that repeats a few images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64
ROWS = 512  # of a matrix of distances held at once


class Classifier(nn.Module):
    """A small convolutional network whose features know the classes of a data set.

    Args:
        channels: C of the images, 1 or 3.
        num_classes: number of classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"Images have 1 or 3 channels, not {channels}.")
        self.channels = channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, FEATURES, 3, padding=1, bias=False),
            nn.BatchNorm2d(FEATURES),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(2),  # what is where, by quarters of the image; averages would drown small shapes
            nn.Flatten(),
            nn.Linear(4 * FEATURES, FEATURES),
        )
        self.head = nn.Linear(FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, 64), of any sign, of images (B, C, H, W) in [0, 1], H and W multiples of 4.

        Raises ValueError if the images are of another shape.
        """
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(
                f"Images are (B, {self.channels}, H, W) with H and W multiples of 4; these are {tuple(x.shape)}."
            )
        out: Tensor = self.body(2 * x - 1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W) in [0, 1]; raises as `features` does."""
        logits: Tensor = self.head(F.relu(self.features(x)))
        return logits


def train_classifier(
    pixels: Tensor, labels: Tensor, num_classes: int, epochs: int, seed: int, batch: int = 64
) -> Classifier:
    """A classifier trained on labelled images, on the CPU, in evaluation mode.

    The same arguments give the same weights on one machine with one number of threads; the global random state is
    left alone.

    Args:
        pixels: uint8 (N, C, H, W).
        labels: integers (N,) in [0, num_classes).
        num_classes: number of classes.
        epochs: how often every image is seen; what does not fill a batch is left out of an epoch.
        seed: of the initial weights and the order of the images.
        batch: images per step; fewer if there are fewer.

    Raises ValueError if the images are not bytes, or the labels do not fit them.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"The images are {pixels.dtype}; they should be bytes (torch.uint8).")
    if len(pixels) == 0 or labels.shape != (len(pixels),):
        raise ValueError(f"There are {len(pixels)} images and labels {tuple(labels.shape)}; each image needs one.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"Labels go from {labels.min()} to {labels.max()}; there are {num_classes} classes.")
    images, labels, batch = _unit(pixels.cpu()), labels.cpu().long(), min(batch, len(pixels))
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(pixels.shape[1], num_classes)

    steps = len(images) // batch
    optimizer = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=max(1, epochs * steps))
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=order)[: steps * batch].split(batch):
            loss = F.cross_entropy(classifier(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


class RidgeClassifier:
    """Labels by least squares with a ridge, on the pixels and their squares: for small images, in no time.

    Args:
        images: (N, C, H, W) floating-point numbers of any range.
        labels: (N,) integers in [0, num_classes).
        num_classes: number of classes.
        ridge: weight of the squared norm of the coefficients.
    """

    def __init__(self, images: Tensor, labels: Tensor, num_classes: int, ridge: float = 10.0):
        inputs = self._inputs(images)
        targets = F.one_hot(labels, num_classes).double()
        penalty = ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
        self.coefficients = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images (B, C, H, W) that get their labels (B,)."""
        found = (self._inputs(images) @ self.coefficients).argmax(1)
        return float((found == labels).double().mean())

    @staticmethod
    def _inputs(images: Tensor) -> Tensor:
        x = images.double().flatten(1)
        return torch.cat([x, x.square(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Frechet distance between Gaussians with the means and covariances of two sets of features.

    |mean(a) - mean(b)|^2 + tr(Sa + Sb - 2 (Sa Sb)^(1/2)), with the unbiased covariances Sa and Sb, in float64. Heusel
    et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (2017), equation (6);
    Dowson and Landau, "The Frechet distance between multivariate normal distributions" (1982).

    Args:
        a: (N, D), N at least 2.
        b: (M, D), M at least 2.

    Returns the distance in squared units of the features, at least 0. Raises ValueError if the shapes do not fit or
    a number is not finite.
    """
    _expect_features(a, b, rows=(2, 2))
    a, b = a.detach().double(), b.detach().double()
    mean = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    cov_a, cov_b = a.T.cov().reshape(a.shape[1], -1), b.T.cov().reshape(b.shape[1], -1)
    # tr (Sa Sb)^(1/2) = tr (Sa^(1/2) Sb Sa^(1/2))^(1/2), the sum of the singular values of Sb^(1/2) Sa^(1/2). Taken as
    # singular values they keep their digits; as roots of eigenvalues near zero they would lose half of them.
    shared = torch.linalg.svdvals(_root(cov_b) @ _root(cov_a)).sum()
    return max(0.0, (mean + cov_a.trace() + cov_b.trace() - 2 * shared).item())


def recall(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """The share of real features that lie in the manifold of the fake ones: low where modes were dropped.

    The manifold of a set is the union of the balls around its points that reach to the k-th nearest other point.
    Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models" (2019), equation (2).

    Args:
        real: (N, D).
        fake: (M, D), M greater than k.
        k: which neighbour gives the radius.

    Returns a number in [0, 1]. Raises ValueError if the shapes do not fit, a number is not finite or k is not positive.
    """
    return _share_inside(real, fake, k)


def precision(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """The share of fake features that lie in the manifold of the real ones (N greater than k): see `recall`."""
    return _share_inside(fake, real, k)


def psnr(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(peak^2 / mse) of every image, in decibels.

    Args:
        x: (B, ...).
        y: as x.
        peak: the range of the values: 1 for [0, 1], 2 for [-1, 1], 255 for bytes.

    Returns (B,) in float64, infinite where x and y are equal. The error is a mean over all elements of an image.
    Raises ValueError if the shapes differ or hold no element.
    """
    if x.shape != y.shape or x.ndim < 2 or x[:1].numel() == 0:
        raise ValueError(f"Both should be (B, ...) of one shape; they are {tuple(x.shape)} and {tuple(y.shape)}.")
    mse = (x.double() - y.double()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(peak**2 / mse)


@dataclass(frozen=True)
class Quality:
    """How good samples are.

    Attributes:
        frechet: Frechet distance of the samples from real images, in squared units of the features.
        floor: Frechet distance between two sets of real images of the same number: as low as `frechet` can get.
        recall: share of real images in the manifold of the samples, in [0, 1].
        precision: share of samples in the manifold of the real images, in [0, 1].
    """

    frechet: float
    floor: float
    recall: float
    precision: float


def quality(classifier: Classifier, real: Tensor, fake: Tensor, more_real: Tensor, batch: int = 256) -> Quality:
    """How good the samples `fake` are, measured on the features of a classifier.

    Args:
        classifier: trained on the data set that the samples imitate.
        real: images (N, C, H, W), bytes or floats in [0, 1], that the classifier was not trained on.
        fake: samples, as real.
        more_real: images as real, none of which is in `real`.
        batch: images that go through the classifier at once.

    Raises ValueError if the three sets differ in shape (a Frechet distance depends on N), leave [0, 1], or the two
    sets of real images are the same.
    """
    if not real.shape == fake.shape == more_real.shape:
        shapes = ", ".join(str(tuple(images.shape)) for images in (real, fake, more_real))
        raise ValueError(f"The three sets should be of one shape and number; they are {shapes}.")
    if torch.equal(real, more_real):
        raise ValueError("The two sets of real images are the same; the floor needs others.")
    features = [_features(classifier, images, batch) for images in (real, fake, more_real)]
    return Quality(
        frechet=frechet_distance(features[0], features[1]),
        floor=frechet_distance(features[0], features[2]),
        recall=recall(features[0], features[1]),
        precision=precision(features[0], features[1]),
    )


@torch.no_grad()
def _features(classifier: Classifier, images: Tensor, batch: int) -> Tensor:
    """Features (N, 64) of images (N, C, H, W), on the classifier's device, whatever the mode it is in."""
    device = next(classifier.parameters()).device
    was_training = classifier.training
    classifier.eval()
    found = [classifier.features(_unit(part.to(device))) for part in images.split(batch)]
    classifier.train(was_training)
    return torch.cat(found)


def _unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; raises ValueError if floats leave that range."""
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not ((images >= 0) & (images <= 1)).all():  # false for NaN too
        raise ValueError("The images hold values outside [0, 1], or that are not numbers.")
    return images.float()


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance; eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _share_inside(points: Tensor, centres: Tensor, k: int) -> float:
    """The share of points in the union of the balls around the centres that reach to their k-th nearest neighbour."""
    if k < 1:
        raise ValueError(f"k is {k}; it should be positive.")
    _expect_features(centres, points, rows=(k + 1, 1))
    points, centres = points.detach().double(), centres.detach().double()
    # A centre is its own nearest neighbour, hence k + 1.
    radii = torch.cat([_distances(part, centres).kthvalue(k + 1, dim=1).values for part in centres.split(ROWS)])
    inside = torch.cat([(_distances(part, centres) <= radii).any(dim=1) for part in points.split(ROWS)])
    return inside.double().mean().item()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N, M), zero between equal points: through a matrix product they would not be."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _expect_features(a: Tensor, b: Tensor, rows: tuple[int, int]) -> None:
    """Raise ValueError unless a (N, D) and b (M, D) fit each other, are finite and have `rows` at least."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"Features are (N, D) and (M, D); these are {tuple(a.shape)} and {tuple(b.shape)}.")
    if len(a) < rows[0] or len(b) < rows[1]:
        raise ValueError(f"At least {rows[0]} and {rows[1]} rows of features are needed, not {len(a)} and {len(b)}.")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("The features hold values that are not finite.")
