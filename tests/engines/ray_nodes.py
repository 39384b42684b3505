"""A Ray cluster of two nodes on this machine, until this process is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

# Nobody reads what else a head starts, and each is a Python that imports Ray while the nodes wait for their own.
HEAD = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
SECONDS = 600.0  # that both may take to be there


def main(address: Path) -> None:
    """Keep a cluster; one that did not come to be is begun anew, in a process with whose end all of it ends.

    A node of Ray ends where its helpers take over 15 s to start. No setting gives them longer, so that on a machine
    with much else to do it is chance how often it takes.
    """
    end_at = time.monotonic() + SECONDS
    _end_by_signal()
    while True:
        cluster = subprocess.Popen([sys.executable, "-m", "tests.engines.ray_nodes", str(address), "once"])
        try:
            code = cluster.wait()
        finally:
            cluster.terminate()
            cluster.wait()
        if address.exists() or time.monotonic() > end_at:
            raise SystemExit(code)
        print(f"The cluster ended with {code} before its nodes were there: begun anew.", file=sys.stderr, flush=True)


def once(address: Path) -> None:
    """Start the nodes, a processor each, and write the cluster's address to a file when both are there."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray._private import services
    from ray.cluster_utils import Cluster

    _end_by_signal()
    services.get_node = _until_it_is_there(services.get_node)
    cluster = Cluster()
    try:
        cluster.add_node(wait=False, **HEAD, **NODE)
        cluster.add_node(wait=False, **NODE)
        cluster.wait_for_nodes(SECONDS)
        draft = address.with_suffix(".part")
        draft.write_text(cluster.address)
        draft.rename(address)
        signal.pause()
    finally:
        cluster.shutdown()


def _until_it_is_there(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's question for a node, asked until it has an answer or one of the node's processes has ended.

    Ray itself asks for 30 s, also where the node is about to be there.
    """

    @wraps(get_node)
    def asked(*arguments: Any) -> Any:
        end_at = time.monotonic() + SECONDS
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError as error:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None:
                    name = Path(f"/proc/{ended.si_pid}/comm").read_text().strip()
                    raise SystemExit(f"Ray's {name} ended with {ended.si_status}: {error}") from error
                if time.monotonic() > end_at:
                    raise SystemExit(f"no node of Ray within {SECONDS:.0f} s: {error}") from error
                time.sleep(0.5)

    return asked


def _end_by_signal() -> None:
    """SIGTERM ends this process as Ctrl-C does: what it started, too."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    (once if sys.argv[2:] else main)(Path(sys.argv[1]))
