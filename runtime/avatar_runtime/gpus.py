"""Which GPUs the container sees, by NVML: whoever chose one for it can tell whether it got it."""

import contextlib
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger("avatar_runtime")

DEVICE = Path("/dev/nvidiactl")


class GpuView:
    """``seen``: UUIDs, in NVML's order; none without a driver. None while, or where, nobody can tell."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None

    def look(self) -> None:
        """Look once, in the background: a driver can take seconds, and one that hangs must not keep the process."""
        threading.Thread(target=self._look, name="gpus", daemon=True).start()

    def _look(self) -> None:
        try:
            self.seen = visible()
        except Exception as error:
            log.warning("cannot tell which GPUs there are: %s: %s", type(error).__name__, error)
        else:
            log.info("gpus=%s", ",".join(self.seen) or "none")


def visible() -> list[str]:
    """UUIDs of the GPUs that NVML finds and can talk to. `ImportError` where its Python package is missing."""
    if "NVIDIA_VISIBLE_DEVICES" not in os.environ and not DEVICE.exists():
        # Neither asked for nor there: a runtime on a CPU need not load NVML's package, which takes 0.1 s.
        return []
    import pynvml

    found = []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        # No library, no driver, no device file: no GPU for this container, whatever the node has.
        return []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                found.append(str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))))
            except pynvml.NVMLError as error:
                log.warning("gpu index=%d cannot be asked: %s", index, error)
    except pynvml.NVMLError as error:
        log.warning("gpus cannot be counted: %s", error)
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return found
