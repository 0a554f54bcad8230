"""How much GPU memory an avatar is reckoned with, and how that figure learns. MiB."""

from __future__ import annotations

from .placement import Need
from .resources import Avatar, Gpu, VramStatus

# What is seen is reckoned with a tenth more, and in steps: a pod's use differs from start to start.
MARGIN = 1.1
STEP = 64
# A pod that ran out of GPU memory gets a quarter more next time.
AFTER_OUT_OF_MEMORY = 1.25


def need(gpu: Gpu, avatar: Avatar) -> Need:
    """What the next pod of ``avatar`` asks for in a pool with the rules ``gpu``."""
    admin = avatar.spec.vram_mib if avatar.spec.vram_mib is not None else gpu.per_instance_mib
    learned = avatar.status.vram.estimate_mib if avatar.status.vram else 0
    mib = {"Fixed": admin, "Learned": learned or admin}.get(gpu.estimates, max(admin, learned))
    min_free = gpu.min_free_mib if avatar.spec.min_free_mib is None else avatar.spec.min_free_mib
    return Need(mib, min_free, learned=mib > admin)


def learn(known: VramStatus | None, observed: int) -> VramStatus | None:
    """What is known after a pod was seen to use ``observed``; None = nothing new.

    The most that was ever seen counts. A step's difference is no news: it would
    be a write for each report.
    """
    before = known or VramStatus()
    if observed < before.observed_mib + STEP:
        return None
    return VramStatus(observed_mib=observed, estimate_mib=max(before.estimate_mib, _step(observed * MARGIN)))


def raise_after(known: VramStatus | None, reserved: int, total: int = 0) -> VramStatus | None:
    """What is known after a pod that had ``reserved`` ran out of GPU memory; None = it is known already.

    Never more than the GPU has in all (``total``, 0 = not known): it may have
    been others who took the memory.
    """
    before = known or VramStatus()
    estimate = _step(reserved * AFTER_OUT_OF_MEMORY)
    estimate = min(estimate, total) if total else estimate
    if estimate <= before.estimate_mib:
        return None
    return VramStatus(observed_mib=before.observed_mib, estimate_mib=estimate)


def _step(mib: float) -> int:
    return -(-int(mib) // STEP) * STEP
