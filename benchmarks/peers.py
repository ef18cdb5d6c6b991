"""One scene, one model, one tiling through regard and through other tools: time, memory, seams.

    python -m benchmarks peers scene SIDE SCENE.tif            the scene of the Dubai set, mirrored to SIDE
    python -m benchmarks peers WHO MODEL SCENE.tif OUT.tif     WHO: regard, torchgeo, mmseg, geoai

Each call prints one row; MODEL is as in scenes.py (``blur`` costs almost nothing, so that the rest of the work shows).
Run each in an environment that has regard's dependencies and:

    regard    nothing more
    torchgeo  torchgeo==0.8.1 requests: GridGeoSampler, DataLoader, argmax, windowed writes (there is no writer in it)
    mmseg     mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0 ftfy regex: RSInferencer as it is, over stand-ins
              for mmcv's compiled operations (not used) and for osgeo.gdal (by rasterio), which pip cannot install
    geoai     geoai-py==0.40.1 --no-deps, tqdm: predict_geotiff as it is, without the package's own imports

Time is processor time of one thread, all but the first window of warming up; ``outside`` is what is not spent in the
network (for regard ``logits``, for the others also its enlargement to full size). Memory is the peak above that of
the process with the model after one window. Seam index: how much more often than elsewhere neighbouring pixels have
different labels, at the worst place within 4 pixels of a window's edge; 1 is no seam.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window, from_bounds
from torch import Tensor

from benchmarks import parser
from benchmarks.measure import steady
from benchmarks.scenes import model_named, real_scene
from benchmarks.stand_ins import stand_in_for_gdal, stand_in_for_mmcv_operations
from regard.mapping.predict import predict
from regard.memory import keep_freed_memory, peak_memory_mb
from regard.models import Segmenter

TILE, OVERLAP = 1024, 256
STEP = TILE - OVERLAP
NEAR = 4  # pixels from a window's edge


class Timed:
    """A function, and the time that its calls took."""

    def __init__(self, work: Callable[..., Tensor]) -> None:
        self.work = work
        self.seconds = 0.0
        self.windows = 0

    def __call__(self, images: Tensor, *rest: Any) -> Tensor:
        began = time.thread_time()
        result = self.work(images, *rest)
        self.seconds += time.thread_time() - began
        self.windows += len(images)
        return result


def normalised(model: Segmenter, values: Tensor) -> Tensor:
    """Raw values ``(b, c, h, w)`` as the network wants them."""
    how = model.scaling
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (how.mean, how.std))
    return (values / how.divisor - mean) / std


def by_regard(model: Segmenter, scene: Path, out: Path) -> Timed:
    """``regard.predict``."""
    timed = model.logits = Timed(model.logits)  # type: ignore[assignment]
    predict(model, scene, out, tile=TILE, overlap=OVERLAP, overwrite=True, progress=False)
    return timed


def by_torchgeo(model: Segmenter, scene: Path, out: Path) -> Timed:
    """The sampler's recipe: windows in a grid, each written over the one before."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = scene.name
        is_image = True
        separate_files = False

    timed, data = Timed(model), Scene(str(scene.parent))
    windows = GridGeoSampler(data, size=TILE, stride=STEP)
    with rasterio.open(scene) as source:
        profile, transform, (height, width) = source.profile, source.transform, source.shape
    profile |= {"count": 1, "photometric": "minisblack"}
    with rasterio.open(out, "w", **profile) as target, torch.inference_mode():
        for batch in DataLoader(data, batch_size=1, sampler=windows, collate_fn=stack_samples):
            labels = timed(normalised(model, batch["image"])).argmax(1)[0].to(torch.uint8).numpy()
            x, y = batch["bounds"][0][:2]
            place = from_bounds(x.start, y.start, x.stop, y.stop, transform).round_offsets().round_lengths()
            left, top = int(place.col_off), int(place.row_off)
            inside = labels[max(0, -top) : height - top, max(0, -left) : width - left]
            target.write(inside, 1, window=Window(max(0, left), max(0, top), inside.shape[1], inside.shape[0]))
    return timed


def by_mmseg(model: Segmenter, scene: Path, out: Path) -> Timed:
    """RSInferencer over an EncoderDecoder whose encoder and decoder are the model."""
    stand_in_for_gdal()
    stand_in_for_mmcv_operations()
    from mmengine import Config
    from mmengine.registry import init_default_scope
    from mmseg.apis import RSImage, RSInferencer
    from mmseg.models import EncoderDecoder
    from mmseg.models.segmentors import BaseSegmentor

    init_default_scope("mmseg")
    how = model.scaling
    scaled = {name: [how.divisor * x for x in numbers] for name, numbers in (("mean", how.mean), ("std", how.std))}
    timed = Timed(lambda images, _: model(images))

    class Wrapped(EncoderDecoder):
        def __init__(self) -> None:
            prepare = {"type": "SegDataPreProcessor", **scaled, "pad_val": 0, "seg_pad_val": 255, "size": (TILE, TILE)}
            BaseSegmentor.__init__(self, data_preprocessor=prepare)
            self.test_cfg = Config({"mode": "whole"})
            self.align_corners, self.out_channels, self.num_classes = False, len(model.classes), len(model.classes)
            self.encode_decode = timed

    wrapped = Wrapped().eval()
    wrapped.cfg = Config({"test_pipeline": [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]})
    RSInferencer.from_model(wrapped).run(RSImage(str(scene)), (TILE, TILE), (STEP, STEP), str(out))
    return timed


