"""Command-line flags: LiveTalking's, plus a few of ours."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from avatar_runtime.errors import ConfigError

DEFAULT_VOICE = "en-US-BrianNeural"
MODELS = ("musetalk", "wav2lip", "ultralight")
MAX_SESSIONS = 1000

# The engines by the spellings that people use.
_ENGINES = {
    "edgetts": "edgetts", "edge": "edgetts",
    "tacotron": "tacotron", "tacotron2": "tacotron",
    "cosyvoice": "cosyvoice", "cosyvoice2": "cosyvoice",
    "sovits": "sovits", "gpt-sovits": "sovits",
    "omnitts": "omnitts",
}  # fmt: skip

# LiveTalking's flags that mean nothing here: (names, takes a value).
_IGNORED = (
    ("-l",), ("-m",), ("-r",), ("--batch_size",), ("--modelres",), ("--modelfile",), ("--config", "-c"),
    ("--customvideo_config",), ("--push_url",), ("--REF_TEXT",), ("--audio_output_device",),
    ("--W",), ("--H",), ("--customopt",), ("--asr",),
)  # fmt: skip


ICE_USES = ("all", "probe")


@dataclass(frozen=True)
class IceServer:
    """One of the pool's STUN or TURN servers, as RTCIceServer has it; empty credentials: made with the secret file."""

    urls: tuple[str, ...]
    username: str = ""
    credential: str = ""


@dataclass(frozen=True)
class MediaConfig:
    """How media gets out, which the operator tells by the environment (docs/media.md).

    ``hosts``: what peers are told in place of the pod's own addresses.
    ``use``: "all" or, where only clients relay, "probe".
    """

    hosts: tuple[str, ...] = ()
    ice_servers: tuple[IceServer, ...] = ()
    use: str = "all"
    secret_file: Path | None = None


@dataclass(frozen=True)
class RuntimeConfig:
    """The checked command line. ``None`` means: as the avatar's config.json says, else the default."""

    avatar_id: str
    data_dir: Path
    port: int
    host: str = ""
    """Address to listen on; empty = all, of both families."""
    model: str | None = None
    max_session: int | None = None
    tts_engine: str | None = None
    tts_server: str = ""
    voice: str | None = None
    media: MediaConfig = MediaConfig()
    connect_timeout: float = 30.0
    peer_timeout: float = 15.0
    drain_seconds: float = 30.0
    record_dir: Path = Path("./data/record")
    log_level: str = "info"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See python -m avatar_runtime --help")


def _parser(env: Mapping[str, str]) -> _Parser:
    parser = _Parser(
        prog="python -m avatar_runtime",
        description="Reference lip-sync runtime: one avatar, many WebRTC sessions.",
        allow_abbrev=False,
    )
    parser.add_argument("--avatar_id", required=True, help="name of a folder in --data_dir")
    parser.add_argument("--transport", default="webrtc", help="webrtc (the only one of this runtime)")
    parser.add_argument("--model", help=f"label only: {', '.join(MODELS)}")
    parser.add_argument("--max_session", type=int, help="most sessions at once, connecting ones included")
    parser.add_argument("--tts", help="protocol of --TTS_SERVER: edgetts, tacotron, cosyvoice, gpt-sovits, omnitts")
    parser.add_argument("--TTS_SERVER", default="", metavar="URL", help="base URL of the speech server")
    parser.add_argument("--REF_FILE", help=f"voice (timbre); default {DEFAULT_VOICE}")
    parser.add_argument("--listenport", type=int, default=8010)
    parser.add_argument("--listenhost", default="", help="address to listen on; all by default")
    parser.add_argument("--fps", type=int, default=25, help="must be 25")
    parser.add_argument("--data_dir", default=env.get("AVATAR_DATA_DIR") or "./data/avatars")
    parser.add_argument("--record_dir", default="./data/record", help="folder for recordings (POST /record)")
    parser.add_argument("--stun", default="", metavar="URI", help="STUN server; none by default")
    parser.add_argument("--connect_timeout", type=float, default=30, help="seconds from offer to media")
    parser.add_argument("--peer_timeout", type=float, default=15, help="seconds of silence after which a peer is dead")
    parser.add_argument(
        "--drain_seconds",
        type=float,
        default=env.get("AVATAR_DRAIN_SECONDS") or "30",
        help="wait for sessions after SIGTERM",
    )
    parser.add_argument("--log_level", default="info", choices=("debug", "info", "warning", "error"))
    for names in _IGNORED:
        parser.add_argument(*names, help="accepted for LiveTalking's sake; not used")
    return parser


