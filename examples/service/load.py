"""Requests per second and latency of a service: python load.py URL IMAGE [IMAGE ...] --clients 16 --seconds 5

Each client is a thread with one connection that sends the images in turn, the next when the answer is there.
"""

import argparse
import http.client
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit


@dataclass
class Load:
    """What the clients saw."""

    seconds: float = 0
    """from the first request to the last answer"""
    latency_ms: list[float] = field(default_factory=list)
    """of the requests that were answered with 200"""
    failed: Counter[str] = field(default_factory=Counter)
    """other answers, by status or exception"""

    @property
    def requests_per_s(self) -> float:
        return len(self.latency_ms) / self.seconds

    def percentile(self, percent: int) -> float:
        """Milliseconds; NaN without two answers."""
        if len(self.latency_ms) < 2:
            return float("nan")
        return quantiles(self.latency_ms, n=100, method="inclusive")[percent - 1]


def run(url: str, bodies: list[bytes], clients: int, seconds: float) -> Load:
    """Load a service with `clients` connections for `seconds`; client k starts with body k."""
    load, start = Load(), time.perf_counter()
    turned = [bodies[k % len(bodies) :] + bodies[: k % len(bodies)] for k in range(clients)]
    threads = [threading.Thread(target=_client, args=(url, own, start + seconds, load)) for own in turned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - start
    return load


def _client(url: str, bodies: list[bytes], until: float, load: Load) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=30)
    sent = 0
    while (start := time.perf_counter()) < until:
        try:
            connection.request("POST", parts.path, bodies[sent % len(bodies)])
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException) as error:
            load.failed[type(error).__name__] += 1
            connection.close()
            time.sleep(0.1)
            continue
        sent += 1
        if reply.status == 200:
            load.latency_ms.append((time.perf_counter() - start) * 1000)
        else:
            load.failed[str(reply.status)] += 1
    connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://127.0.0.1:8000/classify")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    try:
        bodies = [path.read_bytes() for path in options.images]
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    load = run(options.url, bodies, options.clients, options.seconds)
    print(
        f"{options.clients} clients: {load.requests_per_s:.0f} requests/s, p50 {load.percentile(50):.2f} ms, "
        f"p99 {load.percentile(99):.2f} ms, {load.failed.total()} failed {dict(load.failed) or ''}".rstrip()
    )
    return int(load.failed.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
