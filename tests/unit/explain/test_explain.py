"""Explanations: rows computed alone are those of the full map, and they are those that the model used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from regard.blocks import ChannelAttention, NonLocal, NonLocalPosition, ObjectContext, PositionAttention
from regard.errors import BandMismatch, ConfigError, OutputError, UnknownName
from regard.explain import explain as explaining
from regard.explain.explain import Seen, _context, _span, cells, explain, parse_at, recording
from regard.explain.explanation import Place, draw
from regard.inference.scores import prepare
from regard.models import Segmenter
from regard.models.danet_ocr import PositionContext
from support import NAMES, save_image, tiny, write_tif

HEIGHT, WIDTH = 90, 131
POSITION, NON_LOCAL, EMBEDDED, LITERAL = (
    "position attention",
    "non-local attention",
    "non-local position attention",
    "context of pixels",
)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    hills = np.stack([rows * 2, columns * 2, 120 + 100 * np.sin((rows + columns) / 9)], axis=2) % 256
    return save_image(tmp_path / "street.png", hills + np.random.default_rng(4).integers(0, 30, size=hills.shape) % 256)


def lively(architecture: str, **settings: object) -> Segmenter:
    """A tiny model whose attention counts: its gates are open and its energies differ from pixel to pixel."""
    model = tiny(architecture, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gamma", "alpha")):
                parameter.fill_(1.5)
    return model


def image_of(model: Segmenter, path: Path) -> Tensor:
    values = np.asarray(Image.open(path)).transpose(2, 0, 1)
    return prepare(values, np.ones(values.shape[1:], dtype=bool), model.scaling)[None]


def forward(model: Segmenter, path: Path, kind: type[nn.Module]) -> tuple[nn.Module, tuple, Tensor, Tensor]:
    """The first block of a kind, its inputs and output, and the model's scores, without the code under test."""
    block = next(module for module in model.modules() if isinstance(module, kind))
    kept: list = []
    handle = block.register_forward_hook(lambda _, inputs, output: kept.extend((inputs, output)))
    with torch.inference_mode():
        scores = model(image_of(model, path))[0]
    handle.remove()
    return block, *(kept or [(), torch.empty(0)]), scores


def full_map(query: Tensor, key: Tensor, scale: float = 1.0) -> Tensor:
    """The n x n map in float64, from maps (1, d, h, w)."""
    energies = torch.einsum("di,dj->ij", query[0].flatten(1).double(), key[0].flatten(1).double()) * scale
    exponents = (energies - energies.amax(dim=1, keepdim=True)).exp()
    return exponents / exponents.sum(dim=1, keepdim=True)


def whole(model: Segmenter, path: Path, kind: type[nn.Module]) -> tuple[Tensor, tuple[int, int]]:
    """The full map of a model's first block of a kind, checked against the block's own output; and its grid."""
    block, inputs, output, _ = forward(model, path, kind)
    if kind is PositionContext:
        x, (embedded, _) = inputs[0].output, inputs
        attention = full_map(block.query(x), embedded.query, block.scale)
        expected = block.fuse(torch.cat([block.up(_mean(attention, embedded.key)), x], dim=1))
    elif kind is NonLocalPosition:  # the fusion calls it by another name than forward, so that no hook fires
        x = inputs[0] if inputs else model.position_in(model.backbone(image_of(model, path))[-1])
        attention, output = full_map(block.query(x), block.key(x)), block(x)
        expected = block.alpha * _mean(attention, x) + block.assemble(x)
    else:
        (x,) = inputs
        attention = full_map(block.query(x), block.key(x))
        context = _mean(attention, block.value(x))
        expected = context if kind is NonLocal else block.gamma * context + x
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    return attention, (x.shape[2], x.shape[3])


def _mean(attention: Tensor, values: Tensor) -> Tensor:
    return torch.einsum("ij,cj->ci", attention.float(), values[0].flatten(1)).unflatten(1, values.shape[2:])[None]


CASES = [
    ("danet", {}, PositionAttention, POSITION),
    ("danet", {"align_corners": True}, PositionAttention, POSITION),
    ("danet_ocr_serial", {}, PositionAttention, POSITION),
    ("danet_three_branch", {}, PositionAttention, POSITION),
    ("danet_three_branch", {}, NonLocal, NON_LOCAL),
    ("non_local", {}, NonLocal, NON_LOCAL),
    ("non_local", {"attention": "position"}, NonLocalPosition, EMBEDDED),
    ("danet_ocr", {}, NonLocalPosition, EMBEDDED),
    ("danet_ocr", {"reading": "R1"}, PositionContext, LITERAL),
]


