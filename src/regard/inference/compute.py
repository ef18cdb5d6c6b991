"""Options of inference: device, precision and runtime; the views of an image. Light, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from regard.errors import ConfigError

Precision = Literal["float32", "bfloat16", "auto"]
Fusion = Literal["probabilities", "logits", "exp_logits"]


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


@dataclass(frozen=True)
class Views:
    """The views of an image that the network scores, and how their scores are fused.

    Args:
        scales: The image is resized by each of these factors.
        flip: Also the horizontal mirror image.
        d4: The image and its mirror image, each rotated by 0, 90, 180 and 270 degrees; for aerial images.
        window: Sliding windows of so many pixels, two thirds apart, instead of the whole image.
        fusion: How the scores of all views become one:

            - ``probabilities``: the log of the mean probability; windows average logits. Source: mmsegmentation.
            - ``logits``: by scale and window exp(mean of the logits of image and mirror image), summed over scales;
              the log of that. Source: HRNet-OCR, ``multi_scale_inference``.
            - ``exp_logits``: the same with exp(sum of the two). Source: DANet, ``MultiEvalModule``.

    Raises:
        ConfigError: an impossible scale, window or fusion.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    d4: bool = False
    window: int | None = None
    fusion: Fusion = "probabilities"

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0 or (self.window is not None and self.window < 2):
            raise ConfigError(
                f"got scales {list(self.scales)}, window {self.window}; need scales above 0 and a window of 2 pixels "
                "or more."
            )
        if self.fusion not in get_args(Fusion):
            raise ConfigError(f"got fusion {self.fusion!r}; need {', '.join(get_args(Fusion))}. Choose one of these.")
        if self.d4 and self.fusion != "probabilities":
            raise ConfigError(f"d4 views are fused as probabilities; got fusion {self.fusion!r}. Omit one of the two.")

    @property
    def single(self) -> bool:
        """Whether there is one view alone, at scale 1, so that the scores are the network's own logits."""
        return self.scales == (1.0,) and not (self.flip or self.d4)
