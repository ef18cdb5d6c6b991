"""The arms of the study, one line each. An arm differs from the arm named in its comment in what its line says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from experiments.conflict.seed_model import Defects
from experiments.conflict.variants import Variant


@dataclass(frozen=True)
class Arm:
    """A network, how the seed's defects stand in it, and how it is trained.

    ``backbone``: ``batch`` is the seed's (D9: weights frozen, batch norm on the batch's statistics), ``frozen`` freezes
    these too, ``tuned`` trains all at a tenth of the rate. ``shuffled`` (D21): else image after image, as listed.
    ``falling``: the learning rate falls as (1 - step / steps)^0.9. ``variant``: of the network ``fusion``.
    """

    title: str
    network: str
    weight_decay: float = 1e-4
    learning_rate: float = 1e-3
    defects: Defects = field(default_factory=Defects)
    config: dict[str, Any] = field(default_factory=dict)
    backbone: Literal["batch", "frozen", "tuned"] = "batch"
    shuffled: bool = True
    falling: bool = False
    steps: int = 200
    variant: Variant = field(default_factory=Variant)


R1, PLAIN_SE = {"reading": "R1"}, {"channel": "squeeze_excite"}

ARMS = {
    # the seed's two networks: its weight decay of 1 (D11) against 1e-4
    "seed-danet-wd1": Arm("seed's DANet, weight decay 1", "seed_danet", weight_decay=1.0),
    "seed-danet": Arm("seed's DANet, weight decay 1e-4", "seed_danet"),
    "serial-wd1": Arm("serial as published, weight decay 1", "seed_serial", weight_decay=1.0),
    "serial": Arm("serial as published, weight decay 1e-4", "seed_serial"),
    # regard's networks
    "danet": Arm("DANet", "danet"),
    "ocrnet": Arm("OCRNet", "ocrnet"),
    "serial-right": Arm("serial, built right", "danet_ocr_serial"),
    "fusion": Arm("fusion R2", "danet_ocr"),
    "fusion-r1": Arm("fusion R1", "danet_ocr", config=R1),
    "fusion-se": Arm("fusion R2, SE", "danet_ocr", config=PLAIN_SE),
    "fusion-two": Arm("fusion R2, no backbone branch", "danet_ocr", config={"backbone_branch": False}),
    "fusion-r1-se": Arm("fusion R1, SE", "danet_ocr", config=R1 | PLAIN_SE),
    # regard's networks at the seed's weight decay
    "danet-wd1": Arm("DANet, weight decay 1", "danet", weight_decay=1.0),
    "ocrnet-wd1": Arm("OCRNet, weight decay 1", "ocrnet", weight_decay=1.0),
    "serial-right-wd1": Arm("serial, built right, weight decay 1", "danet_ocr_serial", weight_decay=1.0),
    "fusion-wd1": Arm("fusion R2, weight decay 1", "danet_ocr", weight_decay=1.0),
    # serial-wd1 with one cause repaired
    "wd1-views": Arm("serial, 1, views (D1-D3)", "seed_serial", 1.0, defects=Defects(scrambled=False)),
    "wd1-regions": Arm("serial, 1, loss on regions (D6)", "seed_serial", 1.0, defects=Defects(supervised=True)),
    "wd1-tap": Arm("serial, 1, tap on features (D7)", "seed_serial", 1.0, defects=Defects(tap="features")),
    "wd1-norm": Arm("serial, 1, batch norm (D14)", "seed_serial", 1.0, defects=Defects(norm="batch")),
    "wd1-dropout": Arm("serial, 1, dropout 0.05 (D23)", "seed_serial", 1.0, defects=Defects(dropout=0.05)),
    "wd1-frozen": Arm("serial, 1, frozen statistics (D9)", "seed_serial", 1.0, backbone="frozen"),
    "wd1-tuned": Arm("serial, 1, backbone tuned (D9)", "seed_serial", 1.0, backbone="tuned"),
    "wd1-ordered": Arm("serial, 1, image after image (D21)", "seed_serial", 1.0, shuffled=False),
    # serial with one cause repaired (its weight decay is repaired already)
    "views": Arm("serial, 1e-4, views (D1-D3)", "seed_serial", defects=Defects(scrambled=False)),
    "tap": Arm("serial, 1e-4, tap on features (D7)", "seed_serial", defects=Defects(tap="features")),
    "norm": Arm("serial, 1e-4, batch norm (D14)", "seed_serial", defects=Defects(norm="batch")),
    "ordered": Arm("serial, 1e-4, image after image (D21)", "seed_serial", shuffled=False),
    # the seed's own learning rate
    "serial-wd1-3e-7": Arm("serial as published, weight decay 1, 3e-7", "seed_serial", 1.0, 3e-7),
    "seed-danet-wd1-3e-7": Arm("seed's DANet, weight decay 1, 3e-7", "seed_danet", 1.0, 3e-7),
    # slower: in 400 steps Adam's steps add up to 3.5 times the bound of the head's initial 3x3 weights
    # (in the seed's 43 750 at 3e-7: to 1.8 times)
    "serial-wd1-4e-4": Arm("serial as published, weight decay 1, 3.7e-4", "seed_serial", 1.0, 3.7e-4),
    "seed-danet-wd1-4e-4": Arm("seed's DANet, weight decay 1, 3.7e-4", "seed_danet", 1.0, 3.7e-4),
    "serial-4e-4": Arm("serial as published, weight decay 1e-4, 3.7e-4", "seed_serial", 1e-4, 3.7e-4),
    "serial-3e-7": Arm("serial as published, weight decay 1e-4, 3e-7", "seed_serial", 1e-4, 3e-7),
}

PARENTS = ("danet", "ocrnet", "serial-right", "fusion")
RATES = {"3e-4": 3e-4, "1e-3": 1e-3, "3e-3": 3e-3}
ARMS |= {
    f"{name}-{rate}": replace(ARMS[name], title=f"{ARMS[name].title}, {rate}", learning_rate=RATES[rate])
    for name in PARENTS
    for rate in ("3e-4", "3e-3")
}


def tuned(arm: Arm, rate: float) -> Arm:
    """As one would train it: at a rate that falls, on frozen statistics."""
    return replace(arm, learning_rate=rate, falling=True, backbone="frozen")


ARMS |= {
    f"tuned-{name}-{rate}": tuned(replace(ARMS[name], title=f"{ARMS[name].title}, {rate} falling"), RATES[rate])
    for name in PARENTS
    for rate in RATES
}
# forms of the fusion, see variants.py
TWO = {"plain": False, "refine": True, "summed": True}
VARIANTS = {
    "losses": Variant(losses="after"),
    "middle": Variant(regions="middle"),
    "wide": Variant(reduction=2),
    "two": Variant(**TWO),
    "two-losses": Variant(**TWO, losses="after"),
    "gated": Variant(**TWO, losses="before", gated=True, regions="scores"),
    "three": Variant(losses="after", refine=True, summed=True, regions="middle", squeeze=True),
    "three-gated": Variant(losses="before", refine=True, summed=True, regions="middle", squeeze=True, gated=True),
    "gated-middle": Variant(**TWO, losses="before", gated=True, regions="middle"),
    "added": Variant(**TWO, losses="before", gated=True, gate=1.0, regions="scores"),
    "two-sharp": Variant(**TWO, sharp=4.0),
    "added-sharp": Variant(**TWO, losses="before", gated=True, gate=1.0, regions="scores", sharp=4.0),
    "added-middle": Variant(**TWO, losses="before", gated=True, gate=1.0, regions="middle"),
}
TITLES = {
    "losses": "fusion of three, loss on each",
    "middle": "fusion of three, regions from the middle map",
    "wide": "fusion of three, embeddings of 32 channels",
    "two": "fusion of two",
    "two-losses": "fusion of two, loss on each",
    "gated": "fusion of two, gate from 0",
    "three": "fusion of three, SE, middle map, loss on each",
    "three-gated": "fusion of three, SE, middle map, gate from 0",
    "gated-middle": "fusion of two, middle map, gate from 0",
    "added": "fusion of two, gate from 1",
    "two-sharp": "fusion of two, sharp regions",
    "added-sharp": "fusion of two, gate from 1, sharp regions",
    "added-middle": "fusion of two, middle map, gate from 1",
}
ARMS |= {
    f"tuned-fusion-{name}": tuned(Arm(TITLES[name], "variant", variant=variant), 1e-3)
    for name, variant in VARIANTS.items()
}
# as much as the fusion costs
ARMS |= {
    f"tuned-{name}-wide": tuned(replace(ARMS[name], title=f"{ARMS[name].title}, wider", config={"width": width}), 1e-3)
    for name, width in {"danet": 96, "ocrnet": 176}.items()
}

SHORT = ("seed-danet-wd1", "seed-danet", "serial-wd1", "serial")
GROUPS = {
    "short": SHORT,
    "key": (*SHORT, "danet", "ocrnet", "serial-right", "fusion"),
    "decay": ("danet-wd1", "ocrnet-wd1", "serial-right-wd1", "fusion-wd1"),
    "repairs": (
        "wd1-views",
        "wd1-regions",
        "wd1-tap",
        "wd1-norm",
        "wd1-dropout",
        "wd1-frozen",
        "wd1-ordered",
        "wd1-tuned",
    ),
    "fusions": ("fusion-r1", "fusion-se", "fusion-two", "fusion-r1-se"),
    "rates": (
        "serial-wd1-4e-4",
        "seed-danet-wd1-4e-4",
        "serial-4e-4",
        "serial-wd1-3e-7",
        "seed-danet-wd1-3e-7",
        "serial-3e-7",
    ),
    "grid": tuple(f"{name}-{rate}" for name in PARENTS for rate in ("3e-4", "3e-3")),
    "tuned": tuple(f"tuned-{name}-{rate}" for rate in RATES for name in PARENTS),
    "variants": tuple(f"tuned-fusion-{name}" for name in VARIANTS),
    "others": ("norm", "tap", "views", "ordered"),
}
