"""Which of several operators that act at the same time an object is for: by its namespace.

All of an avatar's objects are in one namespace, and so are the ports that they
share; GPUs are not, so every shard knows every reservation, and each is
confirmed against the API server after it is written (docs/scale.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Shard:
    """Number ``index`` of ``count``, from 0. What is in no namespace is for number 0."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, namespace: str) -> bool:
        """Whether objects in ``namespace`` are for this shard."""
        return crc32(namespace.encode()) % self.count == self.index


ALL = Shard()


def parse(text: str) -> Shard:
    """The shard that ``INDEX/COUNT`` says. Raises ValueError with a message for people."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()) or int(index) >= int(count):
        raise ValueError(f"{text!r}: give a shard as INDEX/COUNT, for example 0/2 and 1/2")
    return Shard(int(index), int(count))
