"""Exported files run by other programs, at sizes that were not exported."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from regard.errors import ConfigError, ExportError
from regard.export import export as module
from regard.export.export import Exported, check, export
from regard.inference.optimise import make_fast
from regard.models import Segmenter
from support import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


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
