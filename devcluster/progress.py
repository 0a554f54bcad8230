"""Progress lines with elapsed time, and waiting with a deadline."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from devcluster.errors import DevclusterError

_began = time.monotonic()


def say(text: str) -> None:
    """Print one progress line to stderr, after the seconds since the command began."""
    print(f"[{time.monotonic() - _began:6.1f}s] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step that takes a while and say how long it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"{text}: done in {time.monotonic() - start:.1f} s")


def wait_for(
    what: str,
    check: Callable[[], bool],
    *,
    timeout: float,
    interval: float = 0.1,
    on_timeout: Callable[[], str] = lambda: "",
    remedy: str = "",
) -> None:
    """Poll ``check`` until it holds.

    ``timeout`` and ``interval`` are seconds. ``check`` may raise ``DevclusterError`` to give up at once.
    When the time is over, the error carries what ``on_timeout`` returns (a log's tail, say).
    """
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            detail = on_timeout()
            raise DevclusterError(
                f"{what} did not happen within {timeout:.0f} s." + (f"\n{detail}" if detail else ""), remedy
            )
        time.sleep(interval)