def parse(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> RuntimeConfig:
    """Read the command line.

    Raises `ConfigError` with the flag and the remedy; exits 0 after ``--help``.
    """
    env = os.environ if env is None else env
    args = _parser(env).parse_args(argv)
    if args.transport != "webrtc":
        raise ConfigError(
            f"transport {args.transport!r} is not supported by the reference runtime: use --transport webrtc, "
            "or a LiveTalking image for rtmp and rtcpush"
        )
    if args.model is not None and args.model not in MODELS:
        raise ConfigError(f"unknown --model {args.model!r}: use one of {', '.join(MODELS)}")
    if args.max_session is not None and not 1 <= args.max_session <= MAX_SESSIONS:
        raise ConfigError(f"--max_session {args.max_session} is out of range: use 1–{MAX_SESSIONS}")
    if not 1 <= args.listenport <= 65535:
        raise ConfigError(f"--listenport {args.listenport} is not a port: use 1–65535")
    if args.fps != 25:
        raise ConfigError(f"--fps {args.fps} is not supported: the renderer runs at 25")
    for flag in ("connect_timeout", "peer_timeout"):
        if not 0 < getattr(args, flag) <= 3600:
            raise ConfigError(f"--{flag} must be above 0 and at most 3600 seconds")
    if not 0 <= args.drain_seconds <= 86400:
        raise ConfigError("--drain_seconds must lie between 0 and 86400")
    return RuntimeConfig(
        avatar_id=check_avatar_name(args.avatar_id),
        data_dir=Path(args.data_dir),
        port=args.listenport,
        host=args.listenhost,
        model=args.model,
        max_session=args.max_session,
        tts_engine=None if args.tts is None else engine_name(args.tts),
        tts_server=_server_url(args.TTS_SERVER),
        voice=args.REF_FILE or None,
        media=_media(args.stun, env),
        connect_timeout=args.connect_timeout,
        peer_timeout=args.peer_timeout,
        drain_seconds=args.drain_seconds,
        record_dir=Path(args.record_dir),
        log_level=args.log_level,
    )


def _media(stun: str, env: Mapping[str, str]) -> MediaConfig:
    try:
        listed = json.loads(env.get("AVATAR_ICE_SERVERS") or "[]")
        servers = tuple(
            IceServer(tuple(map(str, s["urls"])), str(s.get("username", "")), str(s.get("credential", "")))
            for s in listed
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f'AVATAR_ICE_SERVERS is not a list of servers ({error!r}): use [{{"urls": ["stun:192.0.2.1:3478"]}}]'
        ) from error
    use = env.get("AVATAR_ICE_USE") or "all"
    if use not in ICE_USES:
        raise ConfigError(f"AVATAR_ICE_USE is {use!r}: use one of {', '.join(ICE_USES)}")
    secret = env.get("AVATAR_TURN_SECRET_FILE")
    return MediaConfig(
        hosts=tuple(h.strip() for h in (env.get("AVATAR_MEDIA_HOST") or "").split(",") if h.strip()),
        ice_servers=(*([IceServer((stun,))] if stun else []), *servers),
        use=use,
        secret_file=Path(secret) if secret else None,
    )


def check_avatar_name(name: str) -> str:
    """Return `name` if it can be a folder's name inside the data directory, else raise `ConfigError`.

    Real names hold spaces and bare digits. What is refused is what could leave the directory or fool a log.
    """
    if not name or len(name) > 128:
        raise ConfigError(f"--avatar_id must have 1–128 characters, not {len(name)}")
    if name in (".", "..") or any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in name):
        raise ConfigError(f"--avatar_id {name!r} is not a folder's name: no slashes, dots alone or control characters")
    return name


def engine_name(label: str) -> str:
    """Return the canonical engine for one of its spellings, else raise `ConfigError`."""
    engine = _ENGINES.get(label.strip().lower())
    if engine is None:
        raise ConfigError(f"unknown --tts {label!r}: use one of {', '.join(sorted(set(_ENGINES.values())))}")
    return engine


def _server_url(url: str) -> str:
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"--TTS_SERVER {url!r} is not an HTTP URL: use for example http://tts-edgetts:5002")
    return url.rstrip("/")
