"""With this folder on PYTHONPATH, any python process gets its NVML from the file that AVATAR_FAKE_NVML names."""

import os

if os.environ.get("AVATAR_FAKE_NVML"):
    try:
        import fake_nvml
    except ImportError:
        # A python without nvidia-ml-py: it asks nobody for GPUs.
        pass
    else:
        fake_nvml.install(os.environ["AVATAR_FAKE_NVML"])
