"""A network of two convolutions exported to every kind of file, run by every runtime, and what the files say."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regard.card import Card
from regard.checkpoints.file import load
from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.errors import CheckpointError, ConfigError, ExportError, MissingExtra, OutputError
from regard.export import quantise as module
from regard.export.export import Exported, export, onnx_facts, sample_image
from regard.export.quantise import SIDE, calibration_images, quantise
from regard.inference.runtimes import Facts, needed, open_exported
from regard.inference.scores import grid_scores, prepare
from regard.io.image import Pixels
from regard.models import Segmenter
from support import save_image, tiny, write_set

pytestmark = pytest.mark.usefixtures("unchecked")
KINDS = [("m.onnx", "onnxruntime"), ("m.onnx", "openvino"), ("m.xml", "openvino")]


class Small(Segmenter):
    """Logits at a quarter of the image's size."""

    stride = 4

    def __init__(self, **facts: Any) -> None:
        card = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.5), "ground_resolution": 0.3} | facts
        super().__init__(Card(architecture="small", config={}, classes=ClassMap.of(["a", "b c", "d"]), **card))
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, 2, 1))

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> dict[str, Tensor]:
        return {"main": self.body(image)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of raw values and probabilities for ONNX Runtime, of scaled values and logits for OpenVINO."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    pytest.importorskip("openvino", reason="openvino is in the extra 'export'")
    place = tmp_path_factory.mktemp("exported")
    jaxtyping.config.update("jaxtyping_disable", True)
    export(Small(), place / "m.onnx", normalise=True, probabilities=True)
    export(Small(), place / "m.xml")
    jaxtyping.config.update("jaxtyping_disable", False)
    return place


@pytest.mark.parametrize(("name", "runtime"), KINDS)
def test_a_file_stands_for_the_model(files: Path, name: str, runtime: str) -> None:
    model, other = Small(), load(files / name, runtime=runtime)
    assert (other.card, other.stride, other.fast) == (model.card, 4, True)
    image = torch.randn(2, 3, 37, 50)
    with torch.inference_mode():
        torch.testing.assert_close(other(image), model(image), rtol=1e-3, atol=1e-4)
    pixels = Pixels(np.random.default_rng(1).integers(0, 255, (3, 32, 48), dtype=np.uint8), np.ones((32, 48), bool))
    torch.testing.assert_close(grid_scores(other, [pixels]), grid_scores(model, [pixels]), rtol=1e-3, atol=1e-3)


def test_a_file_of_raw_values_gives_probabilities(files: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
    session = onnxruntime.InferenceSession(files / "m.onnx")
    raw = np.random.default_rng(2).integers(0, 256, (1, 3, 41, 30)).astype(np.float32)
    (found,) = session.run(["logits"], {"image": raw})
    mean, std = (np.array(values, np.float32)[:, None, None] for values in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.5)))
    with torch.inference_mode():
        expected = Small()(torch.from_numpy((raw / 255 - mean) / std)).softmax(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert [output.name for output in session.get_outputs()] == ["logits"]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["regard_input"] == "raw" and facts["regard_stride"] == "4" and facts["resolution"] == "30.0"
    assert json.loads(facts["class_names"]) == {"0": "a", "1": "b c", "2": "d"}
    assert json.loads(facts["model_type"]) == "Segmentor" and facts["seg_thresh"] == "0"
    assert Card.model_validate_json(facts["regard_card"]) == Small().card


@pytest.mark.parametrize("divisor", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("normalise", [False, True])
def test_deepness_standardises_as_the_card_says(divisor: float, normalise: bool) -> None:
    """It divides raw values by 255 whatever they are."""
    model, raw = Small(divisor=divisor), np.array([10.0, 20.0, 250.0])
    facts = onnx_facts(Exported(model, normalise=normalise))
    mean, std = (np.array(json.loads(facts[f"standardization_{name}"])) for name in ("mean", "std"))
    expected = raw if normalise else (raw / divisor - model.card.mean) / model.card.std
    np.testing.assert_allclose((raw / 255 - mean) / std, expected, rtol=1e-6, atol=1e-9)
    assert ("model_type" in facts, facts["regard_input"]) == (False, "raw" if normalise else "scaled")


def test_a_program_takes_any_size(tmp_path: Path) -> None:
    extra = {"regard": ""}
    program = torch.export.load(export(Small(), tmp_path / "m.pt2"), extra_files=extra).module()
    for size in ((1, 3, 64, 33), (3, 3, 17, 90)):
        image = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(program(image), Small()(image), rtol=1e-4, atol=1e-5)
    assert Card.model_validate_json(extra["regard"]) == Small().card
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


def test_the_images_of_the_check_are_in_the_units_of_the_file() -> None:
    scaled, raw = (sample_image(Exported(Small(), normalise=way), (64, 80)) for way in (False, True))
    assert scaled.shape == (1, 3, 64, 80)
    torch.testing.assert_close(raw, (scaled / 4 + 0.5) * 255)
    assert raw.max() > 200 and scaled.min() < -1


def test_each_file_and_each_way_of_running_it_has_its_own_mark(files: Path, tmp_path: Path) -> None:
    """Maps tell by it what made them."""
    marks = {tuple(load(files / name, runtime=runtime).mark.tolist()) for name, runtime in KINDS}
    (tmp_path / "m.xml").write_bytes((files / "m.xml").read_bytes())
    weights = bytearray((files / "m.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "m.bin").write_bytes(weights)
    marks.add(tuple(load(tmp_path / "m.xml").mark.tolist()))
    assert len(marks) == 4


def test_openvinos_weights_stay_in_32_bits(files: Path) -> None:
    assert (files / "m.bin").stat().st_size >= 4 * sum(value.numel() for value in Small().parameters())


@pytest.mark.parametrize(("after", "written"), [(0.7915, True), (0.7885, False), (float("nan"), False)])
def test_what_8_bits_may_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float, written: bool) -> None:
    """One point of mIoU; the programs that quantise and run the files are stood in for."""
    programs, scores = MagicMock(), iter([0.8, after])
    programs.save_model = lambda _, path, **__: path.write_text("8 bits")
    monkeypatch.setattr(module, "needed", lambda *_: programs)
    monkeypatch.setattr(module, "export", lambda _, path, **__: path)
    monkeypatch.setattr(module, "open_exported", lambda path: None)
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: SimpleNamespace(miou=next(scores)))
    data = folder(write_set(tmp_path / "set"))
    with nullcontext() if written else pytest.raises(ExportError, match=r"falls from 80\.00 to .*; one point is"):
        assert quantise(tiny(), tmp_path / "m.xml", data) == (tmp_path / "m.xml", 0.8, after)
    assert {path.name for path in tmp_path.iterdir()} == ({"set", "m.xml"} if written else {"set"})


def test_a_runtime_that_cannot_run_the_file_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.xml runs on openvino; got runtime 'onnxruntime'"):
        load(files / "m.xml", runtime="onnxruntime")
    with pytest.raises(ConfigError, match="ONNX Runtime computes in float32 only"):
        open_exported(files / "m.onnx", precision="bfloat16")
    (tmp_path / "m.xml").write_bytes((files / "m.xml").read_bytes())
    with pytest.raises(CheckpointError, match=r"m\.bin does not exist; an OpenVINO model is two files"):
        load(tmp_path / "m.xml")
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be run by onnxruntime"):
        load(tmp_path / "m.onnx")
    with pytest.raises(MissingExtra, match=r"no_such_thing is not installed.*regard\[web\]"):
        needed("no_such_thing", "web")


def test_what_a_file_says_of_itself_is_needed_whole() -> None:
    card = Small().card
    entries = {"regard_card": card.model_dump_json(), "regard_stride": "4", "regard_input": "scaled"}
    assert Facts.of(entries, Path("m.onnx")) == Facts(card, 4, False)
    for name in entries:
        with pytest.raises(CheckpointError, match="this version of regard did not export it"):
            Facts.of({key: value for key, value in entries.items() if key != name}, Path("m.onnx"))
    image = torch.rand(1, 3, 2, 2)
    assert Facts(card, 4, False).as_taken(image) is image
    back = (Facts(card, 4, True).as_taken(image) / 255 - torch.tensor(card.mean)[:, None, None]) / torch.tensor(
        card.std
    )[:, None, None]
    torch.testing.assert_close(back, image)


def test_ranges_are_calibrated_on_centre_crops_of_at_most_64_training_images(tmp_path: Path) -> None:
    data, model = folder(write_set(tmp_path / "set", count=68)), tiny()
    assert len(list(calibration_images(model, data, normalise=True))) == 33, "every second of 66"
    wide = np.random.default_rng(3).integers(0, 255, (20, SIDE + 101, 3))
    first = data.split("train")[0]
    save_image(first.image, wide)
    save_image(first.mask, wide[..., 0] % 3)
    crop = wide[:, 50 : 50 + SIDE].transpose(2, 0, 1)
    raw = next(calibration_images(model, data, normalise=True))
    assert raw.dtype == np.float32 and np.array_equal(raw[0], crop)
    scaled = prepare(crop.astype(np.uint8), np.ones(crop.shape[1:], bool), model.scaling).numpy()
    assert np.array_equal(next(calibration_images(model, data, normalise=False))[0], scaled)
    with pytest.raises(ConfigError, match=r"as \.xml; got m\.onnx"):
        quantise(model, tmp_path / "m.onnx", data)


WRITTEN = [("m.onnx", "onnx.save"), ("m.xml", "openvino.save_model"), ("m.pt2", "torch.export.save")]


@pytest.mark.parametrize(("name", "writes"), WRITTEN)
def test_a_file_that_the_disk_did_not_keep_is_told(
    name: str, writes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(writes.partition(".")[0])

    def half(_: Any, part: Any, **how: Any) -> None:
        write = part.write_bytes if isinstance(part, Path) else part.write
        write(b"<net")

    monkeypatch.setattr(writes, half)
    with pytest.raises(OutputError, match=r"does not read back .*Is the disk full"):
        export(Small(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_the_same_model_is_exported_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Of OpenVINO in each process alone: it numbers the nodes of all networks of a process."""
    once, again = (export(Small(), tmp_path / folder / name).read_bytes() for folder in ("once", "again"))
    assert once == again
