"""Semantic segmentation with attention context, on photographs and on maps of any size.

The public names; each is loaded when it is first used, so that ``import regard`` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from regard._version import __version__ as __version__

if TYPE_CHECKING:
    from regard.assessment.accuracy import accuracy as accuracy
    from regard.assessment.calibrate import calibrate as calibrate
    from regard.assessment.sample import sample as sample
    from regard.card import Card as Card
    from regard.checkpoints.create import create as create
    from regard.checkpoints.file import load as load
    from regard.checkpoints.file import save as save
    from regard.checkpoints.foreign.convert import convert as convert
    from regard.classes import ClassMap as ClassMap
    from regard.datasets.folder import folder as folder
    from regard.errors import RegardError as RegardError
    from regard.evaluation.evaluate import Scores as Scores
    from regard.evaluation.evaluate import evaluate as evaluate
    from regard.explain.explain import explain as explain
    from regard.export.export import export as export
    from regard.inference.segmentation import Segmentation as Segmentation
    from regard.mapping.predict import predict as predict
    from regard.mapping.side_files import areas as areas
    from regard.mapping.side_files import polygons as polygons
    from regard.models import Segmenter as Segmenter
    from regard.refine.refine import refine as refine
    from regard.reports.page import report as report
    from regard.training.record import Run as Run
    from regard.training.train import train as train

_HOMES = {
    "Card": "regard.card",
    "ClassMap": "regard.classes",
    "RegardError": "regard.errors",
    "Run": "regard.training.record",
    "Scores": "regard.evaluation.evaluate",
    "Segmentation": "regard.inference.segmentation",
    "Segmenter": "regard.models",
    "accuracy": "regard.assessment.accuracy",
    "areas": "regard.mapping.side_files",
    "calibrate": "regard.assessment.calibrate",
    "convert": "regard.checkpoints.foreign.convert",
    "create": "regard.checkpoints.create",
    "evaluate": "regard.evaluation.evaluate",
    "explain": "regard.explain.explain",
    "export": "regard.export.export",
    "folder": "regard.datasets.folder",
    "load": "regard.checkpoints.file",
    "polygons": "regard.mapping.side_files",
    "predict": "regard.mapping.predict",
    "refine": "regard.refine.refine",
    "report": "regard.reports.page",
    "sample": "regard.assessment.sample",
    "save": "regard.checkpoints.file",
    "train": "regard.training.train",
}

__all__ = sorted([*_HOMES, "__version__"])


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
