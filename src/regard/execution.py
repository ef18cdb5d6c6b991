"""The options of how networks run: on what device and in which precision, and how several sources are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regard.errors import ConfigError

Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class Compute:
    """Device, precision and runtime of a network.

    Args:
        device: cpu, cuda, cuda:1, mps.
        precision: float32, bfloat16, or auto: optimised for speed, in bfloat16 if that is faster on this machine.
        runtime: The runtime of an exported model (.onnx, .xml).
        plain: Compute the network as it was trained, not rebuilt for speed (other labels for < 0.01 % of pixels).
    """

    device: str = "cpu"
    precision: Precision = "float32"
    runtime: Literal["onnxruntime", "openvino"] | None = None
    plain: bool = False


@dataclass(frozen=True)
class Sharing:
    """How several sources are distributed.

    Args:
        workers: Processes that share the sources.
        shard: i/n: map only every n-th source, beginning with the i-th (from 1); for array jobs.
        cluster: Address of a Dask scheduler that distributes the sources; local: start one on this machine.

    Raises:
        ConfigError: no worker, or an impossible shard.
    """

    workers: int = 1
    shard: str | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"got {self.workers} workers; need one at least.")
        first, _, count = (self.shard or "1/1").partition("/")
        if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
            raise ConfigError(f"got shard {self.shard!r}; need i/n with i from 1 to n, such as 3/8.")

    @property
    def part(self) -> slice:
        """The sources of this shard."""
        first, _, count = (self.shard or "1/1").partition("/")
        return slice(int(first) - 1, None, int(count))
