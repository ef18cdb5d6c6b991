"""Post-training quantisation to 8-bit integers for OpenVINO, written only if the scores hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from regard.datasets.labelled_data import LabelledData
from regard.errors import ConfigError, ExportError
from regard.evaluation.evaluate import evaluate
from regard.export.export import WEIGHTS, export
from regard.files import check_writable, replacing, writing
from regard.inference.runtimes import needed, open_exported
from regard.inference.scores import prepare
from regard.io.image import Pixels
from regard.models import Segmenter

ALLOWED = 0.01  # of mIoU, lost on the split val
CALIBRATED = 64  # images of the split train, at most
SIDE = 512  # pixels of them, at most
WINDOW = 768  # pixels: an exported file holds the whole attention map, which grows with their fourth power


class Quantised(NamedTuple):
    """The file, and the mIoU on the split val by sliding windows, in float32 and in 8 bits."""

    path: Path
    before: float
    after: float


def quantise(model: Segmenter, path: str | Path, data: LabelledData, *, normalise: bool = False) -> Quantised:
    """Write ``model`` for OpenVINO (``.xml``) with 8-bit convolutions; the products of attention stay in float32.

    The ranges are calibrated on images of the split train. Source: nncf, post-training quantisation.

    Raises:
        ConfigError: another ending than ``.xml``.
        ExportError: mIoU on the split val falls by more than one point. Nothing is written.
        MissingExtra, OutputError, ClassMismatch: see :func:`regard.export.export.export` and ``evaluate``.
    """
    target = Path(path)
    if target.suffix != ".xml":
        raise ConfigError(
            f"models in 8 bits are written for OpenVINO as .xml; got {target.name}. Name it {target.stem}.xml."
        )
    nncf, openvino = needed("nncf", "int8"), needed("openvino")
    check_writable(target)
    with TemporaryDirectory(prefix=".", dir=target.parent) as folder, writing(target.parent):
        plain = export(model, Path(folder) / "plain.xml", normalise=normalise)
        nncf.set_log_level(logging.ERROR)
        images = list(calibration_images(model, data, normalise=normalise))
        small = nncf.quantize(
            openvino.Core().read_model(plain),
            nncf.Dataset(images),
            subset_size=len(images),
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(types=["MatMul"], validate=False),
        )
        with replacing(target, side=WEIGHTS) as part:
            openvino.save_model(small, part, compress_to_fp16=False)
            before, after = (evaluate(open_exported(file), data, window=WINDOW).miou for file in (plain, part))
            if not before - after <= ALLOWED:
                raise ExportError(
                    f"{target.name}: in 8 bits mIoU falls from {100 * before:.2f} to {100 * after:.2f}; one point is "
                    "allowed. It was not written. Export without --int8, or try more training images."
                )
    return Quantised(target, before, after)


def calibration_images(model: Segmenter, data: LabelledData, *, normalise: bool) -> Iterator[np.ndarray]:
    """Centre crops of images of the split train, in the units that the file takes."""
    pairs = data.split("train")
    for pair in pairs[:: -(-len(pairs) // CALIBRATED)]:
        sample = data.read(pair, expected=model.bands)
        top, left = (max(0, length - SIDE) // 2 for length in sample.labels.shape)
        crop = np.s_[..., top : top + SIDE, left : left + SIDE]
        pixels = Pixels(sample.image[crop], sample.valid[crop])
        values = pixels.values.astype(np.float32) if normalise else prepare(*pixels, model.scaling).numpy()
        yield values[None]
