"""What options of the command lines may be. Given: there is nothing to fill in here."""

import argparse
import math
import sys
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        print(f"error: {message}; {self.prog} --help shows what there is.", file=sys.stderr)
        sys.exit(2)


def count(text: str) -> int:
    """An integer of at least 1."""
    return _integer(text, 1, "an integer of at least 1")


def multiple_of_8(text: str) -> int:
    """A positive multiple of 8, which the group normalisations of the networks need."""
    return _integer(text, 8, "a multiple of 8")


def finite(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, lambda value: 0 <= value < math.inf, "a number of at least 0")


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _integer(text: str, factor: int, what: str) -> int:
    """A positive multiple of a factor. Raises ArgumentTypeError, which says what the text must be."""
    if not text.isdecimal() or int(text) < 1 or int(text) % factor:
        raise argparse.ArgumentTypeError(f"{text} must be {what}")
    return int(text)


def _number(text: str, is_allowed: Callable[[float], bool], what: str) -> float:
    """A number that is allowed. Raises ArgumentTypeError, which says what the text must be."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_allowed(value):
        raise argparse.ArgumentTypeError(f"{text} must be {what}")
    return value