@pytest.mark.parametrize(("architecture", "settings", "kind", "name"), CASES)
@torch.inference_mode()
def test_a_row_computed_alone_is_the_full_maps_row(
    architecture: str, settings: dict, kind: type[nn.Module], name: str, photograph: Path
) -> None:
    model = lively(architecture, **settings)
    attention, grid = whole(model, photograph, kind)
    for x, y in ((0, 0), (WIDTH - 1, HEIGHT - 1), (77, 41)):
        row = explain(model, photograph, (x, y)).attention[name]
        steps = ((y, HEIGHT, grid[0]), (x, WIDTH, grid[1]))
        if model.config.align_corners:
            cell = [round(place * (count - 1) / (length - 1)) for place, length, count in steps]
        else:
            cell = [int((place + 0.5) * count / length) for place, length, count in steps]
        expected = attention[cell[0] * grid[1] + cell[1]].reshape(grid).numpy()
        assert row.shape == grid
        assert np.abs(row - expected).max() < 1e-5
        assert row.sum() == pytest.approx(1, abs=1e-5)
    assert attention.std(dim=0).max() > 1e-4  # the rows differ, so a wrong one would be noticed


@torch.inference_mode()
def test_a_box_and_a_class_give_the_mean_of_their_pixels_rows(
    photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively("danet")
    attention, grid = whole(model, photograph, PositionAttention)
    scores = forward(model, photograph, PositionAttention)[-1]
    rows = (np.arange(HEIGHT) + 0.5) * grid[0] // HEIGHT
    columns = (np.arange(WIDTH) + 0.5) * grid[1] // WIDTH
    by_pixel = attention[torch.from_numpy(rows[:, None] * grid[1] + columns).long()]  # (h, w, n)
    monkeypatch.setattr(explaining, "WEIGHTS_AT_ONCE", 100)  # several blocks of rows
    labels = scores.argmax(dim=0)
    common = NAMES[int(labels.flatten().mode().values)]
    box = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    box[13:44, 20:70] = True
    cases = {
        (20, 13, 50, 31): box,
        common: labels == NAMES.index(common),
    }
    for at, where in cases.items():
        why = explain(model, photograph, at)
        assert np.array_equal(why.where, where.numpy())
        np.testing.assert_allclose(why.attention[POSITION].ravel(), by_pixel[where].mean(dim=0), atol=1e-6)
        np.testing.assert_allclose(why.probabilities, scores[:, where].softmax(dim=0).mean(dim=1), atol=1e-6)
    assert why.label == NAMES.index(common)


@torch.inference_mode()
def test_probabilities_and_labels_are_the_models(photograph: Path) -> None:
    model = lively("danet_ocr")
    scores = forward(model, photograph, ObjectContext)[-1]
    why = explain(model, photograph, at=(100, 17))
    assert np.array_equal(why.labels, scores.argmax(dim=0).numpy())
    np.testing.assert_allclose(why.probabilities, scores[:, 17, 100].softmax(dim=0), atol=1e-6)
    assert why.label == why.labels[17, 100]
    assert np.argwhere(why.where).tolist() == [[17, 100]]
    assert np.array_equal(why.picture, np.asarray(Image.open(photograph)))


@pytest.mark.parametrize("architecture", ["ocrnet", "danet_ocr", "danet_ocr_serial", "ocrnet_multiscale"])
def test_relations_and_regions_are_shares(architecture: str, photograph: Path) -> None:
    model = lively(architecture)
    why = explain(model, photograph, (30, 60))
    contexts = ("position_context", "channel_context", "plain_context")
    assert tuple(why.relations) == (contexts if architecture == "danet_ocr" else ("object_context",))
    assert why.regions is not None and len(why.regions) == len(NAMES)
    np.testing.assert_allclose(why.regions.sum(axis=(1, 2)), 1, atol=1e-5)
    for weights in why.relations.values():
        assert weights.shape == (len(NAMES),) and weights.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", [ObjectContext, PositionContext])
@torch.inference_mode()
def test_relations_reproduce_what_the_context_says(kind: type[nn.Module], photograph: Path) -> None:
    model = lively("danet_ocr")
    block, inputs, output, _ = forward(model, photograph, kind)
    regions = inputs[1][0].flatten(1).softmax(dim=1)
    height, width = inputs[1].shape[2:]
    x, y = 77, 41
    cell = (y * height // HEIGHT, x * width // WIDTH)
    weights = torch.from_numpy(explain(model, photograph, (x, y)).relations[kind_path(model, block)])
    if kind is ObjectContext:
        objects = torch.einsum("kn,cn->ck", regions, inputs[0][0].flatten(1))[None, :, :, None]
        said, pixels = block.up((block.down(objects)[0, :, :, 0] @ weights)[None, :, None, None]), inputs[0]
    else:
        values = torch.einsum("kn,cn->ck", regions, inputs[0].key[0].flatten(1))
        said, pixels = block.up((values @ weights)[None, :, None, None]), inputs[0].output
    pixel = pixels[:, :, cell[0], cell[1], None, None]
    torch.testing.assert_close(
        block.fuse(torch.cat([said, pixel], dim=1))[0, :, 0, 0], output[0, :, cell[0], cell[1]], atol=1e-4, rtol=1e-4
    )


def kind_path(model: Segmenter, block: nn.Module) -> str:
    return next(path for path, module in model.named_modules() if module is block)


@torch.inference_mode()
def test_the_channels_shown_are_those_that_tell_the_class_best(photograph: Path) -> None:
    model = lively("danet")
    *_, attended, scores = forward(model, photograph, ChannelAttention)
    why = explain(model, photograph, (77, 41))
    same = scores.argmax(dim=0) == why.label
    full = nn.functional.interpolate(attended, (HEIGHT, WIDTH), mode="nearest-exact")[0]
    contrast = (full[:, same].mean(dim=1) - full[:, ~same].mean(dim=1)) / attended[0].std(dim=(1, 2), correction=0)
    assert list(why.channels) == contrast.argsort(descending=True)[:4].tolist()
    for number, values in why.channels.items():
        np.testing.assert_array_equal(values, attended[0, number])


def test_channels_are_not_told_by_what_has_no_data() -> None:
    """The first is brighter in the class than in the other data; without data it is brightest."""
    output = torch.zeros(1, 5, 2, 3)
    output[0, 0] = torch.tensor([1.0, 0.0, 100.0])
    same, valid = (np.broadcast_to(row, (2, 3)) for row in ([True, False, False], [True, True, False]))
    seen = {"channel": Seen(ChannelAttention(), output=output)}
    assert next(iter(_context(seen, same, same, valid, False)["channels"])) == 0


def test_of_several_passes_the_first_is_kept() -> None:
    """Which is that of the finest scale."""
    block, x = ChannelAttention(), torch.rand(1, 4, 3, 3)
    with recording(block) as seen:
        first = block(x)
        block(1 - x)
    assert torch.equal(seen[""].output, first) and torch.equal(seen[""].inputs[0], x)


def test_only_what_a_model_has_is_shown(photograph: Path) -> None:
    for model, attention, regions, channels in (
        (tiny("danet"), {POSITION}, False, True),
        (tiny("ocrnet"), set(), True, False),
        (tiny("non_local"), {NON_LOCAL}, False, False),
        (tiny("danet_ocr", channel="squeeze_excite", reading="R1"), {EMBEDDED, LITERAL}, True, False),
        (tiny("danet_three_branch"), {POSITION, NON_LOCAL}, False, False),
    ):
        why = explain(model, photograph, (3, 4))
        assert (set(why.attention), why.regions is not None, bool(why.channels)) == (attention, regions, channels)
        gated = {POSITION, EMBEDDED} & attention | ({"channel attention"} if channels else set())
        assert why.gates == dict.fromkeys(gated, 0)  # gates start at 0
    assert explain(lively("danet"), photograph, (3, 4)).gates == {POSITION: 1.5, "channel attention": 1.5}


def test_a_pixel_of_a_raster_is_explained_in_a_window(tmp_path: Path) -> None:
    model, values = lively("danet"), np.random.default_rng(6).integers(0, 256, size=(3, 150, 210), dtype=np.uint8)
    scene = write_tif(tmp_path / "scene.tif", values)
    why = explain(model, scene, (190, 70), tile=96)
    left, top = why.origin
    height, width = why.where.shape
    crop = save_image(tmp_path / "crop.png", values[:, top : top + height, left : left + width].transpose(1, 2, 0))
    same = explain(model, crop, (190 - left, 70 - top))
    assert (left % 32, top % 32, width) == (0, 0, 210 - left)
    np.testing.assert_array_equal(why.attention[POSITION], same.attention[POSITION])
    np.testing.assert_array_equal(why.probabilities, same.probabilities)
    assert np.array_equal(why.picture, same.picture)


def test_windows_hold_their_place_and_lie_inside() -> None:
    rng = np.random.default_rng(8)
    for _ in range(500):
        tile, full = 32 * int(rng.integers(3, 9)), int(rng.integers(1, 900))
        length = int(rng.integers(1, max(2, min(full, tile - 64) + 1)))
        place = int(rng.integers(0, full - length + 1))
        begin, size = _span(place + length // 2, full, tile)
        assert begin % 32 == 0 and size <= tile and begin + size <= full
        assert begin <= place and place + length <= begin + size


@pytest.mark.parametrize("align_corners", [False, True])
def test_cells_count_every_pixel_once(align_corners: bool) -> None:
    where = np.random.default_rng(9).random((45, 61)) < 0.3
    counts = cells(where, (3, 4), align_corners)
    assert counts.shape == (3, 4) and counts.sum() == where.sum()
    assert (cells(np.ones((48, 64), bool), (3, 4), False) == 256).all()


def test_other_bands_are_stretched_for_the_eye_and_empty_pixels_left_out(tmp_path: Path) -> None:
    model = tiny("danet", in_channels=2, bands=("sar", "nir"))
    model.card = model.card.model_copy(update={"mean": (400.0, 400.0), "std": (90.0, 90.0), "divisor": 1.0})
    values = np.random.default_rng(6).normal(400, 90, size=(2, 64, 64)).astype(np.float32)
    values[:, :20] = np.nan
    scene = write_tif(tmp_path / "scene.tif", values)
    why = explain(model, scene, (10, 10, 30, 30))
    assert why.picture.shape == (64, 64, 3) and not why.picture[:20].any() and np.ptp(why.picture[20:]) == 255
    assert not why.where[:20].any() and why.where.sum() == 30 * 20
    assert (why.labels[:20] == 255).all()
    with pytest.raises(ConfigError, match=r"pixel \(3, 5\) of scene.tif holds no data"):
        explain(model, scene, (3, 5))


def test_the_model_is_left_as_it_was(photograph: Path) -> None:
    model = tiny("danet_ocr").train()
    explain(model, photograph, (3, 4))
    assert model.training
    assert not any(module._forward_hooks or "compared" in vars(module) for module in model.modules())
    with pytest.raises(BandMismatch):
        explain(tiny("danet", in_channels=2, bands=("sar", "nir")), photograph, (3, 4))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ((WIDTH, 0), rf"pixel \({WIDTH}, 0\) is outside street.png, which is 131 wide and 90 high"),
        ((0, HEIGHT), "y from 0 to 89"),
        ((-1, 3), "outside"),
        ((100, 10, 40, 5), r"box of 40 x 5 pixels at \(100, 10\) is outside"),
        ((1, 2, 3), "need a pixel"),
        ((1, 2, 0, 4), "need a pixel"),
    ],
)
def test_impossible_places_are_refused(at: tuple, message: str, photograph: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        explain(tiny("danet"), photograph, at)


@pytest.mark.usefixtures("unchecked")
def test_half_pixels_are_refused(photograph: Path) -> None:
    with pytest.raises(ConfigError, match="whole pixels"):
        explain(tiny("danet"), photograph, (1.5, 2))  # type: ignore[arg-type]


def test_other_impossible_wishes_are_refused(photograph: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deeplab has no attention to show"):
        explain(tiny("deeplab"), photograph, (3, 4))
    with pytest.raises(UnknownName, match="Did you mean 'red thing'"):
        explain(tiny("danet"), photograph, "red thin")
    model = tiny("danet")
    with torch.no_grad():
        model.classify["main"][1].bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
    with pytest.raises(ConfigError, match=r"predicted as red thing\. Name green thing"):
        explain(model, photograph, "red thing")
    scene = write_tif(tmp_path / "scene.tif", np.zeros((3, 200, 300), dtype=np.uint8))
    for at in ("green thing", (0, 0, 150, 20)):
        with pytest.raises(ConfigError, match="does not fit in one window of 128 pixels"):
            explain(model, scene, at, tile=128)
    with pytest.raises(ConfigError, match="multiples of 32"):
        explain(model, scene, (0, 0), tile=100)


def test_what_the_command_line_means() -> None:
    assert parse_at("312,840") == (312, 840)
    assert parse_at("100, 50,40,30") == (100, 50, 40, 30)
    assert parse_at("-1,3") == (-1, 3)
    assert parse_at("road") == "road" and parse_at("screen, crt") == "screen, crt" and parse_at("12") == "12"


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda: tiny("danet_ocr"), (77, 41)),
        (lambda: tiny("danet"), (20, 13, 50, 31)),
        (lambda: tiny("ocrnet", classes=[f"class {index}" for index in range(19)]), (77, 41)),
    ],
)
def test_the_figure_is_a_picture(make: Callable[[], Segmenter], at: tuple, photograph: Path, tmp_path: Path) -> None:
    why = explain(make(), photograph, at)
    with Image.open(why.save(tmp_path / "new" / "why.png")) as image:
        assert image.format == "PNG" and image.width == 1800
        assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize(("align_corners", "size", "first"), [(False, (15, 20), 2), (True, (11, 16), 0)])
