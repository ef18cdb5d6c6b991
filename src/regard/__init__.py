"""Semantic segmentation with attention context, on photographs and on maps of any size.

The public names; each is loaded when it is first used, so that ``import regard`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regard._version import __version__

if TYPE_CHECKING:
    from regard.card import Card
    from regard.checkpoints.convert import convert
    from regard.checkpoints.create import create
    from regard.checkpoints.file import load
    from regard.classes import ClassMap
    from regard.data.image_folder import folder
    from regard.engine.explaining.explain import explain
    from regard.engine.exporting.export import export
    from regard.engine.scenes.predict import predict
    from regard.engine.scoring.evaluate import Scores, evaluate
    from regard.engine.segmentation import Segmentation
    from regard.engine.training.record import Run
    from regard.engine.training.train import train
    from regard.errors import RegardError
    from regard.models import Segmenter
    from regard.reports.page import report

_HOMES = {
    "Card": "regard.card",
    "ClassMap": "regard.classes",
    "RegardError": "regard.errors",
    "Run": "regard.engine.training.record",
    "Scores": "regard.engine.scoring.evaluate",
    "Segmentation": "regard.engine.segmentation",
    "Segmenter": "regard.models",
    "convert": "regard.checkpoints.convert",
    "create": "regard.checkpoints.create",
    "evaluate": "regard.engine.scoring.evaluate",
    "explain": "regard.engine.explaining.explain",
    "export": "regard.engine.exporting.export",
    "folder": "regard.data.image_folder",
    "load": "regard.checkpoints.file",
    "predict": "regard.engine.scenes.predict",
    "report": "regard.reports.page",
    "train": "regard.engine.training.train",
}

__all__ = [
    "Card",
    "ClassMap",
    "RegardError",
    "Run",
    "Scores",
    "Segmentation",
    "Segmenter",
    "__version__",
    "convert",
    "create",
    "evaluate",
    "explain",
    "export",
    "folder",
    "load",
    "predict",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
