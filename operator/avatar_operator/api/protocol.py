"""The HTTP protocol of uvicorn, with bounds: how much head, how long for it, how many connections."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MOST = 32 * 1024
HEAD_SECONDS = 15.0
CONNECTIONS_MOST = 10_000

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'content-length: 61\r\n\r\n{"status":"error","message":"the request head is too large"}\n'
)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's parser keeps as much of a request's head as is sent, for as long as the client likes; this does not."""

    _open = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection."""
        super().connection_made(transport)
        self._head: int | None = 0
        self._patience: asyncio.TimerHandle | None = None
        BoundedProtocol._open += 1
        if BoundedProtocol._open > CONNECTIONS_MOST:
            transport.abort()
            return
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        BoundedProtocol._open -= 1
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._head is not None:
            self._head += len(data)
            if self._patience is None:
                self._begin_head()
        super().data_received(data)
        # A body that came along has ended the head by now.
        if self._head is not None and self._head > HEAD_BYTES_MOST and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._end_head()
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; the next one may come."""
        super().on_message_complete()
        self._head = 0

    def _begin_head(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._give_up)

    def _end_head(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()
