"""Semantic segmentation with attention context, on photographs and on maps of any size.

The public names; each is loaded when it is first used, so that ``import regard`` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from regard._version import __version__

if TYPE_CHECKING:
    from regard.card import Card
    from regard.checkpoints.create import create
    from regard.checkpoints.file import load, save
    from regard.checkpoints.foreign.convert import convert
    from regard.classes import ClassMap
    from regard.datasets.folder import folder
    from regard.errors import RegardError
    from regard.evaluation.evaluate import Scores, evaluate
    from regard.explain.explain import explain
    from regard.export.export import export
    from regard.inference.segmentation import Segmentation
    from regard.mapping.predict import predict
    from regard.models import Segmenter
    from regard.reports.page import report
    from regard.training.record import Run
    from regard.training.train import train

_HOMES = {
    "Card": "regard.card",
    "ClassMap": "regard.classes",
    "RegardError": "regard.errors",
    "Run": "regard.training.record",
    "Scores": "regard.evaluation.evaluate",
    "Segmentation": "regard.inference.segmentation",
    "Segmenter": "regard.models",
    "convert": "regard.checkpoints.foreign.convert",
    "create": "regard.checkpoints.create",
    "evaluate": "regard.evaluation.evaluate",
    "explain": "regard.explain.explain",
    "export": "regard.export.export",
    "folder": "regard.datasets.folder",
    "load": "regard.checkpoints.file",
    "predict": "regard.mapping.predict",
    "report": "regard.reports.page",
    "save": "regard.checkpoints.file",
    "train": "regard.training.train",
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
    "save",
    "train",
]


class _Package(ModuleType):
    """Keeps ``explain`` and ``export`` the functions when the subpackages of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__
