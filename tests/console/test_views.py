"""Every view with something in it, in light and dark: nothing that axe-core calls serious, and pictures to look at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests.conftest import ROOT
from tests.console.conftest import PICTURES, MakePod
from tests.console.test_talk import sign_in
from tests.support.api import GROUP, Api, Json
from tests.support.browser import Page
from tests.support.gpus import Gpus
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.tokens import hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster
AXE = ROOT / "console/node_modules/axe-core/axe.min.js"
SERIOUS = ("serious", "critical")
SIZES = {"desktop": (1440, 900, False), "phone": (390, 844, True)}
GIB = 1024


def gpu(index: int, used: int, **more: object) -> Json:
    """24 GiB of which ``used`` GiB are in use."""
    total = 24 * GIB
    memory = {"totalMiB": total, "usedMiB": used * GIB, "freeMiB": total - used * GIB}
    return {
        "uuid": f"GPU-00000000-0000-0000-0000-00000000000{index}",
        "index": index,
        "product": "NVIDIA GeForce RTX 4090",
        "healthy": True,
        "memory": memory,
        "temperatureCelsius": 54,
        "utilizationPercent": 38,
        "powerWatts": 212,
        "powerLimitWatts": 450,
        "processesKnown": False,
        **more,
    }


@pytest.fixture
async def trouble(api: Api, namespace: str) -> AsyncIterator[None]:
    """A node whose GPUs others use, one of which is too hot."""
    name = f"render-{namespace}"
    hot = {"type": "Temperature", "message": "91 °C for two minutes; the limit is 85 °C"}
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    status = {
        "lastReport": now,
        "heartbeatSeconds": 600,
        "gpus": [gpu(0, 13), gpu(1, 22, temperatureCelsius=91, utilizationPercent=99, alerts=[hot])],
    }
    body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}, "spec": {}}
    await api.create("gpunodes", "", body)
    await api.patch("gpunodes", "", name, {"status": status}, "status")
    yield
    await api.delete("gpunodes", "", name)


@pytest.fixture
async def scenery(
    world: World, api: Api, namespace: str, operator: Operator, make_pod: MakePod, trouble: None
) -> AsyncIterator[None]:
    """Instances in every state that a page should be able to show, on GPUs."""
    async with Gpus.playing(api, namespace) as gpus:
        node = await gpus.node()
        node.gpus[0].outside(7 * GIB)
        more = gpus.pool()
        runtime = more.pop("runtime")
        more |= {"ports": {"base": 8615, "count": 4}, "maxInstances": 4, "idle": {"timeoutSeconds": 1800}}
        await make_pod(runtime=runtime, **more)
        await _people(world)
        yield


async def _people(world: World) -> None:
    await world.avatar("bruno", "Professor Lovelace", "Tutor 7", "Grace", "Niels")
    await world.engine("edgetts", image="tts.test/engine:1", protocol="edgetts", **_place())
    await world.engine("cosyvoice", image="tts.test/engine:1", protocol="cosyvoice", fallback="edgetts", **_place())
    for name, avatar in (("ada", "ada"), ("bruno", "bruno"), ("lovelace", "Professor Lovelace")):
        await world.instance(name, avatar)
        await world.phase(name, "Running")
    await world.connections("ada", 2)
    await world.connections("lovelace", 14)
    await world.instance("ada-too", "ada")
    await world.phase("ada-too", "Shared")
    await world.instance("nobody", "An avatar that nobody made")
    await world.phase("nobody", "Failed")
    await world.instance("tutor", "Tutor 7")
    await world.phase("tutor", "Running")
    for name, avatar in (("grace", "Grace"), ("niels", "Niels")):
        await world.instance(name, avatar)
        await world.until(name, "waiting", lambda s: bool(s.get("queuePosition")))


def _place() -> Json:
    return {"nodeSelector": {"type": "kwok"}, "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]}


async def findings(page: Page) -> list[str]:
    """What axe-core finds that is serious."""
    told = (
        "({id: v.id, impact: v.impact, help: v.help, "
        "nodes: v.nodes.map(n => [n.html.slice(0, 160), n.failureSummary])})"
    )
    run = f"axe.run(document, {{resultTypes: ['violations']}}).then(r => r.violations.map(v => {told}))"
    found = await page.js(f"{AXE.read_text()};{run}")
    return [json.dumps(v, ensure_ascii=False, indent=1) for v in found if v["impact"] in SERIOUS]


async def test_every_view_in_light_and_dark_on_a_desk_and_in_a_hand(
    world: World, scenery: None, server: RestServer, page: Page
) -> None:
    await page.open(f"{server.url}/console")
    await page.text("Sign in with a token")
    bad: list[str] = []

    async def look(view: str) -> None:
        for scheme in ("light", "dark"):
            await page.scheme(scheme)
            for size, (width, height, mobile) in SIZES.items():
                await page.size(width, height, mobile=mobile)
                await page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                wide = await page.js("document.documentElement.scrollWidth")
                assert wide <= width, f"{view} at {width} px is {wide} px wide"
                # As tall as what there is to see: what stands at an edge of the window is at the picture's edge, then.
                high = await page.js("document.documentElement.scrollHeight")
                await page.size(width, max(height, min(high, 4000)), mobile=mobile)
                await page.screenshot(PICTURES / f"{view}-{size}-{scheme}.png")
                bad.extend(f"{view} {scheme} {size}: {finding}" for finding in await findings(page))

    await look("login")
    await page.size(1440, 900)
    await sign_in(page, server, hs256("ann", "admin"))
    await page.text("Professor Lovelace")
    await look("overview")
    for view, content in (("gpus", "91 °C"), ("engines", "cosyvoice"), ("events", "PoolFull")):
        await page.js(f"location.hash = '#/{view}'")
        await page.text(content)
        await look(view)
    await page.js("location.hash = '#/avatars/ada'")
    await page.text("kubectl avatar logs")
    await look("avatar")
    await page.js("location.hash = '#/avatars/nobody'")
    await page.text("An avatar that nobody made")
    await look("avatar-failed")
    await page.js("location.hash = '#/'")
    await page.size(1440, 900)
    await page.click("Start avatar")
    await look("start")
    await page.key("Escape", 27)
    await page.size(1440, 900)
    await page.click("Stop Professor Lovelace")
    await page.text("14 people are connected")
    await look("stop")
    assert not bad, "\n".join(bad)
    assert page.complaints == []
