"""Models in 8 bits: smaller, nearly the same, and refused where the scores fall."""

from __future__ import annotations

import shutil
from pathlib import Path

import jaxtyping
import pytest
import torch

import regard
from regard.errors import ConfigError, ExportError
from regard.evaluation.evaluate import evaluate
from regard.export import quantise as module
from regard.export.export import export
from regard.export.quantise import calibration_images, quantise
from regard.models import Segmenter
from support import tiny, write_set

pytest.importorskip("nncf", reason="nncf is in the extra 'int8'")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in float32, which both tests would write again."""
    jaxtyping.config.update("jaxtyping_disable", True)
    path = export(tiny(), tmp_path_factory.mktemp("written") / "m.xml", normalise=True)
    jaxtyping.config.update("jaxtyping_disable", False)
    return path


@pytest.fixture(autouse=True)
def copied(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(model: Segmenter, path: Path, *, normalise: bool) -> Path:
        shutil.copy(written.with_suffix(".bin"), path.with_suffix(".bin"))
        return Path(shutil.copy(written, path))

    monkeypatch.setattr(module, "export", copy)


def test_an_8_bit_file_is_near_its_model_and_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny(), regard.folder(write_set(tmp_path / "set"))
    monkeypatch.setattr(module, "ALLOWED", 1.0)  # the network is random: its score may move
    made = quantise(model, tmp_path / "m.xml", data, normalise=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml", "set"]
    assert made.path.with_suffix(".bin").stat().st_size < 0.6 * sum(4 * p.numel() for p in model.parameters())
    other = regard.load(made.path)
    assert made.before == pytest.approx(evaluate(model, data).miou, abs=0.01)
    assert made.after == pytest.approx(evaluate(other, data).miou, abs=1e-9)
    image = torch.from_numpy(next(calibration_images(model, data, normalise=False)))
    with torch.inference_mode():
        exact, found = model(image), other(image)
    assert 0 < float((found - exact).abs().mean()) < 0.5 * float(exact.std())


def test_a_file_whose_score_falls_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = regard.folder(write_set(tmp_path / "set"))
    monkeypatch.setattr(module, "ALLOWED", -1.0)
    with pytest.raises(ExportError, match=r"in 8 bits mIoU falls from .* one point is allowed"):
        quantise(tiny(), tmp_path / "m.xml", data)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(ConfigError, match=r"as \.xml; got m\.onnx"):
        quantise(tiny(), tmp_path / "m.onnx", data)
