"""Run a command as a Hydra application, and tell its user what went wrong without a traceback."""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.errors import CompactHydraException, ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from guardtrain.commands.arguments import paths_as_they_are, with_plain_keys
from guardtrain.commands.chosen_tests import keep_test_sets
from guardtrain.commands.config_path import set_own_configs
from guardtrain.commands.experiments import misplaced_experiment
from guardtrain.commands.process import prepare_process
from guardtrain.commands.values import as_typed
from guardtrain.config_groups import conf_dir
from guardtrain.disk import why_unwritten, written_folders
from guardtrain.errors import GuardtrainError
from guardtrain.own_code import make_importable, place_in_own
from guardtrain.schemas import register_schema

INTERRUPTED = 130


class _UsersToMend(SystemExit):
    """A GuardtrainError on its way out: Hydra reports every Exception of a job itself, and lets this one pass."""


def launch(command: str, arguments: Sequence[str]) -> int:
    """Compose `conf/COMMAND.yaml` with the overrides in `arguments` and run the command; returns the exit code.

    0: done. 2: the user can mend it, the message on stderr says how. 130: interrupted. 1: a bug, with a traceback.
    A sweep (`-m`) ends with 2 or 1 where jobs failed; see `run_sweep`.
    """
    version.setbase("1.3")
    register_schema(command)
    prepare_process()
    # Hydra would format exceptions itself and exit; with this it lets them through to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    parser = get_args_parser()
    parser.prog = f"guardtrain {command}"
    parsed = parser.parse_intermixed_args(list(arguments))  # flags may stand anywhere among settings
    parsed.overrides = with_plain_keys(paths_as_they_are(parsed.overrides))
    parsed.overrides = as_typed(command, parsed.overrides, sweep=_is_sweep(parsed))
    set_own_configs(parsed.config_dir)
    # modules of the user's own lie where the command is run, or beside the folder of their configs
    make_importable([Path.cwd(), *([Path(parsed.config_dir).absolute().parent] if parsed.config_dir else [])])
    if parsed.multirun and (parsed.cfg or parsed.info):
        return _say(command, "each job of a sweep has its config; to see one, leave -m out and give one value each.", 2)
    for override in parsed.overrides:
        if override.partition("=")[0].strip("+~ ") == "":
            return _say(command, f"cannot read '{override}': write SETTING=VALUE.", 2)
    run = importlib.import_module(f"guardtrain.commands.{command.replace('-', '_')}").run

    started: list[DictConfig] = []

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        started.append(config)
        try:
            run(config)
        except Exception as error:
            text = str(error) if isinstance(error, GuardtrainError) else _of_files(error, config)
            if text is None:
                raise
            _keep_in_log(text)
            raise _UsersToMend(text) from error

    try:
        parsed.overrides = keep_test_sets(command, parsed.overrides)
        if _is_sweep(parsed):
            from guardtrain.commands.sweep import run_sweep

            if (code := run_sweep(command, parsed)) is not None:
                return code
        while True:
            try:
                _run_hydra(
                    args=parsed,
                    args_parser=parser,
                    task_function=task,
                    config_path=str(conf_dir()),
                    config_name=command,
                )
            except (ConfigCompositionException, OmegaConfBaseException) as error:
                from guardtrain.commands.unmentioned import accepted

                overrides = None if started else accepted(command, parsed.overrides, error)
                if overrides is None:
                    raise
                parsed.overrides = overrides
            else:
                break
    except KeyboardInterrupt:
        return _say(command, "interrupted; the same command continues where it stopped.", INTERRUPTED)
    except (GuardtrainError, _UsersToMend) as error:
        return _say(command, str(error), 2)
    except (HydraException, CompactHydraException, OmegaConfBaseException) as error:
        from guardtrain.commands.words import objection

        return _say(command, misplaced_experiment(command, parsed.overrides) or objection(command, error), 2)
    except Exception as error:
        given = dict(text.partition("=")[::2] for text in parsed.overrides)
        if (why := _of_files(error, started[0] if started else given)) is not None:
            return _say(command, why, 2)
        traceback.print_exc()
        if own := place_in_own(error):
            return _say(command, f"the lines above say what went wrong; they lead to {own}, which is yours.", 2)
        return _say(command, "this is a bug in guardtrain; please report the lines above.", 1)
    return 0


def _of_files(error: Exception, settings: Mapping[str, Any]) -> str | None:
    """Return what the user should know of a file that cannot be read or written; None of other errors."""
    if (why := why_unwritten(error, written_folders(settings))) is not None:
        return why
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. It must be readable, or writable with space left."
    return None


def _keep_in_log(text: str) -> None:
    """Write why a run failed into the log file in its folder; the terminal is told by the exit."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None))


def _is_sweep(parsed: argparse.Namespace) -> bool:
    """Whether a sweep is to be run, not its config or help to be shown."""
    shown = parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion or parsed.run
    return bool(not shown and (parsed.multirun or "hydra.mode=MULTIRUN" in parsed.overrides))


def _say(command: str, text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"guardtrain {command}: {text}", file=sys.stderr)
    return code
