"""Everything that the console shows, piece by piece, each with the version at which it last changed.

Who follows asks what has changed since the version that it has seen. Nothing is queued for anybody: one who is slow
gets fewer, larger differences, and costs nothing meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

# What has gone is remembered for those who have seen it; whoever is further behind gets everything anew.
GONE_MOST = 5000


class Place(NamedTuple):
    """Which piece: a section (instances, gpus, …) and its key there."""

    section: str
    key: str


class Difference(NamedTuple):
    """What to set and what to forget, by section. ``whole``: everything there is, whatever was seen before."""

    whole: bool
    set: dict[str, dict[str, msgspec.Raw]]
    gone: dict[str, list[str]]


class Board:
    """The pieces as JSON, encoded once for all who follow."""

    def __init__(self) -> None:
        self.version = 0
        self._pieces: dict[Place, msgspec.Raw] = {}
        # Every place that is or was, the one that changed last at the end.
        self._changed: OrderedDict[Place, int] = OrderedDict()
        self._gone = 0
        self._forgotten = 0

    def put(self, place: Place, piece: object | None) -> None:
        """The piece as it is now; None: it is gone. One that is as it was is no change."""
        before = self._pieces.get(place)
        if piece is None:
            if before is None:
                return
            del self._pieces[place]
            self._gone += 1
        else:
            after = msgspec.Raw(msgspec.json.encode(piece))
            if before is not None and bytes(before) == bytes(after):
                return
            self._pieces[place] = after
            self._gone -= before is None and place in self._changed
        self.version += 1
        self._changed[place] = self.version
        self._changed.move_to_end(place)
        if self._gone > GONE_MOST:
            self._forget()

    def keys(self, section: str) -> list[str]:
        """Keys of the pieces of a section."""
        return [place.key for place in self._pieces if place.section == section]

    def since(self, version: int) -> Difference:
        """What has changed after ``version``; 0, or one that is too old, gives everything."""
        found: dict[str, dict[str, msgspec.Raw]] = {}
        gone: dict[str, list[str]] = {}
        whole = version <= self._forgotten
        if whole:
            for place, piece in self._pieces.items():
                found.setdefault(place.section, {})[place.key] = piece
            return Difference(True, found, gone)
        for place, changed in reversed(self._changed.items()):
            if changed <= version:
                break
            now = self._pieces.get(place)
            if now is None:
                gone.setdefault(place.section, []).append(place.key)
            else:
                found.setdefault(place.section, {})[place.key] = now
        return Difference(False, found, gone)

    def _forget(self) -> None:
        """Let go of the older half of what is gone."""
        old = [place for place in self._changed if place not in self._pieces][: GONE_MOST // 2]
        self._forgotten = max(self._changed[place] for place in old)
        for place in old:
            del self._changed[place]
        self._gone -= len(old)
