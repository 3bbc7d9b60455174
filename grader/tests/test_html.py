"""The page of a result: student text stays text, nothing is fetched, and it can be read on a phone and by keyboard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from grader.assignment import REPOSITORY
from grader.checks.draw import Draw, Exhibits
from grader.checks.training import as_numbers
from grader.engine.text import printable
from grader.report.html import formulas, render
from grader.report.pictures import grid
from grader.report.result import CheckResult, QuestionResult, Result
from grader.submission import Submission

from .browser import CHROMIUM, DRIVER, ENTER, TAB, WIDE_FONT, Browser
from .conftest import EXACT, QUESTIONS, Graded, filled

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "]]></style></pre></title></math><h1>100 of 100</h1>",
    "<!-- --><details open ontoggle=alert(1)>",
    "{{ result }}{% include 'style.css' %}",
    "\x00\x1b[31m\x07\x08\u202e\u2066\u200b\ufeff\ud800\x85",
    "wide" * 200,
    "\u05d0\u05d1\u05d2 \u0627\u0644",
    "&lt;b&gt; &#60;b&#62;",
]  # fmt: skip


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, list]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements for key, value in attributes if key == name]


def result_of(text: str, status: str = "wrong") -> Result:
    """A result with `text` wherever a submission had a hand in it."""
    check = CheckResult("2.1a/kl", "A check", status, 0, 2, text, text, 0.1, "student")
    other = replace(check, id="2.1a/other", message=text + "\n" + text)
    questions = [QuestionResult("2.1a", "KL divergence", 0, 4, status, [check, other])]
    return Result(
        schema=1, submission=text, seed=0, device="cpu", environment={"python": "3"}, isolation={"summary": text},
        score=0, max_score=4, bonus=0, seconds=1.0, notes=[text], output=text, questions=questions,
    )  # fmt: skip


def exhibits() -> Exhibits:
    """What a check of training shows."""
    images = {"Digits": torch.rand(10, 1, 28, 28), "Samples": torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8)}
    return Exhibits(images, {"Loss": [3.0, 1.0, 2.0], "Flat": [1.0], "Huge": [-1.7e308, 1.7e308]})


# ---------------------------------------------------------------- what is hostile, and what is not there


@pytest.mark.parametrize("text", HOSTILE)
def test_student_text_makes_no_element_and_no_attribute(text: str) -> None:
    hostile, harmless = Page(render(result_of(text))), Page(render(result_of("harmless")))
    assert hostile.elements == harmless.elements
    assert hostile.text.count(printable(text, 64 << 10)) >= 5


def test_what_student_code_raises_and_prints_stays_text(handout: Submission, graded: Graded) -> None:
    code = "print('<script>printed</script>\\u202e')\nraise ValueError('\"><img src=x onerror=raised>')"
    page = Page(render(graded(filled(handout, "2.1a", code), "2.1a")))
    assert "<script>printed</script>\\u202e" in page.text
    assert 'ValueError: "><img src=x onerror=raised>' in page.text
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img"})


def test_invisible_characters_are_spelled_out() -> None:
    page = render(result_of("a\x1b\u202e\x00b\ttab"))
    assert "a\\u001b\\u202e\\u0000b\ttab" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", page)
    page.encode("utf-8")


def test_the_page_needs_no_network_and_no_script() -> None:
    page = Page(render(replace(result_of("x"), exhibits={"2.1a/kl": exhibits()})))
    sources = page.attributes("src")
    assert len(sources) == 4  # two pictures, each in two halves
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(address.startswith("#") for address in page.attributes("href"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert not [name for _, attributes in page.elements for name, _ in attributes if name.startswith("on")]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", [("http-equiv", "Content-Security-Policy"), ("content", policy)]) in page.elements
    style = (REPOSITORY / "grader" / "report" / "templates" / "style.css").read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_somewhere_and_no_name_is_given_twice(handout: Submission, graded: Graded) -> None:
    page = Page(render(graded(handout)))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {address[1:] for address in page.attributes("href")} <= set(ids)
    assert {f"q-{question.id}" for question in EXACT if not question.optional} <= set(ids)


def test_the_same_result_gives_the_same_page(handout: Submission, graded: Graded) -> None:
    result = replace(graded(handout, "2.1a"), exhibits={"2.1a/kl_one_variable": exhibits()})
    assert render(result) == render(result)


@pytest.mark.parametrize("status", ["passed", "wrong", "not_attempted", "skipped", "grader_error"])
def test_a_question_has_its_formula_whatever_its_status(status: str) -> None:
    page = render(result_of("x", status))
    assert all(line in page for line in formulas()["2.1a"].math)
    assert "Auto-Encoding Variational Bayes" in page


def test_every_exact_question_has_a_formula_in_mathml() -> None:
    assert list(formulas()) == [question.id for question in EXACT]
    for question, formula in formulas().items():
        assert formula.source, question
        for line in formula.math:
            assert ElementTree.fromstring(line).tag == "math", question


# ---------------------------------------------------------------- what is shown


def test_exhibits_are_no_part_of_the_results() -> None:
    result = result_of("x")
    assert replace(result, exhibits={"2.1a/kl": exhibits()}).to_json() == result.to_json()
    assert "exhibits" not in json.loads(result.to_json())


def test_images_are_laid_out_in_rows_with_gaps() -> None:
    sheet = grid(torch.tensor([0.0, 1.0, float("nan"), 7.0])[:, None, None, None].expand(4, 1, 2, 3), columns=3)
    assert sheet.size == (3 * 3 + 2, 2 * 2 + 1)
    assert [sheet.getpixel((x, 0)) for x in (0, 3, 4, 8)] == [(0, 0, 0, 255), (0, 0, 0, 0), (255, 255, 255, 255), (0, 0, 0, 255)]  # fmt: skip
    assert sheet.getpixel((0, 3)) == (255, 255, 255, 255)


def test_a_curve_ends_before_what_is_not_finite() -> None:
    draw = Draw(0, "x")
    draw.curve("Loss", [2.0, 1.0, float("nan"), 0.5])
    draw.curve("None", [float("inf"), 0.5])
    assert draw.exhibits.curves == {"Loss": [2.0, 1.0], "None": []}
    page = render(replace(result_of("x"), exhibits={"2.1a/kl": draw.exhibits}))
    assert '<title>Loss: 2, 1</title><polyline points="3.00,3.00 97.00,33.00"/>' in page
    assert page.count("<svg") == 1


def test_the_loop_gives_the_means_of_the_terms(solved: SimpleNamespace) -> None:
    class Counting(solved.loop.Training):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def step(self, x: torch.Tensor, y: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
            return {"step": torch.tensor(float(step)), "pair": torch.tensor([1.0, 3.0])}

    images = solved.dataset.Images(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), [])
    assert solved.loop.fit(Counting(), images, 4, 0, 2, 6) == {"step": 3.5, "pair": 2.0}
    assert solved.loop.fit(Counting(), images, 4, 0, 2, 2) == {}


def test_losses_from_the_worker_are_numbers_or_nothing() -> None:
    assert as_numbers({"elbo": 1.5, "mse": "<b>", "kl": True, "generator": (1.0,), "noise_mse": 3}) == {"elbo": 1.5}
    assert as_numbers(None) == as_numbers((1.0,)) == as_numbers(torch.ones(1)) == {}


def test_training_shows_what_was_learned(solution: Submission, graded: Graded) -> None:
    result = graded(solution, "1.1", "1.2", "1.6a")
    shown = result.exhibits["1.6a/mlp_vae_learns"]
    assert {title: tuple(images.shape) for title, images in shown.images.items()} == {
        "New digits": (10, 1, 28, 28),
        "The same digits, encoded and decoded": (10, 1, 28, 28),
    }
    (title, losses), = shown.curves.items()  # fmt: skip
    assert (title, len(losses)) == ("Evidence lower bound, nats", 10)
    assert losses[0] < losses[-1]


# ---------------------------------------------------------------- the command line


def test_the_page_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    grade = [sys.executable, "-m", "grader", "grade", "solution", "--only", "2.2b"]
    command = [*grade, "--results", str(tmp_path / "r.json")]
    for page, says in ((tmp_path / "r.html", ""), (tmp_path / "no" / "r.html", "error:"), (tmp_path, "error:")):
        done = subprocess.run(
            [*command, "--html", str(page)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
        assert done.stderr.startswith(says), done.stderr
        assert done.stderr.count("\n") == (1 if says else 0)
        assert done.returncode == (2 if says else 0)
        assert (f"The page to read is {page}" in done.stdout) == (not says)
    assert "5 of 5 points" in Page((tmp_path / "r.html").read_text("utf-8")).text


# ---------------------------------------------------------------- in a browser

in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Chromium is not here: apt-get install chromium chromium-driver, and run this again",
)
SIZES = {"phone": (360, 740), "laptop": (1280, 900)}

CONTRAST = """
const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
const light = channel => { const c = channel / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
const below = element => {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length === 3) return colour;
    if (colour[3] !== 0) throw new Error("a background that is half transparent");
  }
  return numbers(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
};
for (const details of document.querySelectorAll("details")) details.open = true;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
let seen = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || element.closest("svg") || !element.checkVisibility()) continue;
  const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(below(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  seen += 1;
  if (ratio < 4.5) poor.push([texts.currentNode.data.slice(0, 40), ratio]);
}
return [seen, poor];
"""
WIDER = """
const wider = [...document.querySelectorAll(arguments[0])].filter(e => e.scrollWidth > e.clientWidth + 1);
return wider.map(e => [...e.textContent].slice(0, 60).join(''));
"""
REACHED = """
const all = [...document.querySelectorAll("a[href], summary, [tabindex]")].filter(e => e.checkVisibility());
const style = getComputedStyle(document.activeElement);
return [all.length, all.indexOf(document.activeElement), document.activeElement.tagName, style.outlineStyle];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests of this file."""
    shown = Browser(tmp_path_factory.mktemp("profile"))
    yield shown
    shown.close()


@pytest.fixture(params=["passed", "empty", "mixed"])
def page(
    request: pytest.FixtureRequest, tmp_path: Path, solution: Submission, handout: Submission, graded: Graded
) -> Path:
    """The pages of three results, hostile names and long lines among them."""
    mixed = filled(solution, "2.1a", "print('wide' * 5000)\nraise ValueError('wide' * 500)")
    mixed = filled(filled(mixed, "2.2a", "loss = fake"), "1.5", "raise NotImplementedError('1.5')")
    submission = {"passed": solution, "empty": handout, "mixed": mixed}[request.param]
    result = graded(submission, *QUESTIONS, training=False)
    if submission is mixed:
        shown = {check: exhibits() for check in ("1.6a/mlp_vae_learns", "2.4c/diffusion_learns")}
        result = replace(result, submission="wide" * 100, notes=["wide" * 100, "a note"], bonus=2.5, exhibits=shown)
    path = tmp_path / "page.html"
    path.write_text(render(result), "utf-8")
    return path


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_can_be_read(browser: Browser, page: Path, size: str, scheme: str) -> None:
    browser.console()
    browser.open(page, *SIZES[size], scheme)
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    seen, poor = browser.run(CONTRAST)  # opens every part of the page
    assert seen > 100
    assert poor == []
    for widen in ("", WIDE_FONT):
        browser.run(widen)
        assert browser.run("return [document.scrollingElement.scrollWidth, innerWidth]") == [SIZES[size][0]] * 2
        assert browser.run(WIDER, "p, h1, h3, h4, li, dd, nav a") == []
    scrolls = "return [...document.querySelectorAll('.formula div')].map(e => getComputedStyle(e).overflowX)"
    assert set(browser.run(scrolls)) == {"auto"}  # no line of a formula can be broken
    assert [entry for entry in browser.console() if entry["level"] in ("SEVERE", "WARNING")] == []


@in_a_browser
def test_it_can_be_used_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["laptop"], "light")
    reachable = browser.run(REACHED)[0]
    kinds = set()
    for at in range(reachable):
        browser.press(TAB)
        _, reached, kind, outline = browser.run(REACHED)
        assert (reached, outline) == (at, "solid")
        kinds.add(kind)
    assert kinds >= {"A", "SUMMARY"}
    browser.run("document.querySelector('summary').focus()")
    browser.press(ENTER)
    assert browser.run("return [...document.querySelectorAll('details')].map(e => e.open).indexOf(true)") == 0


@in_a_browser
def test_print_shows_what_is_folded_on_the_screen(browser: Browser, page: Path) -> None:
    browser.open(page, *SIZES["laptop"], "light")
    heights = "return [...document.querySelectorAll('.checks')].map(e => e.checkVisibility() && e.offsetHeight > 0)"
    assert not any(browser.run(heights))
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    assert all(browser.run(heights))
