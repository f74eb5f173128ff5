"""The command ``nst``: one thin file a command group; `main` turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Any

from nstcore.cli import _stop

BAD_INPUT, PIPE_CLOSED = 2, 141  # 128 and the signal's number, as shells count
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def main(arguments: list[str] | None = None) -> int:
    """Run ``nst`` and return its exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM; else 1.

    141 when the reader of the output has gone, as if SIGPIPE had ended it: its answer is not known then, and 0 would
    be one of ``nst faces verify``. A stream that was closed from the start loses what is written.

    ``--debug`` (or ``NSTCORE_DEBUG=1``) shows the traceback instead of one line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    if "--debug" in arguments or os.environ.get("NSTCORE_DEBUG"):
        return _run([a for a in arguments if a != "--debug"])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # while an error can still be told
        return code
    except KeyboardInterrupt:
        return _say("interrupted", _stop.code())
    except BrokenPipeError:
        _drop_output()  # its reader has gone
        return PIPE_CLOSED
    except MemoryError as error:
        told = f" ({error})" if is_told(error) else ""
        return _say(f"out of memory; a smaller --size needs less{told}", 1)
    except Exception as error:
        return _explain(error)


def _open_streams() -> None:
    """Standard streams that can be written, whatever the caller closed and whichever characters they take."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Descriptors are given out from the lowest: a gallery opened later must not become the standard output.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - stays open
    _escape_unknown(sys.stdout)


def _escape_unknown(stream: Any) -> None:
    """Write what the terminal's encoding does not have as an escape, instead of failing in the middle."""
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def is_told(error: Exception) -> bool:
    """Whether `main` has a line for this error; any other is a fault of ours."""
    from nstcore.errors import NstError

    ours = isinstance(error, (NstError, BrokenPipeError)) or hasattr(error, "format_message")
    return ours or _is_full(error) or _is_of_device(error)


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.filename is None and error.errno in _FULL  # files have names


def _is_of_device(error: Exception) -> bool:
    cuda = sys.modules.get("nstcore.backend.cuda")
    return cuda is not None and cuda.is_of_device(error)


def _run(arguments: list[str]) -> int:
    from nstcore.cli.app import Escape, app

    try:
        with _stop.politely():
            code = app(arguments, prog_name="nst", standalone_mode=False)
    except Escape as escape:
        raise escape.reason from None
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """One line for an error that a user can do something about; anything else is ours and is raised."""
    from nstcore.errors import NonFiniteError, NstError

    usage = getattr(error, "format_message", None)  # Typer's own errors: unknown option, missing argument
    if usage is not None:
        message = usage()
        # Without a message, the help has been printed already: a group was called without a command.
        return _say(f"{message} (nst --help shows what there is)", BAD_INPUT) if message else BAD_INPUT
    if isinstance(error, NstError):
        return _say(str(error), 1 if isinstance(error, NonFiniteError) else BAD_INPUT)
    if _is_of_device(error):
        return _say(f"[backend] the GPU failed: {error}", BAD_INPUT)
    if _is_full(error):
        _drop_output()
        return _say(f"[output] the standard output cannot be written: {getattr(error, 'strerror', '')}", BAD_INPUT)
    raise error


def _drop_output() -> None:
    """Send what is still to be written nowhere, so that Python does not try again while it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"error: {_line(message)}", file=sys.stderr)


def print_warning(message: str) -> None:
    """One line on standard error about something that does not end the command."""
    print(f"warning: {_line(message)}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Python's own warnings, without the place in our source that it would add."""
    print_warning(str(message))


def _line(message: str) -> str:
    from nstcore._text import printable

    return printable(" ".join(message.split()))


def _say(message: str, code: int) -> int:
    print_error(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
