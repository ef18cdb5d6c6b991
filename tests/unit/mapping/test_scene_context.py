"""Context over a whole scene: equal to the network on the whole feature map at once, for any windows, also resumed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regard
from regard.checkpoints.file import save
from regard.errors import ConfigError
from regard.inference.scores import grid_scores
from regard.inference.whole_scene import summing_over_scene
from regard.io.raster import Box, open_raster
from regard.io.source import Source
from regard.io.window_reader import padded
from regard.mapping import scene_context
from regard.mapping.blend import axes
from regard.mapping.plan import verify_map
from regard.mapping.predict import predict
from regard.mapping.scene_context import in_context
from regard.models import Segmenter
from regard.ops import scene_sums
from regard.ops.attention import attend
from regard.ops.scene_sums import Place, SceneSummary
from regard.options import MapOptions, Outputs, Windows
from support import tiny, write_tif

SIZE = (160, 224)
SMALL = {"tile": 64, "overlap": 32, "context": "scene"}
NETWORKS = ("ocrnet", "danet", "danet_ocr", "danet_ocr_serial", "danet_three_branch", "non_local")
PASSES = dict(zip(NETWORKS, (1, 1, 1, 2, 1, 1), strict=True))


class Blocks(nn.Module):
    """A backbone whose features of 16 x 16 pixels depend on these alone, so that no window changes them."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, count, 1) for count in channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        return [3 * conv(F.avg_pool2d(image, 16)) for conv in self.convs]


def by_blocks(name: str, **settings: object) -> Segmenter:
    """A network that looks beyond 16 x 16 pixels by its attention alone, whose gates are open."""
    model = tiny(name, **settings)
    model.backbone = Blocks(model.attach_backbone(False))
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            pointwise = nn.Conv2d(module.in_channels, module.out_channels, 1, bias=module.bias is not None)
            model.set_submodule(path, pointwise)
    for path, parameter in model.named_parameters():
        if path.endswith(("gamma", "alpha")):
            parameter.data.fill_(0.7)
    return model.eval()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(1, 256, (3, *SIZE), dtype=np.uint8)
    return write_tif(tmp_path / "scene.tif", values)


def in_windows(model: Segmenter, scene: Path, windows: Windows) -> Tensor:
    """The logits of all cells, blended over windows."""
    with (
        open_raster(Source.of(scene), expected=model.bands) as raster,
        in_context(model, raster, MapOptions(windows=windows)) as context,
    ):
        down, across = axes(raster.size, windows, model.stride)
        total = torch.zeros(len(model.classes), down.cells, across.cells)
        for (row, top), (column, left) in product(enumerate(down.begins), enumerate(across.begins)):
            place = Box(top * 16, left * 16, down.window * 16, across.window * 16)
            context.look_at(row, [column], [pixels := padded(raster, place)])
            weight = down.weights[row][:, None] * across.weights[column]
            part = (slice(None), slice(top, top + down.window), slice(left, left + across.window))
            total[part] += weight * grid_scores(model, [pixels])[0]
    return total


def at_once(model: Segmenter, scene: Path) -> Tensor:
    """The same of the network that is given the whole scene as one image."""
    with open_raster(Source.of(scene), expected=model.bands) as raster:
        return grid_scores(model, [padded(raster, Box(0, 0, *SIZE))])[0]


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, as a part of the largest logit."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("windows", [Windows(64, 32), Windows(96, 32), Windows(64, 0)], ids=["64", "96", "apart"])
def test_any_windows_give_what_the_network_gives_of_the_whole_scene(name: str, windows: Windows, scene: Path) -> None:
    model = by_blocks(name)
    whole = at_once(model, scene)
    in_scene = Windows(windows.tile, windows.overlap, context="scene")
    assert difference(in_windows(model, scene, in_scene), whole) < 1e-5
    assert difference(in_windows(model, scene, windows), whole) > 1e-3


@pytest.mark.parametrize("settings", [{"aspp": "before"}, {"aspp": "inside"}, {"aspp": "context"}, {"scale": 2}])
def test_so_do_the_forms_of_ocrnet(settings: dict[str, object], scene: Path) -> None:
    model = by_blocks("ocrnet", **settings)
    found = in_windows(model, scene, Windows(64, 32, context="scene"))
    assert difference(found, at_once(model, scene)) < 1e-5


