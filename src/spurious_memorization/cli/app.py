"""The command-line application: it parses arguments, prints answers, and prints errors in one line."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict
from pydantic import ValidationError
from rich.console import Console, RenderableType
from rich.text import Text

from .. import __version__
from ..console import log
from ..errors import UserError, first_line, is_out_of_memory
from ..input_files import shown
from ..remote_folders import about_copies
from ..yaml_files import read_yaml

PIPED_WIDTH = 140

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_FLAGS = Parameter(negative_iterable=(), consume_multiple=False)

app = App(
    name="spurmem",
    version=__version__,
    help="Find the few neurons of a classifier that memorize its minority examples.",
    default_parameter=_FLAGS,
)


@dataclass(frozen=True)
class Answer:
    """The result of a command. A command returns its answer and prints nothing itself.

    Arguments:
        text: what is printed for people.
        facts: what `--json` prints; JSON types only.
        exit_status: 1 if a check found something wrong, otherwise 0.
    """

    text: Sequence[RenderableType]
    facts: dict[str, Any] = field(default_factory=dict)
    exit_status: int = 0


class _ConfigFile:
    """A YAML file with the options of the command that is called. The file has no level for the command's name."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        options = read_yaml(self.file, "epochs: 12")
        for command in reversed(commands):
            options = {command: options}
        Dict(options, source=str(self.file))(app, commands, arguments)


def _with_common_flags(application: App) -> App:
    """Add the flags that every command has, and leave interrupts to `main`."""
    for one in (application, application.meta):
        one.suppress_keyboard_interrupt = False

    @application.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[
            Path | None, Parameter(help="YAML file with the command's options; flags override it")
        ] = None,
        json_: Annotated[bool, Parameter(name="--json", help="machine-readable results on standard output")] = False,
        debug: Annotated[bool, Parameter(help="show the traceback of an error")] = False,
    ) -> int:
        if config:
            application.config = (_ConfigFile(config),)
        answer = application(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        if not isinstance(answer, Answer):
            return 0
        if json_:
            sys.stdout.write(json.dumps(_without_nan(answer.facts), indent=2, allow_nan=False) + "\n")
        else:
            out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
            for part in answer.text:
                out.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))
        return answer.exit_status

    return application


_with_common_flags(app)


def run_script(command: Callable[..., Answer], arguments: Sequence[str] | None = None) -> None:
    """Run one command as a separate program, with the common flags and one-line errors, and exit."""
    application = _with_common_flags(App(name=Path(sys.argv[0]).name, default_parameter=_FLAGS, version_flags=()))
    application.default(command)
    main(arguments, application)


def main(arguments: Sequence[str] | None = None, application: App = app) -> None:
    """Run `spurmem` and exit.

    The exit status is 0 for success, 1 if a check found something wrong, 2 for a user's error, 130 for an interrupt. A
    SIGTERM, by which Slurm and others stop a command, is an interrupt.

    Arguments:
        arguments: of the command line; by default those of the process.
        application: the application that parses them.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    _accept_all_characters(sys.stdout)
    _accept_all_characters(sys.stderr)
    warnings.showwarning = _show_warning
    application.config = ()
    try:
        with _interrupted_by_sigterm():
            status = application.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (UserError, CycloptsError, ValidationError) as error:
        if debug:
            raise
        message = _one_line(error)
        log(f"spurmem: {message}{about_copies(message)}")
        status = 2
    except (OSError, ValueError) as error:
        what = _wrong_place(error)
        if debug or what is None:
            raise
        log(f"spurmem: {what}")
        status = 2
    except KeyboardInterrupt:
        log("spurmem: interrupted; run the same command again to continue (a training with --resume)")
        status = 130
    except (MemoryError, RuntimeError) as error:
        if debug or not is_out_of_memory(error):
            raise
        remedy = "use smaller batches, or a smaller --image-size or --max-tokens"
        log(f"spurmem: memory is exhausted ({first_line(error)}): {remedy}")
        status = 2
    raise SystemExit(status if isinstance(status, int) else 0)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt, so that all that is open is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _accept_all_characters(stream: object) -> None:
    """Let a stream escape the characters of names that can't be written.

    Without UTF-8, all characters beyond ASCII are escaped: who reads the stream often decodes it with another encoding.
    """
    if isinstance(stream, io.TextIOWrapper):
        encoding = stream.encoding if stream.encoding.lower().startswith("utf") else "ascii"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _without_nan(facts: Any) -> Any:
    """Replace NaN and infinity by null, since JSON has neither."""
    if isinstance(facts, dict):
        return {name: _without_nan(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_without_nan(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def _wrong_place(error: OSError | ValueError) -> str | None:
    """What is wrong with a file, a folder or the output; None if the error has another reason."""
    if isinstance(error, OSError):
        if error.filename is not None:
            place = shown(str(error.filename))
            return f"{place} can't be used ({error.strerror}): choose another place, or change its permissions"
        if error.errno in _UNWRITABLE:
            _discard_output()
            return f"the output can't be written ({error.strerror}): free some space, or send it elsewhere"
        return None
    return "a name holds a null byte: remove it" if "null byte" in str(error) else None


def _discard_output() -> None:
    """Let what is left of the output go nowhere. Otherwise Python fails once more when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    """The message in one line, where an endless number is shortened."""
    return re.sub(r"\d{60,}", lambda digits: f"{digits[0][:20]}... ({len(digits[0])} digits)", _message(error))


def _message(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, CycloptsError) else error
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            return what
        return f"--{'.'.join(map(str, first['loc'])).replace('_', '-')}: {what} (given: {first['input']!r})"
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    log(f"note: {' '.join(str(message).split())}")
