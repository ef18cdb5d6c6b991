"""Exported files in place of the model, run by ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import rasterio
import torch

import regard
from regard.checkpoints.file import save
from regard.errors import CheckpointError, ConfigError, MissingExtra
from regard.export.export import export
from regard.inference.scores import class_scores
from regard.options import Views
from support import save_image, tiny, write_tif

onnx = pytest.importorskip("onnx", reason="onnx is in the extra 'export'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'export'")
openvino = pytest.importorskip("openvino", reason="openvino is in the extra 'export'")
pytestmark = pytest.mark.slow

WAYS = [("m.onnx", None), ("m.onnx", "openvino"), ("raw.xml", "openvino")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small network as a file of each kind, one for scaled images and one for raw ones."""
    place, model = tmp_path_factory.mktemp("exported"), tiny()
    jaxtyping.config.update("jaxtyping_disable", True)
    export(model, place / "m.onnx")
    export(model, place / "raw.xml", normalise=True)
    jaxtyping.config.update("jaxtyping_disable", False)
    save(model, place / "m.safetensors")
    return place


@pytest.mark.parametrize(("name", "runtime"), WAYS)
def test_the_file_answers_as_the_model(folder: Path, name: str, runtime: str | None) -> None:
    model, other = tiny(), regard.load(folder / name, runtime=runtime)
    assert (other.classes, other.bands, other.stride) == (model.classes, model.bands, model.stride)
    for shape in ((1, 3, 64, 96), (2, 3, 65, 33)):
        image = torch.randn(shape)
        with torch.inference_mode():
            expected = model(image)
            torch.testing.assert_close(other(image), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    views = Views(scales=(1.0, 1.5), flip=True)
    torch.testing.assert_close(class_scores(other, image, views), class_scores(model, image, views), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["m.onnx", "raw.xml"])
def test_a_raster_gets_the_same_map(folder: Path, name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 130, 170), dtype=np.uint8)
    scene = write_tif(tmp_path / "scene.tif", pixels)
    sure = []
    for file in ("m.safetensors", name):
        side = tmp_path / f"{file}.sure.tif"
        regard.predict(
            regard.load(folder / file), scene, tmp_path / f"{file}.tif", tile=96, overlap=32, confidence=side
        )
        with rasterio.open(side) as raster:
            sure.append(raster.read(1).astype(int))
    assert len(np.unique(sure[0])) > 3
    assert np.abs(sure[0] - sure[1]).max() <= 1


def test_bfloat16_differs_a_little(folder: Path) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    image = torch.randn(1, 3, 64, 64)
    exact, rounded = (regard.load(folder / "raw.xml", precision=how)(image) for how in ("float32", "bfloat16"))
    assert 0 < float((exact - rounded).abs().max()) < 0.1 * float(exact.abs().max())


def test_each_way_of_computing_has_its_own_digest(folder: Path) -> None:
    from regard.files import digest

    networks = [regard.load(folder / name, runtime=runtime) for name, runtime in WAYS]
    networks.append(regard.load(folder / "raw.xml", precision="auto"))
    assert len({digest(dict(network.state_dict())) for network in networks}) == len(networks)


def test_an_exported_file_is_for_prediction_alone(folder: Path, tmp_path: Path) -> None:
    model = regard.load(folder / "m.onnx")
    with pytest.raises(ConfigError, match="cannot be trained"):
        model.train()
    with pytest.raises(ConfigError, match="cannot be explained"):
        regard.explain(model, save_image(tmp_path / "image.png", np.zeros((40, 40, 3))), (5, 5))
    with pytest.raises(ConfigError, match="cannot be saved"):
        save(model, tmp_path / "m.safetensors")


@pytest.mark.usefixtures("unchecked")
def test_bad_files_and_ways_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lone.xml").write_bytes((folder / "raw.xml").read_bytes())
    for name in ("text.onnx", "text.xml", "text.bin"):
        (tmp_path / name).write_text("nothing")
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    cells = onnx.helper.make_tensor_value_info("cells", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["image"], ["cells"])], "alien", [image], [cells])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), tmp_path / "alien.onnx")
    for name, options, said in (
        ("lone.xml", {}, r"lone\.bin does not exist; an OpenVINO model is two files"),
        ("text.onnx", {}, r"cannot be run by onnxruntime \("),
        ("text.xml", {}, r"cannot be run by openvino \("),
        ("alien.onnx", {}, "does not say its classes, bands and scaling"),
        ("alien.onnx", {"runtime": "openvino"}, "does not say its classes, bands and scaling"),
    ):
        with pytest.raises(CheckpointError, match=said):
            regard.load(tmp_path / name, **options)
    for name, options, said in (
        ("raw.xml", {"runtime": "onnxruntime"}, "raw.xml runs on openvino; got runtime 'onnxruntime'"),
        ("m.onnx", {"precision": "bfloat16"}, "float32 only"),
        ("m.safetensors", {"runtime": "openvino"}, "for exported models"),
        ("m.safetensors", {"precision": "half"}, "need float32, bfloat16, auto"),
    ):
        with pytest.raises(ConfigError, match=said):
            regard.load(folder / name, **options)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed\. Do: pip install 'regard\[export\]'"):
        regard.load(folder / "m.onnx")
