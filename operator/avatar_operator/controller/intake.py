"""Objects as JSON into the store, of which only what is news is decoded."""

from __future__ import annotations

import functools
import logging

import msgspec

from avatar_operator.kube.glance import Where, glance
from avatar_operator.kube.kinds import AnyObject

from .keys import version_of
from .metrics import Metrics
from .store import Store
from .watched import Watched

log = logging.getLogger(__name__)


@functools.cache
def _decoder(kind: type[AnyObject]) -> msgspec.json.Decoder[AnyObject]:
    return msgspec.json.Decoder(kind)


class Intake:
    """Fills ``store``; what does not fit its schema is counted, told by name, and skipped."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def read(self, what: Watched, item: msgspec.Raw | bytes) -> None:
        """Take in a state of an object."""
        try:
            self._store.apply(_decoder(what.kind).decode(item))
        except (msgspec.ValidationError, ValueError) as error:
            self._metrics.bad_objects.labels(what.resource.plural).inc()
            name = glance(item).metadata.name
            log.error("%s %s does not fit its schema and is skipped: %s", what.resource.plural, name, error)

    def hear(self, what: Watched, where: Where, item: msgspec.Raw) -> None:
        """The same, unless it is known: of our own writes the answers have told it all."""
        known = self._store.known(what.kind, (where.namespace, where.name))
        if known is None or known.uid != where.uid or version_of(known) < int(where.resource_version):
            self.read(what, item)

    def end(self, what: Watched, where: Where, item: msgspec.Raw) -> None:
        """Take in that an object is gone; first what it was at its end, which may say why."""
        known = self._store.known(what.kind, (where.namespace, where.name))
        if known is not None and known.uid == where.uid:
            self.hear(what, where, item)
        self._store.remove(what.kind, where.namespace, where.name, where.uid, where.resource_version)
