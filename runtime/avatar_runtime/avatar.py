"""Reads and checks an avatar's folder: ``config.json`` (how it is run) and ``avatar.json`` (how it is drawn)."""

import json
import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from avatar_runtime.config import check_avatar_name, engine_name
from avatar_runtime.errors import ConfigError

_COLOUR = re.compile(r"^#[0-9a-fA-F]{6}$")
_MAX_FILE = 256 * 1024


@dataclass(frozen=True)
class Face:
    """A drawn face. Lengths are parts of the picture's side, colours ``#rrggbb``.

    ``hair_style`` is one of long, bob, short, bun; ``clothes_style`` one of crew, collar, vneck.
    """

    skin: str = "#f2c7a5"
    skin_shadow: str = "#dda27c"
    blush: str = "#e98d83"
    hair: str = "#5b3a29"
    hair_light: str = "#7d543c"
    hair_style: str = "long"
    brow: str = "#4b2f21"
    eye: str = "#4f7d8c"
    lip: str = "#c4615f"
    clothes: str = "#3f6fa8"
    clothes_light: str = "#5b8cc6"
    clothes_style: str = "crew"
    background: str = "#e9f1f7"
    background_edge: str = "#b7cbe0"
    centre_x: float = 0.5
    centre_y: float = 0.455
    face_width: float = 0.42
    face_height: float = 0.55
    jaw: float = 0.30
    eye_y: float = 0.43
    eye_gap: float = 0.185
    eye_size: float = 0.052
    brow_thickness: float = 0.015
    nose_y: float = 0.535
    mouth_y: float = 0.625
    mouth_width: float = 0.135
    mouth_height: float = 0.085
    lip_thickness: float = 0.016
    glasses: bool = False
    stubble: bool = False


@dataclass(frozen=True)
class Avatar:
    """An avatar that can be run."""

    name: str
    face: Face
    size: int = 352
    tts_engine: str | None = None
    voice: str | None = None
    model: str | None = None
    max_session: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def load(data_dir: Path, name: str) -> Avatar:
    """Read the avatar `name` from `data_dir`.

    Raises `ConfigError` that names the file, the fault and the remedy.
    """
    check_avatar_name(name)
    folder = data_dir / name
    if not data_dir.is_dir():
        raise ConfigError(
            f"the avatar data directory {data_dir} does not exist: mount the avatars there or set --data_dir"
        )
    try:
        inside = folder.resolve().is_relative_to(data_dir.resolve())
    except OSError as error:
        raise ConfigError(f"avatar {name!r} cannot be opened: {error}") from error
    if not folder.is_dir() or not inside:
        known = ", ".join(available(data_dir)) or "none"
        raise ConfigError(f"unknown avatar {name!r}: {data_dir} has {known}. Check avatarName or add the avatar's data")
    drawing = _read(folder / "avatar.json", required=True)
    config = _read(folder / "config.json", required=False)
    size = drawing.pop("size", 352)
    if not isinstance(size, int) or isinstance(size, bool) or not 128 <= size <= 1024 or size % 16:
        raise ConfigError(f"{folder / 'avatar.json'}: size must be a multiple of 16 between 128 and 1024, not {size!r}")
    return Avatar(
        name=name, face=_face(drawing, folder / "avatar.json"), size=size, **_run(config, folder / "config.json")
    )


def available(data_dir: Path) -> list[str]:
    """Return the names of the avatars in a directory, sorted (at most 20)."""
    try:
        return sorted(p.name for p in data_dir.iterdir() if (p / "avatar.json").is_file())[:20]
    except OSError:
        return []


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if not required:
            return {}
        raise ConfigError(f"{path} is missing: the avatar's data is incomplete, restore it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}: check the volume and its permissions") from error
    if len(raw) > _MAX_FILE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE} bytes: this is no avatar description")
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}): correct it") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return data


def _face(data: dict[str, Any], path: Path) -> Face:
    known = {f.name: f for f in fields(Face)}
    for key, value in data.items():
        if key.startswith("_"):
            continue
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}: known are size, {', '.join(known)}")
        default = known[key].default
        if default is MISSING:
            continue
        if isinstance(default, bool):
            good = isinstance(value, bool)
        elif isinstance(default, float):
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        elif key == "hair_style":
            good = value in ("long", "bob", "short", "bun")
        elif key == "clothes_style":
            good = value in ("crew", "collar", "vneck")
        else:
            good = isinstance(value, str) and bool(_COLOUR.match(value))
        if not good:
            raise ConfigError(f"{path}: {key} cannot be {value!r}: the default is {default!r}")
    return Face(**{k: v for k, v in data.items() if not k.startswith("_")})


def _run(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Pick out of the old system's config.json what this runtime knows; the rest is kept, not judged."""
    result: dict[str, Any] = {}
    engine, sessions = data.get("tts_model"), data.get("max_session")
    if engine is not None:
        try:
            result["tts_engine"] = engine_name(str(engine))
        except ConfigError as error:
            raise ConfigError(f"{path}: tts_model: {error}") from None
    if sessions is not None:
        if not isinstance(sessions, int) or isinstance(sessions, bool) or not 1 <= sessions <= 1000:
            raise ConfigError(f"{path}: max_session must be a number from 1 to 1000, not {sessions!r}")
        result["max_session"] = sessions
    for key, target in (("timbre", "voice"), ("avatar_model", "model")):
        value = data.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{path}: {key} must be a string, not {value!r}")
        result[target] = value or None
    result["extra"] = {k: v for k, v in data.items() if k not in ("tts_model", "max_session", "timbre", "avatar_model")}
    return result
