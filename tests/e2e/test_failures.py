"""What users see of real failures, and that nothing is left of them."""

from __future__ import annotations

from tests.support.world import World, condition


async def test_an_image_that_does_not_exist(real: World) -> None:
    await real.api.patch(
        "avatarpools",
        real.namespace,
        "default",
        {"spec": {"runtime": {"image": "localhost/avatar-operator/no-such-image:1"}}},
    )
    await real.instance("ada")
    status = await real.phase("ada", "Failed", timeout=90)
    assert status["reason"] == "ImagePullFailed"
    assert "spec.runtime.image" in status["message"]
    assert status["retryTime"]
    await real.nothing_left(timeout=60)


async def test_avatar_data_that_is_missing(real: World) -> None:
    await real.avatar("Nobody Drew Me")
    await real.instance("ghost", avatar="Nobody Drew Me")
    status = await real.phase("ghost", "Failed", timeout=90)
    assert status["reason"] == "RuntimeConfigError"
    assert "Nobody Drew Me" in status["message"]
    assert condition(status, "Ready")["reason"] == "RuntimeConfigError"
    await real.nothing_left(timeout=60)


async def test_a_command_that_crashes_shows_its_last_words(real: World) -> None:
    spec = {"runtime": {"command": ["python3", "-c", "import sys; sys.exit('no luck today')"], "argsStyle": "None"}}
    await real.api.patch("avatarpools", real.namespace, "default", {"spec": spec})
    await real.instance("ada")
    status = await real.phase("ada", "Failed", timeout=120)
    assert "no luck today" in status["message"]
    await real.nothing_left(timeout=60)
