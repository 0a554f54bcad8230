"""The routes of signalling: offers, WHEP, and what is said to an avatar."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from starlette.requests import Request
from starlette.responses import Response

from avatar_operator.domain.resources import IceServer

from . import multipart, requests, shapes
from .caller import Role
from .door import Door
from .edge import trail
from .offers import Answered, Offers
from .problems import bad_request, not_found, unavailable
from .routes import json_answer, path_id
from .runtimes import AUDIO_TIMEOUT, Runtimes

AUDIO_MOST = 10 << 20
# Recordings held in memory at one time.
RECORDINGS_MOST = 8
OK = shapes.TalkAnswer("success")


@dataclass(slots=True)
class SignalRoutes:
    """One method for each route."""

    offers: Offers
    runtimes: Runtimes
    door: Door
    recordings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RECORDINGS_MOST))

    # ---- coming ----------------------------------------------------------------------

    async def offer(self, request: Request) -> Response:
        """Connect to an avatar that runs."""
        who, path = await self.door.enter(request, "offer", Role.USER)
        body = await requests.read(request, shapes.OfferRequest)
        await self.door.limit(who, "offers")
        text = path_id(request)
        path.facts |= {"avatar_id": body.avatar_id or text}
        answered = await self.offers.answer(text, body.sdp, body.avatar_id, who)
        path.facts |= _facts(answered)
        ice = [shapes.Ice(s.urls, s.username, s.credential) for s in answered.ice]
        return json_answer(shapes.OfferAnswer(answered.sdp, "answer", answered.sessionid, answered.avatar_id, ice))

    async def whep(self, request: Request) -> Response:
        """The same in the words of WHEP."""
        who, path = await self.door.enter(request, "whep", Role.USER)
        offer = await requests.read_sdp(request)
        await self.door.limit(who, "offers")
        text = path_id(request)
        answered = await self.offers.answer(text, offer, None, who)
        path.facts |= _facts(answered)
        headers = {"Location": f"/avatar/{quote(text, safe='')}/whep/{quote(answered.avatar_id, safe='')}"}
        response = Response(answered.sdp, 201, headers, requests.SDP)
        for link in links(answered.ice):
            response.headers.append("Link", link)
        return response

    async def whep_options(self, request: Request) -> Response:
        """What it takes; a preflight of CORS does not come here."""
        trail(request.scope).route = "whep-options"
        return Response(status_code=204, headers={"Accept-Post": requests.SDP, "Allow": "OPTIONS, POST"})

    async def whep_end(self, request: Request) -> Response:
        """End a session that came by WHEP."""
        who, path = await self.door.enter(request, "whep-end", Role.USER)
        text, resource = path_id(request), path_id(request, "resource")
        path.facts |= {"avatar_id": resource}
        if not await self.offers.end(text, resource, who):
            raise not_found(f"there is no session {resource!r}: it has ended")
        return json_answer(OK)

    # ---- talking ---------------------------------------------------------------------

    async def human(self, request: Request) -> Response:
        """Say a text, or answer it."""
        await self._talk(request, "human", "/human", shapes.HumanRequest)
        return json_answer(OK)

    async def interrupt_talk(self, request: Request) -> Response:
        """Stop talking."""
        await self._talk(request, "interrupt-talk", "/interrupt_talk", shapes.SpeakerRequest)
        return json_answer(OK)

    async def is_speaking(self, request: Request) -> Response:
        """Whether it talks."""
        answer = await self._talk(request, "is-speaking", "/is_speaking", shapes.SpeakerRequest)
        return json_answer(shapes.SpeakingAnswer("success", bool(answer.get("data"))))

    async def _talk(
        self, request: Request, name: str, route: str, kind: type[shapes.HumanRequest] | type[shapes.SpeakerRequest]
    ) -> dict[str, object]:
        who, path = await self.door.enter(request, name, Role.USER)
        body = await requests.read(request, kind)
        item = await self.offers.talking(path_id(request), body.sessionid, who)
        path.facts |= {"instance": item.metadata.name, "runtime_session": str(body.sessionid)}
        # Defaults are said, too: LiveTalking has none for some.
        return await self.runtimes.call(item, route, json={f: getattr(body, f) for f in body.__struct_fields__})

    async def humanaudio(self, request: Request) -> Response:
        """Say a recording."""
        who, path = await self.door.enter(request, "humanaudio", Role.USER)
        if self.recordings.locked():
            raise unavailable("too many recordings at once; try again", 2)
        async with self.recordings:
            raw = await requests.body(request, AUDIO_MOST)
            form = await multipart.parse(request.headers.get("content-type", ""), raw)
            sessionid = form.sessionid
            if form.file is None or not form.file[2] or not sessionid:
                raise bad_request("the form needs sessionid and file, a WAV or MP3 file")
            item = await self.offers.talking(path_id(request), sessionid, who)
            path.facts |= {"instance": item.metadata.name, "runtime_session": sessionid, "bytes": len(form.file[2])}
            data = aiohttp.FormData({"sessionid": sessionid})
            name, kind, sound = form.file
            data.add_field("file", sound, filename=name, content_type=kind)
            await self.runtimes.call(item, "/humanaudio", data=data, timeout=AUDIO_TIMEOUT)
        return json_answer(OK)


def _facts(answered: Answered) -> dict[str, object]:
    return {
        "instance": answered.instance.metadata.name,
        "avatar_id": answered.avatar_id,
        "runtime_session": str(answered.sessionid),
    }


def links(servers: Iterable[IceServer]) -> list[str]:
    """ICE servers as Link headers (RFC 9725, 4.6)."""
    found = []
    for server in servers:
        credential = ""
        if server.username:
            credential = (
                f'; username="{_quoted(server.username)}"; credential="{_quoted(server.credential)}"; '
                'credential-type="password"'
            )
        found += [f'<{url}>; rel="ice-server"{credential}' for url in server.urls]
    return found


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
