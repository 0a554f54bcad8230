"""A Flask backend that lets its users talk to avatars, as backends of Avatar Manager did: nothing in it had to change.

Each user gets a session id of its own (`<avatar>_user_<uid>`), the manager's start is waited for 35 seconds, and who
talks to what is kept in a map: in memory here, in Redis where there are several workers.

    AVATAR_MANAGER_URL=http://localhost:8607 JWT_SECRET_KEY=… flask --app app run
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import requests
from flask import Blueprint, Flask, jsonify, request
from flask.typing import ResponseReturnValue
from flask_jwt_extended import JWTManager, get_jwt_identity, jwt_required

# A little longer than the manager waits for an avatar.
START_SECONDS, OTHER_SECONDS = 35, 10

avatars = Blueprint("avatars", __name__, url_prefix="/api/avatar")
talking: dict[str, dict[str, Any]] = {}


def manager(
    verb: str, path: str, body: dict[str, Any] | None = None, timeout: float = OTHER_SECONDS
) -> requests.Response:
    """One request to the manager, with this backend's own token where it needs one."""
    token = os.environ.get("AVATAR_MANAGER_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = os.environ.get("AVATAR_MANAGER_URL", "http://localhost:8607")
    return requests.request(verb, f"{url}{path}", json=body, headers=headers, timeout=timeout)


@avatars.post("/connect")
@jwt_required()
def connect() -> ResponseReturnValue:
    """Connect the user to an avatar; others may be talking to it already."""
    uid = str(get_jwt_identity())
    name = (request.get_json(silent=True) or {}).get("avatar_name")
    if not name:
        return jsonify(status="error", message="avatar_name required"), 400
    before = talking.get(uid)
    if before is not None and before["avatar_name"] != name:
        leave(uid)
    session = f"{name}_user_{uid}"
    try:
        answer = manager("POST", "/avatar/start", {"avatar_id": session, "avatar_name": name}, START_SECONDS)
    except requests.Timeout:
        return jsonify(status="error", message="the avatar takes too long to start"), 504
    except requests.RequestException as error:
        return jsonify(status="error", message=f"Avatar Manager is unreachable: {type(error).__name__}"), 503
    found = answer.json()
    if answer.status_code != 200:
        wait = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {}
        return (
            jsonify(status="error", message=found.get("message", "failed to start the avatar")),
            answer.status_code,
            wait,
        )
    data = found["data"]
    talking[uid] = {
        "avatar_id": session,
        "avatar_name": name,
        "port": data["port"],
        "connected_at": datetime.now(UTC).isoformat(),
    }
    return jsonify(
        status="success",
        port=data["port"],
        webrtc_url=data["webrtc_url"],
        connections=data["connections"],
        is_new_instance=data["is_new"],
    )


@avatars.post("/disconnect")
@jwt_required()
def disconnect() -> ResponseReturnValue:
    """Disconnect the user; the avatar stays for others, and is collected when it was idle for long enough."""
    try:
        leave(str(get_jwt_identity()))
    except requests.RequestException as error:
        return jsonify(status="error", message=f"Avatar Manager is unreachable: {type(error).__name__}"), 503
    return jsonify(status="success")


@avatars.get("/status")
@jwt_required()
def status() -> ResponseReturnValue:
    """What the user talks to."""
    found = talking.get(str(get_jwt_identity()))
    if found is None:
        return jsonify(status="no_avatar")
    try:
        answer = manager("GET", f"/avatar/info/{found['avatar_id']}", timeout=5)
    except requests.RequestException:
        return jsonify(status="error"), 503
    if answer.status_code != 200:
        return jsonify(status="disconnected")
    return jsonify(status="connected", avatar=answer.json()["data"])


def leave(uid: str) -> None:
    """End a user's session. The old manager took the name alone; the id makes it safe to repeat."""
    found = talking.get(uid)
    if found is not None:
        body = {"avatar_name": found["avatar_name"], "avatar_id": found["avatar_id"]}
        manager("POST", "/avatar/disconnect", body).raise_for_status()
        talking.pop(uid, None)


def create_app() -> Flask:
    """The application."""
    app = Flask(__name__)
    app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
    JWTManager(app)
    app.register_blueprint(avatars)
    return app
