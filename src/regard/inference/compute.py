"""Where and in which precision a loaded network computes; imports no library, as the command line needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class Compute:
    """Device, precision and runtime of a network.

    Args:
        device: cpu, cuda, cuda:1, mps.
        precision: float32; bfloat16; or auto: optimised for speed, in bfloat16 where the machine is faster in it.
        runtime: What runs an exported model (.onnx, .xml).
    """

    device: str = "cpu"
    precision: Precision = "float32"
    runtime: Literal["onnxruntime", "openvino"] | None = None


DEFAULT_COMPUTE = Compute()
