"""Exported files run by other programs, at sizes that were not exported."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from regard.checkpoints.file import load
from regard.errors import ConfigError, ExportError
from regard.export import export as module
from regard.export.export import Exported, check, export
from regard.inference.optimise import make_fast
from regard.inference.scores import scores_of
from regard.io.image import Pixels
from regard.models import Segmenter
from support import tiny

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["danet", "ocrnet", "danet_ocr"])
def test_onnxruntime_gives_the_models_logits(architecture: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    model = tiny(architecture)
    session = onnxruntime.InferenceSession(export(model, tmp_path / "m.onnx"))
    for batch, height, width in ((1, 64, 96), (3, 65, 33)):
        image = torch.randn(batch, 3, height, width)
        with torch.inference_mode():
            expected = model(image).numpy()
        found = session.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"])["1"] == model.classes.names[1]
    assert json.loads(facts["standardization_mean"]) == list(model.card.mean)
    assert "model_type" not in facts  # logits are nothing for Deepness


@pytest.fixture
def deepness(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Deepness's own reader of models and its step from a tile to labels, with QGIS and OpenCV stubbed."""
    source = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[4] / "shared")) / "peers/deepness-0.6.5/src"
    if not source.is_dir():
        pytest.skip("the source of Deepness 0.6.5 (github.com/PUTvision/qgis-plugin-deepness) is not here")
    monkeypatch.syspath_prepend(str(source))
    kept = dict(sys.modules)
    for name in ("qgis", "qgis.core", "qgis.gui", "qgis.PyQt", "qgis.PyQt.QtCore", "qgis.PyQt.QtWidgets", "cv2"):
        monkeypatch.setitem(sys.modules, name, MagicMock(QgsTask=object))
    try:
        reader = importlib.import_module("deepness.processing.models.segmentor").Segmentor
        step = importlib.import_module("deepness.processing.map_processor.map_processor_segmentation")
        yield reader, step.MapProcessorSegmentation._process_tile
    finally:
        for name in sys.modules.keys() - kept.keys():
            if name.startswith("deepness"):
                del sys.modules[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_deepness_gives_the_models_labels(deepness: tuple[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    model, (reader, process) = tiny(), deepness
    read = reader(str(export(model, tmp_path / "m.onnx", normalise=True, probabilities=True)))
    assert read.get_metadata_model_type() == "Segmentor" and read.get_metadata_tile_size() == 512
    assert read.get_outputs_channel_names()[0] == list(model.classes.names)
    threshold = read.get_metadata_segmentation_threshold()
    params = SimpleNamespace(pixel_classification__probability_threshold=threshold)
    cells = np.random.default_rng(1).integers(0, 2, size=(4, 5, 3), dtype=np.uint8) * 255
    tile = cells.repeat(64, axis=0).repeat(64, axis=1)
    found = process(SimpleNamespace(model=read, segmentation_parameters=params), tile[None])[0, 0] - 1
    with torch.inference_mode():
        pixels = Pixels(tile.transpose(2, 0, 1), np.ones(tile.shape[:2], bool))
        ours = scores_of(model, pixels).argmax(dim=0).numpy()
    assert (found == ours).mean() >= 0.999 and len(np.unique(ours)) > 1


@pytest.mark.slow
def test_a_file_of_probabilities_is_used_in_place_of_the_model(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    model, image = tiny(), torch.randn(1, 3, 64, 96)
    path = export(model, tmp_path / "m.onnx", probabilities=True)
    with torch.inference_mode():
        logits = model(image)
        torch.testing.assert_close(load(path)(image), logits, rtol=1e-3, atol=1e-3)
    found = torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {"image": image.numpy()})[0])
    torch.testing.assert_close(found, logits.softmax(dim=1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_programs_take_raw_values_if_asked(tmp_path: Path) -> None:
    tiny_model = tiny(backbone="resnet18")  # test_resnet's pooling computes a ceil, which torch cannot write down
    program = torch.export.load(export(tiny_model, tmp_path / "m.pt2", normalise=True)).module()
    raw = torch.rand(2, 3, 50, 70) * 255
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (tiny_model.card.mean, tiny_model.card.std))
    with torch.no_grad():
        torch.testing.assert_close(program(raw), tiny_model((raw / 255 - mean) / std), rtol=1e-3, atol=1e-3)


def test_a_file_that_differs_is_not_published(tiny_model: Segmenter, tmp_path: Path) -> None:
    network = Exported(tiny_model, normalise=False).eval()
    with pytest.raises(ExportError, match=r"differs from the model by 1\.0e-02"):
        check(network, lambda image: network(image) + 0.01 * network(image).abs().max(), tmp_path / "m.onnx")


def test_a_file_that_differs_in_one_value_is_not_published(tiny_model: Segmenter, tmp_path: Path) -> None:
    network = Exported(tiny_model, normalise=False).eval()

    def run(image: torch.Tensor) -> torch.Tensor:
        found = network(image)
        found.view(-1)[found.abs().argmin()] += 0.02 * found.abs().max()
        return found

    with pytest.raises(ExportError, match=r"differs from the model by 2\.0e-02"):
        check(network, run, tmp_path / "m.onnx")


def test_a_file_that_gives_no_number_is_not_published(tiny_model: Segmenter, tmp_path: Path) -> None:
    network = Exported(tiny_model, normalise=False).eval()
    with pytest.raises(ExportError, match="differs from the model by nan"):
        check(network, lambda image: network(image) * math.nan, tmp_path / "m.onnx")


class Pooled(torch.nn.Module):
    """Pools to a size that torch computes with a ceil, as timm's test_resnet does."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(image, (math.ceil(image.shape[2] / 2), 4))


def test_a_network_that_torch_cannot_write_down_is_refused(
    tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dims = {2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Pooled(), (torch.zeros(1, 3, 10, 8),), dynamic_shapes=(dims,))
    monkeypatch.setattr(module, "_program", lambda network: program)
    with pytest.raises(ExportError, match=r"danet_ocr on test_resnet as a program \(.*ceil.* Write it as \.onnx"):
        export(tiny_model, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_a_fast_model_is_not_exported(tiny_model: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fast=True.* cannot be exported"):
        export(make_fast(tiny_model), tmp_path / "m.onnx")


def test_other_endings_are_refused(tiny_model: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.onnx or \.xml or \.pt2"):
        export(tiny_model, tmp_path / "m.tflite")
