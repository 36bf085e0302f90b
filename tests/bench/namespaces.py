"""Two network namespaces joined by a pair of virtual network cards: the two ends in one, the relay in the other.

So all bytes cross the pair twice, in frames and under TCP's own control, as between machines; loopback has neither.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.processes import READY, Missing, tool
from tests.bench.relays import Place

# Addresses for documentation (RFC 5737): nothing real is reached even if the namespaces leaked.
ENDS, RELAY = "192.0.2.1", "192.0.2.2"


@contextmanager
def namespaces() -> Iterator[Place]:
    """They are there, under names of this process's own, while the block runs. Raises :class:`Missing`."""
    if os.geteuid() != 0:
        raise Missing("network namespaces need root")
    ip = tool("ip")

    def run(*arguments: str) -> None:
        try:
            subprocess.run([ip, *arguments], check=True, capture_output=True, timeout=READY)
        except subprocess.CalledProcessError as error:
            raise Missing(f"ip {' '.join(arguments)}: {error.stderr.decode('utf-8', 'replace').strip()}") from error

    names = [f"glide-bench-{os.getpid()}-{which}" for which in ("ends", "relay")]
    try:
        for name in names:
            run("netns", "add", name)
        ends, relay = names
        run("link", "add", "eth", "netns", ends, "type", "veth", "peer", "name", "eth", "netns", relay)
        for name, address in ((ends, ENDS), (relay, RELAY)):
            run("-n", name, "address", "add", f"{address}/24", "dev", "eth")
            run("-n", name, "link", "set", "eth", "up")
            run("-n", name, "link", "set", "lo", "up")
        inside_ends, inside_relay = ((ip, "netns", "exec", name) for name in names)
        yield Place(ENDS, RELAY, inside_ends, inside_relay)
    finally:
        for name in names:  # one that was never made cannot be removed, and says so to nobody
            subprocess.run([ip, "netns", "del", name], check=False, capture_output=True, timeout=READY)