@pytest.mark.parametrize("settings", [{"reading": "R1"}, {"channel": "squeeze_excite"}, {"backbone_branch": False}])
def test_so_do_the_forms_of_the_fusion(settings: dict[str, object], scene: Path) -> None:
    model = by_blocks("danet_ocr", **settings)
    found = in_windows(model, scene, Windows(64, 32, context="scene"))
    assert difference(found, at_once(model, scene)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_what_depends_on_other_sums_has_a_pass_of_its_own(name: str) -> None:
    with summing_over_scene(by_blocks(name)) as passes:
        assert len(passes) == PASSES[name]


def test_pixels_without_data_are_no_part_of_the_scene(scene: Path, tmp_path: Path) -> None:
    model, wider = by_blocks("ocrnet"), tmp_path / "wider.tif"
    with rasterio.open(scene) as small:
        values = np.pad(small.read(), ((0, 0), (0, 96), (0, 64)))
    write_tif(wider, values, nodata=0)
    found = in_windows(model, wider, Windows(64, 32, context="scene"))
    assert difference(found[:, :10, :14], at_once(model, scene)) < 1e-5


def test_a_square_of_equal_keys_weighs_as_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_sums, "FAR_CELLS", 12)  # squares of 2 x 2 cells
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(12, 6, 8, generator=rng)[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    key, value = coarse[:4].flatten(1).t()[None], coarse[4:].flatten(1).t()[None]
    query = torch.randn(1, 48, 4, generator=rng)
    place = Place()
    place.size, place.left = (6, 8), 2
    place.rows, place.columns = torch.arange(6)[None], torch.arange(8)[None]
    place.inside = place.weight = torch.ones(1, 6, 8)
    summary = SceneSummary(place)
    summary.adding = True
    summary(query, key, value, scale=0.5)
    summary.adding, summary.given = False, True
    window = [row * 8 + column for row in range(2, 4) for column in range(4)]  # two squares of twelve
    place.rows, place.columns, place.inside = torch.arange(2, 4)[None], torch.arange(4)[None], torch.ones(1, 2, 4)
    found = summary(query[:, window], key[:, window], value[:, window], scale=0.5)
    torch.testing.assert_close(found, attend(query[:, window], key, value, scale=0.5))


@pytest.mark.parametrize("rows", [1, 5, 6])
def test_a_run_stopped_between_rows_of_sums_ends_in_the_same_bytes(
    rows: int, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, keep, kept = by_blocks("danet_ocr_serial"), scene_context._write, []
    predict(model, scene, tmp_path / "whole.tif", **SMALL)

    def stop(*arguments: object) -> None:
        keep(*arguments)
        kept.append(arguments[1])
        if len(kept) == rows:
            raise KeyboardInterrupt

    monkeypatch.setattr(scene_context, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(model, scene, tmp_path / "map.tif", **SMALL)
    predict(model, scene, tmp_path / "map.tif", **SMALL)
    assert len(kept) == len(set(kept)) == 8  # four rows, twice
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("spoil", [lambda content: content[:-9], lambda content: content[:-1] + b"\x55"])
def test_damaged_sums_are_added_again(
    spoil: Callable[[bytes], bytes], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, keep = by_blocks("ocrnet"), scene_context._write
    predict(model, scene, tmp_path / "whole.tif", **SMALL)

    def stop(kept: Path, *arguments: object) -> None:
        keep(kept, *arguments)
        kept.write_bytes(spoil(kept.read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr(scene_context, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(model, scene, tmp_path / "map.tif", **SMALL)
    monkeypatch.setattr(scene_context, "_write", keep)
    predict(model, scene, tmp_path / "map.tif", **SMALL)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_network_is_afterwards_as_it_was(scene: Path) -> None:
    model = by_blocks("danet_three_branch")
    before = at_once(model, scene)
    in_windows(model, scene, Windows(64, 32, context="scene"))
    assert torch.equal(at_once(model, scene), before)


def test_a_map_says_its_context(scene: Path, tmp_path: Path) -> None:
    model = by_blocks("ocrnet")
    predict(model, scene, tmp_path / "map.tif", **SMALL)
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.tags()["regard_context"] == "scene"
    with pytest.raises(regard.errors.OutputError, match="already exists"):
        predict(model, scene, tmp_path / "map.tif", **(SMALL | {"context": "window"}))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("deeplab", {}, "computes nothing over all pixels"),
        ("ocrnet_multiscale", {}, "at several sizes of an image"),
        ("ocrnet", {"flip": True}, "one view"),
    ],
)
def test_what_has_no_context_of_the_scene_is_refused(
    name: str, options: dict[str, object], words: str, scene: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        predict(tiny(name), scene, tmp_path / "map.tif", **(SMALL | options))
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_an_unknown_context_is_refused(unchecked: None) -> None:
    with pytest.raises(ConfigError, match="need window or scene"):
        Windows(context="country")


def test_a_scene_without_data_has_no_labels_and_none_that_differ(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "scene.tif", np.zeros((3, 130, 130), np.uint8), nodata=0)
    network = tiny("ocrnet")
    model = save(network, tmp_path / "m.safetensors")
    made = predict(network, scene, tmp_path / "map.tif", **SMALL)
    windows = Windows(64, 32, context="scene")
    found = verify_map(str(model), Source.of(scene), MapOptions(Outputs(made), windows=windows))
    assert (found["pixels"], found["changed_percent"]) == (0, 0)
