"""What can go wrong between a client and an avatar."""


class ClientError(Exception):
    """The avatar could not be reached or answered nonsense; the text names the cause."""


class Refused(ClientError):
    """The runtime said no (``{"code": -1, "msg": …}``); the text is its message."""


class ConnectTimeout(ClientError):
    """The session was made, but no picture came in time. ``connected``: the way for media is there."""

    def __init__(self, message: str, *, connected: bool = False) -> None:
        super().__init__(message)
        self.connected = connected


class SpeechError(ClientError):
    """The runtime could not speak the text, or did not finish in time."""
