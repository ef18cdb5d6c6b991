"""What is compared: the networks, each as wide as an equal cost allows, the designs of the fusion, and the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GMAC, TOLERANCE = 1.15, 0.05  # of one window of 256 x 256 pixels, five classes: every arm within 5 %


@dataclass(frozen=True)
class Arm:
    """A network of ``networks.py``; ``reason``: why a design may help, each differs from its parent in one thing."""

    title: str
    network: str
    width: int
    config: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The network's config."""
        keyed = self.network in ("study_ocrnet", "study_reading", "study_serial")
        return {"width": self.width, **({"key_width": self.width // 2} if keyed else {}), **self.config}


ARMS = {
    "fcn": Arm("FCN", "study_fcn", 336),
    "danet": Arm("DANet", "study_danet", 72),
    "ocrnet": Arm("OCRNet", "study_ocrnet", 152),
    "r2": Arm("fusion R2", "study_reading", 56),
    "r1": Arm("fusion R1", "study_reading", 56, {"reading": "R1"}),
    "serial": Arm("serial", "study_serial", 64),
    "ocrnet-scale": Arm("OCRNet, scale 2", "study_ocrnet", 152, {"scale": 2}),
}
DESIGNS = {
    "r2-wide": Arm(
        "R2, full-width values",
        "study_reading",
        56,
        {"wide": True},
        "the position branch's context passes width / 8 channels",
    ),
    "r2-losses": Arm(
        "R2, three losses", "study_reading", 56, {"losses": True}, "no loss reaches the branches directly, as in DANet"
    ),
    "dual": Arm("dual", "study_dual", 64, {}, "DANet whole, with OCR on each branch and regions from the middle map"),
    "dual-gate": Arm(
        "dual, gate", "study_dual", 64, {"gate": True}, "begins near DANet, and learns per channel how much to add"
    ),
    "dual-once": Arm("dual, once", "study_dual", 64, {"once": True}, "two contexts repeat each other"),
    "dual-late": Arm("dual, late", "study_dual", 64, {"late": True}, "branches that err apart are better averaged"),
    "dual-heads": Arm("dual, 4 heads", "study_dual", 64, {"heads": 4}, "a pixel may ask for several things"),
    "dual-sharp": Arm(
        "dual, temperature", "study_dual", 64, {"temperature": True}, "regions are near the mean of all pixels"
    ),
    "dual-guided": Arm(
        "dual, guided", "study_dual", 64, {"position": "guided"}, "pixel attention is flat: it does not know classes"
    ),
    "dual-regions": Arm(
        "dual, regions as keys", "study_dual", 72, {"position": "regions"}, "n x k in place of n x n, wider for it"
    ),
}
ARMS |= DESIGNS
PARENTS = ("danet", "ocrnet")
BASELINES = ("fcn", "danet", "ocrnet", "r2")
SHORT_DESIGN = "dual-gate"  # of the short form, `make study`

RATES = (1e-3, 3e-3, 3e-4)  # of the heads; the first is that of the designs' first rungs
RECIPE = {
    "batch": 4,
    "crop": 256,
    "scale": (0.75, 1.5),
    "window": 256,
    "backbone_rate": 0.3,
    "ema": 0.99,
    "warmup": 50,
    "workers": 0,
    "log": ("none",),
}
