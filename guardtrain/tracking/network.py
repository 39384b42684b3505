"""Whether a server can be reached, found out quickly: trackers' own clients try for minutes."""

from __future__ import annotations

import functools
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 2.0
_PORTS = {"http": 80, "https": 443}


@functools.cache  # the jobs of a sweep that share a process ask once
def reachable(url: str, seconds: float = SECONDS) -> bool:
    """Whether the host of `url`, or the proxy before it, takes a connection within so many seconds.

    >>> reachable("http://127.0.0.1:9")
    False
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(host):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    found: list[bool] = []

    def connect() -> None:
        try:
            address = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443))
            with socket.create_connection(address, timeout=seconds):
                found.append(True)
        except (OSError, ValueError):
            found.append(False)

    # in a thread, for nothing else bounds the time a name server takes to say nothing
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found and found[0])
