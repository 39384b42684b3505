"""`guardtrain COMMAND [hydra overrides]`; imports nothing heavy until a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "curve": "the data-efficiency curve: a grid of mixtures, budgets and seeds → results, statistics, figure",
    "train": "one head on one mixture → the head, its metrics and logs",
    "export": "a finished run, or the best of a curve → a guard: calibrated, with thresholds, in one directory",
    "import-guard": "a guard that others published, from its own files → a guard's directory",
    "push": "a guard → a repository on the Hugging Face hub",
    "embed": "images of a source → embeddings on disk (a store)",
    "store": "look at stores of embeddings, verify, append to, merge, filter and deduplicate them",
    "plot": "figures, tables and a report of a curve that is there",
    "audit": "what the embeddings give away besides the label: edits, sources, pools, duplicates",
    "predict": "images judged by a guard → a table of probabilities and decisions",
    "serve": "a guard as a web service, with a page to drop an image on",
    "ingest": "per-image scores that others published → a curve's results table and scores",
    "scenes": "render the embedded testbed to image files, to look at or to try the sources with",
}

# What a command does that does several things: `guardtrain store verify` is short for `guardtrain store action=verify`.
ACTIONS = {"store": ("info", "verify", "append", "merge", "filter", "dedup")}

USAGE = "guardtrain COMMAND [SETTING=VALUE ...]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own); returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if given[0] in ("-V", "--version"):
        from guardtrain import __version__

        print(f"guardtrain {__version__}")
        return 0
    command, rest = given[0], given[1:]
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        print(f"guardtrain: there is no command '{command}'.{hint} Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if any(argument in ("-h", "--help") for argument in rest):
        from guardtrain.commands.help import command_help

        print(command_help(command, COMMANDS[command]))
        return 0
    if command in ACTIONS and rest and "=" not in rest[0] and not rest[0].startswith(("-", "~", "+")):
        rest = [f"action={rest[0]}", *rest[1:]]
    if command == "predict":
        from guardtrain.commands.predict import as_overrides

        rest = as_overrides(rest)
    if command == "import-guard":
        from guardtrain.commands.import_guard import as_overrides as kind_and_file

        rest = kind_and_file(rest)
    from guardtrain.commands.launch import launch

    return launch(command, rest)


def run() -> NoReturn:
    """The console script: `main`, then an exit that does not wait for a second and a half while torch frees itself.

    Exit handlers (of logging, of W&B) are run and the output is flushed; only the freeing of memory is left to the
    operating system, which is quicker at it.
    """
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
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Train image-safety guards on frozen embeddings and measure how many labels they need.",
            "",
            f"usage: {USAGE}",
            "",
            "commands:",
            *lines,
            "",
            "guardtrain COMMAND --help       its config groups and settings",
            "guardtrain COMMAND --cfg job    the composed config, without running it",
            "guardtrain COMMAND -m A=1,2     one job for each value (a sweep)",
        ]
    )


if __name__ == "__main__":
    run()
