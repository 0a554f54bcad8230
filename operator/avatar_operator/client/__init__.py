"""A typed client of the REST API, blocking and async: ``pip install 'avatar-operator[client]'``.

    with AvatarClient("http://avatars:8607", token=TOKEN) as avatars:
        started = avatars.start("g_user_1", "g")
        print(started.webrtc_url, started.connections)
        avatars.disconnect("g_user_1", "g")

Starts, disconnects and heartbeats are idempotent, so all of them are repeated
when an answer is lost or the server says that it cannot now (429, 503), for as
long as ``patience`` allows.
"""

from .blocking import AvatarClient
from .common import AvatarApiError, NotConnectedError
from .concurrent import AsyncAvatarClient

__all__ = ["AsyncAvatarClient", "AvatarApiError", "AvatarClient", "NotConnectedError"]
