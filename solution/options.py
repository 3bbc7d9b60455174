"""What options of the command lines may be. Given: there is nothing to fill in here."""

import argparse
import math
import sys
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        print(f"error: {message}; {self.prog} --help shows what there is.", file=sys.stderr)
        sys.exit(2)


def count(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be an integer of at least 1")
    return int(text)


def multiple_of_8(text: str) -> int:
    """A positive multiple of 8, which the group normalisations of the networks need."""
    if not text.isdecimal() or int(text) < 1 or int(text) % 8:
        raise argparse.ArgumentTypeError(f"{text} must be a multiple of 8")
    return int(text)


def finite(text: str) -> float:
    """A finite number of at least 0."""
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} must be a number of at least 0")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} must be a number above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be a number from 0 to 1")
    return value


def _number(text: str) -> float:
    """A number; nan where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
