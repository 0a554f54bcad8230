"""What NVML's errors mean (research/runtime.md 4.4), in words for people."""

from __future__ import annotations

import pynvml

from .reading import Trouble

# This GPU, this driver or this container cannot tell: no fault.
NOT_TOLD = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
    }
)
# There is an older function for it.
OLD_DRIVER = frozenset(
    {
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
# One GPU is of no use, the others go on.
SICK = {
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        Trouble.LOST,
        "the GPU does not answer the driver any more: look for Xid in the node's kernel log (dmesg); "
        "it comes back, if at all, by a reboot of the node",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        Trouble.RESET,
        "the GPU must be reset before it can be used again: drain the node, then nvidia-smi --gpu-reset or a reboot",
    ),
    pynvml.NVML_ERROR_UNKNOWN: (
        Trouble.UNKNOWN,
        "the driver answers with an unknown error: look for NVRM in the node's kernel log (dmesg)",
    ),
}
# Before NVML ever worked: there may be no GPU on this node.
NOT_HERE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not to be found: no NVIDIA driver on this node, or "
    "the pod got none of it (runtimeClassName nvidia, NVIDIA_VISIBLE_DEVICES=all)",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
}
# After it worked: the process must end.
DRIVER_GONE = {
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was changed under this process",
    pynvml.NVML_ERROR_UNINITIALIZED: "the driver forgot this process",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the driver was unloaded",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "the driver was removed",
    pynvml.NVML_ERROR_UNKNOWN: "the driver answers everything with an unknown error; the container may have lost "
    "its access to the GPUs (systemctl daemon-reload does that)",
}


class NoNvmlError(Exception):
    """There is no NVML, or no GPU: this may be a node without one. The message says what is missing."""


class DriverGoneError(Exception):
    """NVML worked, and does not any more: only a new process can load it again."""
