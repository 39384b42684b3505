"""A Ray cluster of two nodes on this machine, until this process is told to end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
ATTEMPTS = 8


def main(address: Path) -> None:
    """Start the nodes, a processor each, and write the cluster's address to a file when both are there."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    cluster = _head(Cluster)
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        draft = address.with_suffix(".part")
        draft.write_text(cluster.address)
        draft.rename(address)
        signal.pause()
    finally:
        cluster.shutdown()


def _head(cluster: Any) -> Any:
    """A cluster of one node, tried again where a busy machine takes longer to start it than Ray waits."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return cluster(initialize_head=True, head_node_args={"include_dashboard": False, **NODE})
        except Exception:
            if not left:
                raise
    raise AssertionError


if __name__ == "__main__":
    main(Path(sys.argv[1]))
