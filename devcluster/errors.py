"""The one error that the command line turns into a message."""


class DevclusterError(Exception):
    """Something that the user can act on: what happened, and in ``remedy`` what to try."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
