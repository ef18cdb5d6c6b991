"""Other people's checkpoints: recognised by their keys, renamed, and written as one of our files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from regard._version import __version__
from regard.card import Card
from regard.checkpoints.create import band_names, build, unscaled
from regard.checkpoints.file import fit, save
from regard.checkpoints.foreign import danet, hrnet_ocr, mmseg, openseg, sssegmentation
from regard.checkpoints.foreign.config_from_tensors import count_classes, in_channels, is_hrnet, settings
from regard.checkpoints.foreign.metadata import Evidence, align_corners, class_map, evidence, scaling
from regard.checkpoints.foreign.rename import Family, reconcile, rename, without_averages
from regard.classes import ClassMap
from regard.errors import CheckpointError, counted, listed, one_line
from regard.files import file_digest
from regard.tensor_files import read_file, strip, unwrap

MODULES = (mmseg, danet, hrnet_ocr, openseg, sssegmentation)
FAMILIES: tuple[Family, ...] = tuple(family for module in MODULES for family in module.FAMILIES)
BROKEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)  # odd shapes and settings


class Conversion(NamedTuple):
    """What was written, and what was done to the tensors on the way."""

    path: Path
    family: str
    card: Card
    tensors: int
    folded: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


def convert(
    source: str | Path, target: str | Path, *, classes: ClassMap | Sequence[str] | str | None = None, **config: Any
) -> Conversion:
    """Write a checkpoint of mmseg, DANet, HRNet-OCR, openseg, NVIDIA or sssegmentation as one file of ours.

    ``classes`` may be a list, or the name of one (``"cityscapes"``). ``config`` overrides what the weights cannot tell,
    such as ``multi_grid=(4, 8, 16)`` or ``align_corners=True``. Every tensor is accounted for.

    Raises:
        CheckpointError: unreadable, of no known family, would run code, or has tensors too many or too few.
        ClassMismatch: the given classes are not as many as the network has outputs.
        ConfigError, OutputError: an impossible setting; the target cannot be written.
    """
    path = Path(source)
    content = read_file(path)
    tensors, averages = without_averages(strip(unwrap(content, path)))
    family = recognise(path, tensors)
    words = evidence(path, content)
    try:
        special = family.special(tensors, words)
        renamed, dropped = rename(special.tensors, family)
        found, notes = _config(family, renamed, words)
        bands = in_channels(renamed)
        chosen, origin = class_map(words, count_classes(renamed), classes)
        card = Card(
            architecture=family.architecture,
            config={**found, **special.config, **config},
            classes=chosen,
            origin=f"converted from {path.name} ({family.name}; SHA-256 {file_digest(path)[:16]})",
            licence=family.licence,
            regard_version=__version__,
            **({**family.card, **scaling(words)} if bands == 3 else unscaled(band_names(bands, None))),
        )
    except BROKEN as error:
        reason = one_line(error, kind=True)
        raise CheckpointError(
            f"{path} is broken, or not as {family.name} writes it ({reason}). Fetch it again."
        ) from error
    model = build(card)
    ours, folded = reconcile(renamed, model.state_dict(), family.zeros)
    fit(model, ours, path)
    written = save(model.eval(), target)
    notes += [*special.notes, f"classes: {origin}"]
    if averages:
        notes.append(f"{counted(len(averages), 'tensor')} ema_* left out: the other set of weights of mmcv's EMAHook")
    left_out = (*dropped, *averages)
    return Conversion(written, family.name, model.card, len(ours), tuple(folded), left_out, tuple(notes))


def recognise(path: Path, tensors: Mapping[str, Tensor]) -> Family:
    """The family whose signature the file has; a CheckpointError if none."""
    for family in FAMILIES:
        if family.fits(tensors):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(
        f"{path} is of no family that regard converts: its first names are {listed(sorted(tensors))}. Known: {known}."
    )


def _config(family: Family, tensors: Mapping[str, Tensor], words: Evidence) -> tuple[dict[str, Any], list[str]]:
    """The settings: what the weights tell, then what the family is known for, then what the file says."""
    found = settings("danet" if family.architecture == "danet" else "ocrnet", tensors)
    options = found.pop("backbone_options")
    known = {**family.config, **(family.on_hrnet if is_hrnet(tensors) else family.on_resnet)}
    options |= known.pop("backbone_options", {})
    if found["backbone"] in ("resnet18", "resnet34"):
        options |= family.on_basic
    found |= {**known, "backbone_options": options}
    if "align_corners" in family.config:
        return found, []
    said = align_corners(words)
    found["align_corners"] = bool(said)
    return found, [f"align_corners: {bool(said)}, {'as the file says' if said is not None else 'by default'}"]
