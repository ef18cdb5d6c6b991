"""The check of the system: versions, processors and devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

from regard._version import __version__
from regard.io.gdal import gdal_version

NEEDED = ["torch", "torchvision", "timm", "lightning", "rasterio", "pyogrio", "numpy", "safetensors", "huggingface_hub"]
EXTRAS = ["onnx", "onnxruntime", "openvino", "fastapi", "rio-tiler", "distributed", "torchgeo"]


def check_system() -> dict[str, Any]:
    """Versions, processors, devices, and which optional parts are installed, by name."""
    versions = {name: _version(name) for name in (*NEEDED, *EXTRAS)}
    return {
        "regard": __version__,
        "python": platform.python_version(),
        "gdal": gdal_version(),
        **{name: versions[name] or "not installed" for name in NEEDED},
        "extras": ", ".join(f"{name} {versions[name]}" for name in EXTRAS if versions[name]) or "none",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
