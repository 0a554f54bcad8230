"""A person with a browser: signs in, starts an avatar, talks with it, stops it. Every click is a real one."""

from __future__ import annotations

import pytest

from tests.console.conftest import PICTURES, MakePod
from tests.support.api import until
from tests.support.browser import Page
from tests.support.operator import Operator
from tests.support.rest import RestServer
from tests.support.tokens import hs256
from tests.support.world import World

pytestmark = pytest.mark.cluster

# How many pictures of the video differ from the one before, of those that come in a second and a half.
FRAMES = """new Promise(done => {
    const video = document.querySelector('video'), canvas = new OffscreenCanvas(64, 64);
    const context = canvas.getContext('2d', {willReadFrequently: true});
    let before = '', changed = 0, seen = 0;
    const look = () => {
        context.drawImage(video, 0, 0, 64, 64);
        const now = context.getImageData(0, 0, 64, 64).data.join();
        seen += 1; changed += before !== '' && now !== before; before = now;
        video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    setTimeout(() => done({seen, changed, width: video.videoWidth}), 1500);
})"""

# From now on window.loudest is the loudest moment (0 to 1) of the sound that comes, by an AnalyserNode on its track.
LISTEN = """(async () => {
    const track = document.querySelector('video').srcObject.getAudioTracks()[0];
    const context = new AudioContext();
    await context.resume();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    window.loudest = 0;
    setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        for (const sample of samples) window.loudest = Math.max(window.loudest, Math.abs(sample));
    }, 20);
    return context.state;
})()"""


async def sign_in(page: Page, server: RestServer, token: str) -> None:
    """From the address to the overview."""
    await page.open(f"{server.url}/console")
    await page.text("Sign in with a token")
    # That one is needed was told by a 401.
    page.complaints[:] = [text for text in page.complaints if "401" not in text]
    await page.focus("#token")
    await page.type(token)
    await page.click("Sign in")
    await page.until("document.querySelector('h1')?.textContent === 'Overview'")
    await page.text("Live")


async def test_a_person_starts_an_avatar_talks_with_it_and_stops_it(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    runtime = await make_pod()
    await sign_in(page, server, hs256("ann", "admin"))
    await page.text("No avatar is running")

    await page.click("Start avatar")
    await page.text("Session name")
    await page.click("Start")
    await page.until("document.querySelector('h1')?.textContent === 'ada'")
    [name] = await world.statuses()
    assert await page.js("location.hash") == f"#/avatars/{name}"
    assert await page.js("document.activeElement.textContent") == "ada", "the focus goes with the view"
    status = await world.phase(name, "Running")
    [session] = status["sessions"]
    assert session["id"].startswith("console-")
    assert session["user"] == "ann"
    assert "expires" in session, "a tab that is closed leaves nothing behind"

    await page.click("Talk")
    await page.text("Listening")
    await page.until("document.querySelector('video').videoWidth > 0")
    frames = await page.js(FRAMES)
    assert frames["width"] > 0
    assert frames["changed"] >= 5, frames
    # The one who started it is the one who talks.
    assert [s["id"] for s in (await world.status(name))["sessions"]] == [session["id"]]

    assert await page.js(LISTEN) == "running"
    await page.focus("#sentence")
    await page.type(
        "Hello, this is a sentence that one can hear. And after it comes another one, which is long enough "
        "to look at every figure beside the picture before it ends, and to be interrupted. Nobody hears this."
    )
    await page.key("Enter", 13, "\r")
    await page.text("Speaking")
    await page.text("this is a sentence that one can hear")
    await page.until("window.loudest > 0.05", 20)
    await page.until("/Round trip\\s+\\d+ ms/.test(document.body.innerText)")
    await page.until("/First picture\\s+[\\d.]+ m?s/.test(document.body.innerText)")
    await page.until("/Reply after\\s+[\\d.]+ m?s/.test(document.body.innerText)")
    await page.until("/\\d+ fps/.test(document.body.innerText)")
    await page.until("/Lips and voice\\s+\\d+ ms/.test(document.body.innerText)")
    await page.screenshot(PICTURES / "talking-desktop-light.png")
    await page.click("Interrupt")
    await page.text("Listening")

    await page.click("Hang up")
    await until("nobody being counted", lambda: world.status(name), lambda s: not s.get("connections"))
    await page.click("Stop ada")
    await page.text("Nobody is connected.")
    await page.click("Stop")
    await page.text("This instance is not there")
    await world.nothing_left()
    assert page.complaints == []
    assert runtime.process.poll() is None


async def test_media_that_does_not_come_is_explained(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    await make_pod()
    # Nothing but relays, of which there are none: as behind a firewall that lets no UDP through.
    script = """window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(given) { super({...given, iceTransportPolicy: 'relay'}); }
    }"""
    await page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    await sign_in(page, server, hs256("ann", "admin"))
    await page.click("Start avatar")
    await page.click("Start")
    await page.click("Talk", timeout=60)
    await page.text("no media came through", 60)
    text = await page.js("document.querySelector('.curtain').innerText")
    assert "mode Pod" in text
    assert "network.mode HostNetwork or HostPort" in text
    assert "TURN server" in text
    await page.screenshot(PICTURES / "failed-desktop-light.png")
    await page.click("Try again")
    await page.text("Connecting…")


async def test_the_microphone_says_what_a_runtime_cannot_hear(
    world: World, operator: Operator, make_pod: MakePod, server: RestServer, page: Page
) -> None:
    """And somebody talks to an instance that others made: it is counted there, and no longer than it lasts."""
    await make_pod()
    await world.instance("one")
    await world.phase("one", "Running")
    await sign_in(page, server, hs256("ann", "user"))
    await page.click("Talk to ada", "a")
    await page.click("Talk")
    await page.text("Listening")
    await page.text("this tab")
    await page.call("Browser.grantPermissions", permissions=["audioCapture"])
    await page.click("Speak")
    await page.until("document.querySelector('.controls .recording')")
    # A second of the beeping microphone that this browser has.
    await page.until("new Promise(done => setTimeout(() => done(true), 1000))")
    await page.click("Send sound")
    await page.until(
        "/No microphone|Speaking/.test(document.querySelector('.stage-box').innerText) || "
        "document.querySelector('.saying.bad')",
    )
    assert await page.js("document.querySelector('.saying.bad')?.innerText ?? ''") == ""
    [session] = (await world.status("one"))["sessions"]
    assert session["user"] == "ann"
    await page.click("Hang up")
    await until("nobody being counted", lambda: world.status("one"), lambda s: not s.get("sessions"))
    assert list(await world.statuses()) == ["one"]
