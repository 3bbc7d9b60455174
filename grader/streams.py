"""Standard output and error that lose nothing: any encoding will do, and so will a reader that leaves early."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any, TextIO

CLOSED = (errno.EPIPE, errno.EINVAL)  # what a pipe without a reader is on Unix, and on Windows


class _Pipe(io.FileIO):
    """A descriptor to write to. Once nobody reads it any more, as after `head`, what is written is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in CLOSED:
                raise
            return memoryview(data).nbytes


def prepare_streams() -> None:
    """Let sys.stdout and sys.stderr take every character, and let a closed pipe end neither the command nor its status.

    A character that the encoding lacks becomes a question mark, or an escape on standard error.
    """
    sys.stdout, sys.stderr = _prepared(sys.stdout, "replace"), _prepared(sys.stderr, "backslashreplace")


def _prepared(stream: TextIO, errors: str) -> TextIO:
    """A stream with the same encoding that never fails to encode; what is not a real stream stays as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors=errors)
    if stream.isatty() or not isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
        return stream
    pipe = _Pipe(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        pipe if stream.write_through else io.BufferedWriter(pipe),
        stream.encoding,
        errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
