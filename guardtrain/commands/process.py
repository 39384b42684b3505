"""What a process that runs commands is made ready with, whether a user or a launcher started it."""

from __future__ import annotations

import logging
import os
import sys


def prepare_process() -> None:
    """Set what torch and rich read from the environment, where the user has not."""
    # Threads that spin while they wait take the cores from those that work: on two, a curve took half as long again.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch: large pages for large tensors, a third off a curve's time
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # A log file on a full disk ends nothing, and prints no traceback for each line.
    logging.raiseExceptions = False
    # Jupyter sets FORCE_COLOR for its cells, which rich takes for a terminal: progress bars would fill the notebook.
    if "FORCE_COLOR" in os.environ and not sys.stderr.isatty():
        os.environ.setdefault("TTY_COMPATIBLE", "0")
