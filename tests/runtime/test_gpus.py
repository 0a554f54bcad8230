"""What a runtime says of the GPUs that its container sees."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from avatar_runtime import gpus
from tests.runtime.conftest import MakeRuntime
from tests.runtime.launch import Running, call, until

NVML = Path(__file__).resolve().parents[1] / "support" / "nvml"
UUIDS = [b"GPU-0", b"GPU-1", b"GPU-2"]


async def seen(runtime: Running) -> Any:
    """The field of /health, once it is there."""

    async def told() -> bool:
        return "gpus" in (await call("GET", f"{runtime.url}/health"))[1]

    await until("gpus in /health", told, 10)
    return (await call("GET", f"{runtime.url}/health"))[1]["gpus"]


@pytest.mark.skipif(gpus.DEVICE.exists(), reason="this machine has a GPU")
@pytest.mark.parametrize("asked", ["", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"])
async def test_without_a_driver_there_is_none(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)
    if asked:
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", asked)
    assert await seen(make_runtime()) == []


async def test_the_gpus_of_a_driver(make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    monkeypatch.setenv("PYTHONPATH", str(NVML))
    monkeypatch.setenv("AVATAR_FAKE_NVML", str(tmp_path / "nvml.json"))
    (tmp_path / "nvml.json").write_text(json.dumps({"gpus": [{"uuid": "GPU-0", "state": "lost"}, {"uuid": "GPU-1"}]}))
    assert await seen(make_runtime()) == ["GPU-1"]
    # A driver that hangs neither delays the sessions nor the end.
    (tmp_path / "nvml.json").write_text(json.dumps({"hang": "nvmlDeviceGetCount_v2", "gpus": [{"uuid": "GPU-1"}]}))
    runtime = make_runtime()
    health = (await call("GET", f"{runtime.url}/health"))[1]
    assert health["status"] == "healthy"
    assert "gpus" not in health
    runtime.terminate()
    assert await runtime.exit(10) == 0


def library(monkeypatch: pytest.MonkeyPatch, **codes: int) -> SimpleNamespace:
    """A library of three GPUs below NVIDIA's own Python code; ``codes``: what its functions answer."""
    calls: list[str] = []

    def answer(name: str) -> int:
        calls.append(name)
        return codes.get(name, 0)

    def count(number: Any) -> int:
        number._obj.value = len(UUIDS)
        return answer("count")

    def handle(index: Any, device: Any) -> int:
        ctypes.cast(device, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.c_void_p(1000 + index.value)
        return codes.get("lost", 0) if index.value == 1 else 0

    def uuid(device: Any, text: Any, _: Any) -> int:
        text.value = UUIDS[(ctypes.cast(device, ctypes.c_void_p).value or 0) - 1000]
        return answer("uuid")

    fake = SimpleNamespace(
        nvmlInitWithFlags=lambda _: answer("init"),
        nvmlShutdown=lambda: answer("shutdown"),
        nvmlErrorString=lambda _: b"an error",
        nvmlDeviceGetCount_v2=count,
        nvmlDeviceGetHandleByIndex_v2=handle,
        nvmlDeviceGetUUID=uuid,
        calls=calls,
    )
    monkeypatch.setattr(pynvml, "nvmlLib", fake)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    return fake


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        pytest.param({}, ["GPU-0", "GPU-1", "GPU-2"], id="all"),
        pytest.param({"lost": pynvml.NVML_ERROR_GPU_IS_LOST}, ["GPU-0", "GPU-2"], id="one-is-lost"),
        pytest.param({"uuid": pynvml.NVML_ERROR_UNKNOWN}, [], id="none-answers"),
        pytest.param({"count": pynvml.NVML_ERROR_UNKNOWN}, [], id="not-countable"),
        pytest.param({"init": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}, [], id="no-driver"),
        pytest.param({"init": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}, [], id="another-driver"),
        pytest.param({"shutdown": pynvml.NVML_ERROR_UNINITIALIZED}, ["GPU-0", "GPU-1", "GPU-2"], id="no-end"),
    ],
)
def test_what_nvml_tells(monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], found: list[str]) -> None:
    fake = library(monkeypatch, **codes)
    assert gpus.visible() == found
    assert ("shutdown" in fake.calls) is ("init" not in codes)


def test_a_fault_is_no_answer_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise ImportError("pynvml")

    monkeypatch.setattr(gpus, "visible", broken)
    view = gpus.GpuView()
    view._look()
    assert view.seen is None


def test_nobody_loads_nvmls_package_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = library(monkeypatch)
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpus, "DEVICE", gpus.DEVICE.with_name("no-such-device"))
    assert gpus.visible() == []
    assert fake.calls == []
