"""`guardtrain COMMAND [hydra overrides]`; imports nothing heavy until a command runs."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from guardtrain.commands import elapsed
from guardtrain.commands.registry import ACTIONS, COMMANDS, PLAIN_COMMANDS

# Commands whose arguments are not all Hydra's (names of files, data sets), and the module that makes them so.
_REWRITTEN = {"predict": "predict", "import-guard": "import_guard", "benchmark": "benchmark", "calibrate": "benchmark"}

_LEFT = {  # command -> what does its work now
    "ingest": " It left; scores of others take part in `guardtrain benchmark 'guards=[GUARD,{scores: FILE}]'`."
}

USAGE = "guardtrain COMMAND [SETTING=VALUE ...]"
_HELP = ("-h", "--help", "--help-all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own); returns the exit code."""
    elapsed.begin()
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in [name for name, value in os.environ.items() if name.startswith("GUARDTRAIN_") and not value]:
        del os.environ[name]  # an empty one says nothing: as a folder it would be the working folder
    _print_anything()
    if len(given) > 1 and given[0] == "help":
        given = [*given[1:], "--help"]
    if not given or given[0] in (*_HELP, "help"):
        print(_help())
        return 0
    if given[0] in ("-V", "--version"):
        from guardtrain.version import __version__

        print(f"guardtrain {__version__}")
        return 0
    command, rest = given[0], given[1:]
    if command in PLAIN_COMMANDS:
        plain = importlib.import_module(f"guardtrain.commands.{command}").main
        return int(plain(rest))
    if command not in COMMANDS:
        from guardtrain.errors import did_you_mean

        every = [*COMMANDS, *PLAIN_COMMANDS]
        hint = _LEFT.get(command) or did_you_mean(command, every)
        print(f"guardtrain: there is no command '{command}'.{hint} Commands: {', '.join(every)}.", file=sys.stderr)
        return 2
    if asked := [argument for argument in rest if argument in _HELP]:
        from guardtrain.commands.config_path import own_configs_in
        from guardtrain.commands.help import command_help

        whole = "--help-all" in asked
        print(command_help(command, COMMANDS[command], whole=whole, own=own_configs_in(rest)))
        return 0
    if command in ACTIONS and rest and "=" not in rest[0] and not rest[0].startswith(("-", "~", "+")):
        rest = [f"action={rest[0]}", *rest[1:]]
    if command in _REWRITTEN:
        rest = importlib.import_module(f"guardtrain.commands.{_REWRITTEN[command]}").as_overrides(rest)
    if command == "results":
        from guardtrain.commands.results import as_overrides as folders_as_setting

        rest = folders_as_setting(rest)
    from guardtrain.imports import import_quickly

    import_quickly("guardtrain.commands.launch")
    from guardtrain.commands.launch import launch

    return launch(command, rest)


def _print_anything() -> None:
    """A character that the terminal's encoding lacks, or a byte of a file's name that is none, is printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


class _UntilClosed(io.TextIOWrapper):
    """Standard output or error until whoever reads it (`| head`) has seen enough; from then on nowhere.

    Attributes:
        closed_by_reader: whether that has come.
    """

    closed_by_reader = False

    @classmethod
    def of(cls, stream: TextIO) -> TextIO:
        """`stream` in a wrapper that does not fail when its reader is gone; as it is, where it is no file."""
        if type(stream) is not io.TextIOWrapper:
            return stream
        about = stream.encoding, stream.errors, stream.line_buffering, stream.write_through
        encoding, errors, line_buffering, write_through = about
        return cls(stream.detach(), encoding, errors, line_buffering=line_buffering, write_through=write_through)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        self.closed_by_reader = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def run() -> NoReturn:
    """The console script: `main`, then an exit that does not wait for a second and a half while torch frees itself.

    Exit handlers (of logging, of W&B) are run and the output is flushed; only the freeing of memory is left to the
    operating system, which is quicker at it. Whoever reads the output may go before its end.
    """
    sys.stdout = sys.__stdout__ = _UntilClosed.of(sys.stdout)  # type: ignore[assignment, misc]
    sys.stderr = sys.__stderr__ = _UntilClosed.of(sys.stderr)  # type: ignore[assignment, misc]
    code = main()
    if "torch" not in sys.modules:
        sys.exit(code)
    import atexit

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in (COMMANDS | PLAIN_COMMANDS).items()]
    return "\n".join(
        [
            "Train image-safety guards on frozen embeddings and measure how many labels they need.",
            "",
            f"usage: {USAGE}",
            "",
            "commands:",
            *lines,
            "",
            "guardtrain COMMAND --help       examples, and the settings that people change",
            "guardtrain COMMAND --help-all   all its settings and options, each with what it is",
            "guardtrain COMMAND --cfg job    the composed config, without running it",
            "guardtrain COMMAND -m A=1,2     one job for each value (a sweep)",
        ]
    )


if __name__ == "__main__":
    run()
