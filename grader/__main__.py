"""`python -m grader`: see `python -m grader --help`."""

from .cli import app
from .streams import prepare_streams

prepare_streams()
app()
