"""A WebRTC client for a talking avatar: connects, says a sentence, records what a viewer would get and judges it.

The library is `AvatarSession`; ``python -m avatar_client --help`` is the command.
"""

from avatar_client.errors import ClientError, ConnectTimeout, Refused, SpeechError
from avatar_client.recording import Recording
from avatar_client.session import AvatarSession

__all__ = ["AvatarSession", "ClientError", "ConnectTimeout", "Recording", "Refused", "SpeechError"]
