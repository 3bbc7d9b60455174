"""`python -m grader`: see `python -m grader --help`."""

from .cli import app

app()
