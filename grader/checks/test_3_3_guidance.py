"""Questions 3.3a, labels dropped in training, and 3.3b, classifier-free guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.engine.student import Student, call_each, observe
from grader.oracle.answers import form
from grader.oracle.statistics import rare_event_bounds

from .devices import expect_one_device
from .draw import Draw
from .expect import close, expect_all, expect_unchanged, tensor, wrong
from .noise import RATE, rated, used_between
from .runner import question

CLASSES = 10
LAST_STEP = 999
KEPT = "probability is that of being dropped, not that of being kept."
NULL = "null_label stands for none, whatever number it is."


# ---------------------------------------------------------------- 3.3a


def draw_labels(draw: Draw, null_label: int, *shape: int) -> Tensor:
    """Labels of CLASSES classes, none of which is `null_label`."""
    first = 1 if null_label == 0 else 0
    return first + draw.integers(CLASSES, *shape)


def expect_dropped(value: Any, y: Tensor, null_label: int) -> Tensor:
    """Which labels were dropped, (B,) bool; raises Failure if the result is not y with some labels replaced."""
    if not isinstance(value, Tensor):
        raise wrong("The result is no tensor.", "Return labels as y has them: a (B,) tensor of int64.")
    if value.shape != y.shape:
        raise wrong(f"The result has the shape {tuple(value.shape)}; {tuple(y.shape)} is expected.")
    if value.dtype != torch.int64:
        raise wrong(f"The result is a tensor of {value.dtype}; labels are int64.")
    strays = (value != y) & (value != null_label)
    if bool(strays.any()):
        raise wrong(
            f"With null_label = {null_label} the result has {int(strays.sum())} labels that are neither those of y at "
            "their place nor null_label.",
            _explain_strays(value, y, strays),
        )
    return value == null_label


def _explain_strays(value: Tensor, y: Tensor, strays: Tensor) -> str:
    """Where labels come from that are not right, as a sentence."""
    found = value[strays].unique()
    if len(found) == 1 and int(strays.sum()) > 1:
        return f"Where a label is dropped stands {int(found)}. {NULL}"
    if torch.equal(value.sort().values, y.sort().values):
        return "The labels are in another order; each stays at its place."
    return "A label that is kept stays what and where it is; one that is dropped becomes null_label, and no other."


@question("3.3a")
def test_drop_labels_none_or_all(student: Student, draw: Draw) -> None:
    """With probability 0 every label is kept, with 1 every one is null_label, whatever number that is.

    Right code passes. Code that drops a label where a number of torch.rand is at most the probability, and not below
    it, drops one in 2^24 at probability 0.
    """
    labels = [(draw_labels(draw, null, size), null) for size, null in [(16, CLASSES), (1, 57), (12, 0)]]
    cases: list[dict[str, Any]] = [
        {"y": y, "null_label": null, "probability": p} for y, null in labels for p in (0.0, 1.0)
    ]
    results = call_each(student.guidance.drop_labels, cases)
    dropped = [expect_dropped(got, case["y"], case["null_label"]) for got, case in zip(results, cases, strict=True)]
    for case, gone in zip(cases, dropped, strict=True):
        if bool((gone != bool(case["probability"])).any()):
            flipped = all(bool((g != bool(c["probability"])).all()) for g, c in zip(dropped, cases, strict=True))
            raise wrong(
                f"With probability {case['probability']:g}, {int(gone.sum())} of {len(gone)} labels are dropped.",
                KEPT if flipped else "",
            )


@dataclass(frozen=True)
class Drops:
    """Calls of drop_labels with the same probability.

    Attributes:
        y: (calls, B), the labels.
        dropped: (calls, B), which of them were replaced.
    """

    probability: float
    y: Tensor
    dropped: Tensor

    @property
    def share(self) -> float:
        """The share of the labels that were dropped."""
        return float(self.dropped.double().mean())

    @property
    def shares_of_classes(self) -> list[float]:
        """The same for each of the classes."""
        return [float(self.dropped[self.y == label].double().mean()) for label in range(CLASSES)]


NULL_LABEL = 23
PROBABILITIES = (0.1, 0.8)
LARGE = 8000
CALLS, SMALL = 200, 64
ANY_CLASS = "Every label is dropped with the same probability, whatever its class."
EACH = "Each label is dropped on its own: draw one number for every label, anew in every call."


def drop(student: Student, draw: Draw) -> list[Drops]:
    """One call with many labels for each of PROBABILITIES, then many calls with probability 1/2.

    All classes are equally many. In the many calls, labels 2k and 2k + 1 are of the same class.
    """
    large = [(p, draw.permutation(LARGE)[None] % CLASSES) for p in PROBABILITIES]
    pairs = draw.permutation(CALLS * SMALL // 2).reshape(CALLS, -1) % CLASSES
    batches = [*large, (0.5, pairs.repeat_interleave(2, dim=1))]
    cases = [{"y": y, "null_label": NULL_LABEL, "probability": p} for p, rows in batches for y in rows]
    results = call_each(student.guidance.drop_labels, cases)
    dropped = [expect_dropped(got, case["y"], NULL_LABEL) for got, case in zip(results, cases, strict=True)]
    counts = [len(rows) for _, rows in batches]
    parts = [dropped[sum(counts[:n]) : sum(counts[: n + 1])] for n in range(len(counts))]
    return [Drops(p, rows, torch.stack(part)) for (p, rows), part in zip(batches, parts, strict=True)]


def is_binomial(draw: Draw, what: str, hits: int, trials: int, probability: float, rate: float) -> bool:
    """Whether a number of hits in independent trials is within bounds; right code is outside at most at `rate`."""
    if probability > 0.5:
        return is_binomial(draw, what, trials - hits, trials, 1 - probability, rate)
    low, high = rare_event_bounds(trials, probability, rate)
    used = used_between(low - 1 if low else -math.inf, hits, high + 1, trials * probability)
    return draw.within(rated(what, trials, rate), used)


@question("3.3a")
def test_drop_labels_each_on_its_own(student: Student, draw: Draw) -> None:
    """Each label is dropped with the probability; its class and place, other labels and other calls do not matter.

    False-failure rate: at most 9.6e-10, at 12,800 numbers.
    """
    drops = drop(student, draw)
    expect_no_shared_coin(drops)
    many = drops[-1]
    distinct = len(many.dropped.unique(dim=0))
    if distinct == 1 and 0 < many.share < 1:
        raise wrong("Every call drops the labels at the same places.", "Use no fixed seed and no fixed pattern.")
    expect_shares(draw, drops)
    expect_every_place(draw, many)
    expect_random_numbers(draw, many)
    expect_independent_pairs(draw, many)
    expect_independent_places(draw, many)
    if distinct < CALLS:  # right code drops the same in two of the calls at a rate below 1e-14
        raise wrong("Two calls drop the labels at the same places.", "Use no fixed seed and no fixed pattern.")


def expect_no_shared_coin(drops: Sequence[Drops]) -> None:
    """Expect that batches, and classes of large batches, are not dropped or kept as a whole.

    Right code drops or keeps any of them as a whole at a rate below 1e-16.
    """
    batches = {float(row.double().mean()) for each in drops for row in each.dropped}
    if batches == {0.0, 1.0}:
        raise wrong("A batch is dropped as a whole, or kept as a whole.", EACH)
    classes = {share for each in drops[:-1] for share in each.shares_of_classes}
    if classes == {0.0, 1.0}:
        raise wrong("The labels of a class are all dropped, or all kept.", EACH)


def expect_shares(draw: Draw, drops: Sequence[Drops]) -> None:
    """Expect every label to be dropped as often as it is to be, and those of each class."""
    for each in drops:
        hits, trials = int(each.dropped.sum()), each.dropped.numel()
        if not is_binomial(draw, "dropped labels", hits, trials, each.probability, RATE):
            raise wrong(
                f"With probability {each.probability:g}, {hits:,} of {trials:,} labels are dropped.",
                _explain_shares(drops),
            )
    for each in drops:
        for label in range(CLASSES):
            of_class = each.dropped[each.y == label]
            hits, trials = int(of_class.sum()), of_class.numel()
            if not is_binomial(draw, "dropped labels of a class", hits, trials, each.probability, RATE / CLASSES):
                raise wrong(
                    f"With probability {each.probability:g}, {hits:,} of {trials:,} labels of the class {label} are "
                    "dropped.",
                    ANY_CLASS,
                )


def _explain_shares(drops: Sequence[Drops]) -> str:
    """What is wrong with the shares of labels that are dropped, as a sentence; "" where it is nothing known."""
    shares, wanted = (torch.tensor([getattr(each, name) for each in drops]) for name in ("share", "probability"))
    if float(shares.max()) == 0:
        return "No label is dropped at all."
    if any(max(each.shares_of_classes) - min(each.shares_of_classes) > 0.1 for each in drops):
        return ANY_CLASS
    if close(shares, 1 - wanted, atol=0.03):
        return KEPT
    if close(shares, torch.special.ndtr(wanted), atol=0.03):
        return "Normal numbers are compared with probability, as torch.randn draws them; take uniform ones in [0, 1]."
    if float(shares.max() - shares.min()) < 0.05:
        return "The share that is dropped does not depend on probability."
    return ""


def expect_random_numbers(draw: Draw, drops: Drops) -> None:
    """Expect that the number of labels that a call drops is not always the most likely one."""
    expected = round(SMALL * drops.probability)
    likely = math.comb(SMALL, expected) * drops.probability**expected * (1 - drops.probability) ** (SMALL - expected)
    hits = int((drops.dropped.sum(dim=1) == expected).sum())
    if not is_binomial(draw, "calls that drop half", hits, CALLS, likely, RATE):
        raise wrong(f"Of {CALLS} calls with probability 1/2, {hits} drop exactly half of their labels.", EACH)


def expect_every_place(draw: Draw, drops: Drops) -> None:
    """Expect the labels at every place of the batch to be dropped as often as others."""
    for place, hits in enumerate(drops.dropped.sum(dim=0).tolist()):
        if not is_binomial(draw, "dropped labels of a place", hits, CALLS, drops.probability, RATE / SMALL):
            raise wrong(
                f"With probability {drops.probability:g}, the label at place {place} of a batch is dropped in {hits} "
                f"of {CALLS} calls.",
                "Every label is dropped with the same probability, whatever its place.",
            )


def expect_independent_pairs(draw: Draw, drops: Drops) -> None:
    """Expect two neighbours of the same class to be dropped together as often as by chance."""
    both = drops.dropped[:, ::2] & drops.dropped[:, 1::2]
    hits, trials = int(both.sum()), both.numel()
    if not is_binomial(draw, "pairs that are dropped", hits, trials, drops.probability**2, RATE):
        raise wrong(
            f"With probability {drops.probability:g}, two neighbours of the same class are dropped together in "
            f"{hits:,} of {trials:,} cases.",
            EACH,
        )


def expect_independent_places(draw: Draw, drops: Drops) -> None:
    """Expect the labels at any two places of a batch to be dropped, or kept, together as often as by chance."""
    signs = 2 * drops.dropped.double() - 1
    agreeing = (CALLS + signs.T @ signs).fill_diagonal_(CALLS / 2).div(2).round()
    pairs = SMALL * (SMALL - 1) // 2
    for hits in (int(agreeing.min()), int(agreeing.max())):
        if not is_binomial(draw, "places that agree", hits, CALLS, 0.5, RATE / 2 / pairs):
            one, other = divmod(int((agreeing == hits).double().argmax()), SMALL)
            raise wrong(
                f"With probability {drops.probability:g}, the labels at the places {one} and {other} of a batch are "
                f"both dropped or both kept in {hits} of {CALLS} calls.",
                EACH,
            )


@question("3.3a")
def test_drop_labels_leaves_y_as_it_is(student: Student, draw: Draw) -> None:
    """y stays as it is, and the result is on the same device."""
    y, probability = draw_labels(draw, NULL_LABEL, SMALL), draw.number(0.4, 0.6)
    inputs: dict[str, Any] = {"y": y, "null_label": NULL_LABEL, "probability": probability}
    observed = observe(student.guidance.drop_labels, inputs)
    expect_unchanged(observed, {"y": y})
    dropped = int(expect_dropped(observed.value, y, NULL_LABEL).sum())
    if dropped in (0, SMALL):  # right code drops none or all at a rate below 1e-13
        raise wrong(f"With probability {probability:g}, {dropped} of {SMALL} labels are dropped.")
    expect_one_device(student, student.guidance.drop_labels, *inputs.values())


# ---------------------------------------------------------------- 3.3b

GUIDED_NOISE = form("GUIDED_NOISE")
MOST_COPIES = 4  # of a batch, in one call of its denoiser
AS_GIVEN = "Pass x and t on as they are, for the prediction with labels and for the one without."
LABELS = "Pass y for the prediction with labels, and null_label for every image for the one without."


@dataclass(frozen=True)
class Batch:
    """Images, and a denoiser that knows what to predict for each of them, with its label and without.

    However the images are put to it is right: all at once, one by one, both predictions in one call.

    Attributes:
        x: (B, C, H, W), no two of them alike.
        y: (B,), none of which is `null_label`.
        t: (B,).
        with_labels, without: (B, C, H, W), the predictions.
    """

    x: Tensor
    y: Tensor
    t: Tensor
    null_label: int
    with_labels: Tensor
    without: Tensor

    def arguments(self, guidance_weight: float) -> dict[str, Any]:
        """What guided_noise is called with."""
        return {
            "denoise_fn": self.denoise_fn,
            "x": self.x,
            "y": self.y,
            "t": self.t,
            "null_label": self.null_label,
            "guidance_weight": guidance_weight,
        }

    def predictions(self, guidance_weight: float) -> dict[str, Tensor]:
        """The inputs of the closed form."""
        weight = torch.tensor(guidance_weight)
        return {"with_labels": self.with_labels, "without": self.without, "guidance_weight": weight}

    def denoise_fn(self, x: object, y: object, t: object) -> Tensor:
        """The prediction for any of the images, in any order; raises Failure where a call breaks the contract."""
        images = self._images(x)
        steps = self._integers(t, "t", len(images), AS_GIVEN)
        if not torch.equal(steps, self.t[images]):
            swapped = torch.equal(steps, self.y[images])
            hint = "Labels come before t." if swapped else AS_GIVEN
            raise wrong("denoise_fn is called with a step t that is not that of the image.", hint)
        labels = self._integers(y, "y", len(images), LABELS)
        self._expect_known(labels, images)
        dropped = (labels == self.null_label).reshape(-1, 1, 1, 1)
        return torch.where(dropped, self.without[images], self.with_labels[images])

    def _images(self, x: object) -> Tensor:
        """Which of the images x holds, (n,)."""
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1:] != self.x.shape[1:]:
            got = f"the shape {tuple(x.shape)}" if isinstance(x, Tensor) else "something that is no tensor"
            raise wrong(
                f"denoise_fn is called with {got} where x belongs.", "It is called with x, y, t, in this order."
            )
        if len(x) > MOST_COPIES * len(self.x):
            raise wrong(f"denoise_fn is called with {len(x)} images, where the batch has {len(self.x)}.", AS_GIVEN)
        same = (x.double()[:, None] == self.x.double()).flatten(2).all(dim=2)
        if not bool(same.any(dim=1).all()):
            raise wrong("denoise_fn is called with another x than the one to predict the noise in.", AS_GIVEN)
        return same.double().argmax(dim=1)

    def _integers(self, value: object, name: str, count: int, hint: str) -> Tensor:
        """`value`, if it is a (count,) tensor of int64."""
        if isinstance(value, Tensor) and value.dtype == torch.int64 and tuple(value.shape) == (count,):
            return value
        got = f"a tensor of {value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "no tensor"
        got = "None" if value is None else got
        raise wrong(f"denoise_fn is called with {got} for {name}; it takes int64 of shape ({count},) here.", hint)

    def _expect_known(self, labels: Tensor, images: Tensor) -> None:
        """Expect the label of every image to be its own, or null_label."""
        own = self.y[images]
        strange = (labels != own) & (labels != self.null_label)
        if not bool(strange.any()):
            return
        at = int(strange.double().argmax())
        raise wrong(
            f"denoise_fn is called with the label {int(labels[at])} for an image whose label is {int(own[at])}; "
            f"null_label is {self.null_label}.",
            LABELS,
        )


def draw_batch(draw: Draw, t: Sequence[int], null_label: int = CLASSES, scale: float = 1.0) -> Batch:
    """Images at steps t, and predictions that have nothing to do with them nor with one another."""
    size = len(t)
    x, with_labels, without = (draw.normal(size, 3, 2, 3, std=scale) for _ in range(3))
    y = draw_labels(draw, null_label, size)
    return Batch(x, y, torch.tensor(t), null_label, with_labels, without)


def draw_steps(draw: Draw, size: int) -> list[int]:
    """Steps of which no two are alike, with the last one first."""
    return [LAST_STEP, *draw.permutation(LAST_STEP)[: size - 1].tolist()]


def expect_guided(student: Student, cases: Sequence[tuple[Batch, float]]) -> None:
    """Expect the guided prediction of batches with some weights."""
    results = call_each(student.guidance.guided_noise, [batch.arguments(weight) for batch, weight in cases])
    right = [GUIDED_NOISE.at(**batch.predictions(weight)) for batch, weight in cases]
    expect_all(list(zip(results, right, strict=True)))


@question("3.3b")
def test_guided_noise_between_both_predictions(student: Student, draw: Draw) -> None:
    """With weight 0 the labels do not count, with 1 they do, and with other weights less or more."""
    sizes = [(0.0, 4), (1.0, 1), (0.5, 3), (3.0, 4), (2.0, 1)]
    expect_guided(student, [(draw_batch(draw, draw_steps(draw, size)), weight) for weight, size in sizes])


@question("3.3b")
def test_guided_noise_beyond_both_predictions(student: Student, draw: Draw) -> None:
    """Weights far above 1 and below 0, large predictions, and a null_label that is not the number of classes."""
    null_labels = {7.5: 0, 15.0: 0, 1.5: 23, -2.0: 1000, -12.0: 1000}
    batches = [(draw_batch(draw, draw_steps(draw, 4), null, scale=8.0), w) for w, null in null_labels.items()]
    expect_guided(student, batches)


@question("3.3b")
def test_guided_noise_at_every_step(student: Student, draw: Draw) -> None:
    """Every step is guided, the first and the last too, whether the images of a batch share it or not."""
    steps = [[0] * 3, [1] * 3, [500] * 3, [LAST_STEP] * 3, [LAST_STEP, 0, 700, 300, 20]]
    batches = [draw_batch(draw, t) for t in steps]
    cases = list(zip(batches, (3.0, -1.5, 3.0, -1.5, 3.0), strict=True))
    results = call_each(student.guidance.guided_noise, [batch.arguments(weight) for batch, weight in cases * 2])
    right = [GUIDED_NOISE.at(**batch.predictions(weight)) for batch, weight in cases]
    values, again = (
        [tensor(got, tuple(batch.x.shape), "The result") for got, batch in zip(part, batches, strict=True)]
        for part in (results[: len(batches)], results[len(batches) :])
    )
    if not all(close(*pair) for pair in zip(values, again, strict=True)):
        raise wrong("Two calls with the same arguments differ.", "Nothing random belongs here: labels are given.")
    expect_no_step_left_out(cases, values)
    expect_all(list(zip(values, right, strict=True)))


def expect_no_step_left_out(cases: Sequence[tuple[Batch, float]], values: Sequence[Tensor]) -> None:
    """Name the images, or the steps, where one of the two predictions comes back and that is not so at others.

    Of several images at the same step, it is not the step that matters.
    """
    plain = [
        [
            any(close(got, each[n].double()) for each in (batch.with_labels, batch.without))
            for n, got in enumerate(value)
        ]
        for (batch, _), value in zip(cases, values, strict=True)
    ]
    for (batch, weight), images in zip(cases, plain, strict=True):
        if len(batch.t.unique()) == 1 and any(images) and not all(images):
            numbers = ", ".join(str(n) for n, is_plain in enumerate(images) if is_plain)
            raise wrong(
                f"With guidance_weight = {weight:g} and t = {int(batch.t[0])} for all of {len(images)} images, a "
                f"prediction comes back as it is for the images {numbers}, counted from 0.",
                "Guide every image of a batch: replace all of its labels for the prediction without.",
            )
    steps = {
        (int(t), weight, is_plain)
        for (batch, weight), images in zip(cases, plain, strict=True)
        for t, is_plain in zip(batch.t, images, strict=True)
    }
    unguided = {t for t, weight, is_plain in steps if is_plain and (t, weight, False) not in steps}
    guided = {weight for _, weight, is_plain in steps if not is_plain}
    if any((t, weight, True) in steps for t in unguided for weight in guided):
        named = ", ".join(map(str, sorted(unguided)))
        raise wrong(f"At t = {named} nothing is guided, at other steps it is.", "Guide at every step.")


@question("3.3b")
def test_guided_noise_leaves_its_arguments_as_they_are(student: Student, draw: Draw) -> None:
    """x, y and t stay as they are, and everything is on their device."""
    batch, results = draw_batch(draw, draw_steps(draw, 3)), []
    for weight in (-1.5, 3.0):
        arguments = batch.arguments(weight)
        observed = observe(student.guidance.guided_noise, arguments, differentiate=False)
        expect_unchanged(observed, {name: arguments[name] for name in ("x", "y", "t")})
        results.append((observed.value, GUIDED_NOISE.at(**batch.predictions(weight))))
    expect_all(results)
    expect_one_device(student, student.guidance.guided_noise, *batch.arguments(2.0).values())