def test_a_map_on_the_picture_has_its_values_at_the_middles_of_its_cells(
    align_corners: bool, size: tuple[int, int], first: int, photograph: Path
) -> None:
    grid = np.random.default_rng(3).random((3, 4)).astype(np.float32)
    why = replace(explain(tiny("ocrnet"), photograph, (3, 4)), align_corners=align_corners)
    smooth = why.on_picture(grid, size)
    np.testing.assert_allclose(smooth[first::5, first::5], grid, atol=1e-6)
    assert grid.min() <= smooth.min() and smooth.max() <= grid.max()


def test_the_figure_in_numbers(photograph: Path) -> None:
    names = [f"class {index}" for index in range(12)]
    why = explain(tiny("danet", classes=names), photograph, (20, 13))
    shares = np.r_[0.01, 0.2, np.full(9, 0.0859), 0.0169].astype(np.float32)
    weights = np.zeros((6, 9), np.float32)
    weights[2, 2] = 1
    moved = replace(why, origin=(32, 64), place=Place(40, 70), probabilities=shares, attention={POSITION: weights})
    figure = draw(moved)
    bars = next(axis for axis in figure.axes if axis.get_title(loc="left") == "probability")
    assert [text.get_text() for text in bars.get_yticklabels()] == names[1:11]
    marks = {tuple(line.get_xydata()[0]) for axis in figure.axes for line in axis.lines if line.get_marker() == "o"}
    assert marks == {(8.5, 6.5)}
    scale = next(axis for axis in figure.axes if axis.get_xlabel() == "× uniform attention")
    assert scale.get_xlim()[0] == 0 and 20 < scale.get_xlim()[1] <= 54


def test_weights_of_regions_are_the_mean_over_the_contexts(photograph: Path) -> None:
    first, second = np.eye(3)[0], np.array([0.0, 0.5, 0.5])
    why = replace(explain(tiny("ocrnet"), photograph, (3, 4)), relations={"a": first, "b": second})
    assert why.region_weights == pytest.approx([0.5, 0.25, 0.25])


def test_it_shows_itself_and_saves_where_it_can(photograph: Path, tmp_path: Path) -> None:
    why = explain(tiny("ocrnet"), photograph, NAMES[explain(tiny("ocrnet"), photograph, (77, 41)).label])
    assert why._repr_png_().startswith(b"\x89PNG")
    assert why.save(tmp_path / "why.svg").read_text().startswith("<?xml")
    with pytest.raises(ConfigError, match=r"got why\.html"):
        why.save(tmp_path / "why.html")
    with pytest.raises(OutputError):
        why.save(tmp_path / "street.png" / "why.png")
    grid = why.regions[0]
    smooth = why.on_picture(grid)
    assert smooth.shape == why.where.shape and smooth.min() >= grid.min() and smooth.max() <= grid.max()