def by_geoai(model: Segmenter, scene: Path, out: Path) -> Timed:
    """predict_geotiff with its own blending; labels by its hook for what follows."""
    import importlib.util

    found = importlib.util.find_spec("geoai")
    assert found is not None and found.submodule_search_locations is not None
    package, utilities = types.ModuleType("geoai"), types.ModuleType("geoai.utils")
    package.__path__ = list(found.submodule_search_locations)
    utilities.__dict__["get_device"] = lambda: torch.device("cpu")
    sys.modules.update({"geoai": package, "geoai.utils": utilities})
    from geoai.inference import predict_geotiff

    class Wrapped(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return timed(images)

    timed = Timed(model)
    predict_geotiff(
        Wrapped(),
        str(scene),
        str(out),
        tile_size=TILE,
        overlap=OVERLAP,
        batch_size=1,
        num_classes=len(model.classes),
        output_dtype="uint8",
        output_nodata=255,
        preprocess_fn=lambda tile: normalised(model, torch.from_numpy(tile)).numpy(),
        postprocess_fn=lambda scores: scores.argmax(axis=0),
        device="cpu",
        compress="deflate",
        verbose=False,
    )
    return timed


def edges(who: str, axis: int, length: int) -> set[int]:
    """Where what is kept of one window meets what is kept of the next: at every edge where windows are blended.

    mmseg cuts overlaps in the middle; torchgeo goes east and north, each window over the one before.
    """
    begins = {min(begin, length - TILE) for begin in range(0, length - OVERLAP, STEP)}
    ends = {begin + TILE for begin in begins}
    if who == "mmseg":
        return {begin + OVERLAP // 2 for begin in begins - {0}}
    kept = {"torchgeo": (ends, begins)[axis]}.get(who, begins | ends)
    return kept - {0, length}


def seam_index(who: str, path: Path) -> float:
    """Mean over window edges of the worst jump within 4 pixels, over that of equal stretches away from them."""
    with rasterio.open(path) as raster:
        labels = raster.read(1)
    near, far = [], []
    for axis in (0, 1):
        jumps = np.diff(labels.astype(np.int16), axis=axis) != 0
        profile = jumps.mean(axis=1 - axis)  # of the pixels along each line, the share that differs from the next line
        lines = edges(who, axis, labels.shape[axis])
        places = range(NEAR, len(profile) - NEAR, 2 * NEAR + 1)
        away = [place for place in places if min(abs(place - line) for line in lines) > 4 * NEAR]
        near += [profile[line - 1 - NEAR : line + NEAR].max() for line in lines]
        far += [profile[place - NEAR : place + NEAR + 1].max() for place in away]
    return float(np.mean(near) / np.mean(far))


PEERS = {"regard": by_regard, "torchgeo": by_torchgeo, "mmseg": by_mmseg, "geoai": by_geoai}


def measure(who: str, name: str, scene: Path, out: Path) -> None:
    """Print one row of the table."""
    if who == "regard":
        keep_freed_memory()  # as the command does
    model = model_named(name)
    with steady(threads=1):
        with torch.inference_mode():
            model(torch.zeros(1, len(model.bands), TILE, TILE))
        before, began = peak_memory_mb(), time.process_time()
        timed = PEERS[who](model, scene, out)
        spent = time.process_time() - began
    memory = peak_memory_mb() - before
    index, size = seam_index(who, out), out.stat().st_size / 1e6
    print(
        f"| {name} | {who} | {timed.windows} | {spent:.1f} s | {spent - timed.seconds:.1f} s | {memory:,.0f} MB "
        f"| {index:.2f} | {size:.1f} MB |",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    options = parser("peers", __doc__)
    options.add_argument("who", choices=("scene", *PEERS))
    options.add_argument("rest", nargs="+", metavar="SIDE SCENE.tif | MODEL SCENE.tif OUT.tif")
    given = options.parse_args(arguments)
    first, *paths = given.rest
    if given.who == "scene":
        real_scene(Path(paths[0]), int(first), compress="deflate", photometric="rgb")
    else:
        measure(given.who, first, Path(paths[0]), Path(paths[1]))
