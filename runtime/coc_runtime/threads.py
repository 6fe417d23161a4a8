"""Work that threads share."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def each(function: Callable[[A], B], values: Iterable[A]) -> list[B]:
    """The function's results in order, from a thread for each CPU. What the first value that fails raises (or
    Ctrl-C) ends it without the values that no thread has begun."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return list(pool.map(function, values))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
