"""A model on a scene that is refined again and again: what `regard refine` does once, and a viewer after each label."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard._version import __version__
from regard.card import Card
from regard.checkpoints.create import unscaled
from regard.classes import ClassMap, default_palette
from regard.errors import ConfigError
from regard.io.raster import Raster, open_raster
from regard.io.source import Source
from regard.io.window_reader import sampled
from regard.mapping.blend import windows_of
from regard.mapping.scene_check import check_scene
from regard.models import Segmenter
from regard.models.refined import Refined
from regard.options import Input, Windows
from regard.refine.heads import Task, as_refined, fitted
from regard.refine.labels import Labels
from regard.refine.options import RefineOptions
from regard.refine.samples import Layout, RefinedRegions, Store
from regard.refine.trials import Kind, Trial, kinds_of, try_on_blocks

REHEARSED = 2048  # pixels all over the scene whose present answers are kept
REHEARSED_WINDOWS = 12


class Session:
    """A model on a scene that is refined again and again; the deep features of a window are computed once.

    ``classes`` are those of the result.
    """

    def __init__(
        self, model: Segmenter, raster: Raster, windows: Windows, options: RefineOptions, store: Store
    ) -> None:
        self.start, self.raster, self.options, self.store = as_refined(model), raster, options, store
        self.windows = windows_of(windows, model)
        self.classes, self.like = new_classes(model.classes, options)
        self._layouts: dict[int, Layout] = {}

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of heads that the options allow."""
        return kinds_of(self.options, has_base=bool(self.start.config.base))

    def layout(self, kind: Kind) -> Layout:
        """The windows that a head of this kind is fitted and applied in."""
        stride = kind.stride(self.start)
        if stride not in self._layouts:
            self._layouts[stride] = Layout(
                self.start, self.raster, self.windows, stride, self.options.squares, self.store
            )
        return self._layouts[stride]

    def task(self, labels: Labels, kind: Kind) -> tuple[Task, Labels]:
        """What a head of this kind is fitted to, and the labels whose pixels hold data.

        Raises:
            ConfigError: no labelled pixel holds data, or all have one class.
        """
        layout, options = self.layout(kind), self.options
        rows, columns = layout.spread(REHEARSED, REHEARSED_WINDOWS, options.seed)
        rehearsed = layout.samples(rows, columns)
        labelled = layout.samples(labels.rows, labels.columns)
        labels = labels.chosen(labelled.valid.numpy())
        at = rows[rehearsed.valid.numpy()], columns[rehearsed.valid.numpy()]
        self._check(labels)

        def in_context(model: Refined) -> tuple[Tensor, Tensor]:
            return layout.in_context(model, labels.rows, labels.columns), layout.in_context(model, *at)

        keep = options.keep if max(self.like) >= 0 else 0.0
        known = torch.from_numpy(labels.labels)
        settings = (rehearsed, self.like, keep, options.squares, options.seed, in_context)
        return Task(self.classes, labelled, known, *settings), labels

    def trial(self, labels: Labels, kind: Kind) -> Trial:
        """The scores of a kind of head on blocks of ground that were held out."""
        task, labels = self.task(labels, kind)
        found, scene = try_on_blocks(self.start, task, labels, kind), self.raster.source.name
        if max(self.like) < 0 or any(learned.get("scene") == scene for learned in self.start.card.refined_with):
            found.before[:] = torch.nan  # it knows no such class, or has learned from what is held out here
        return found

    def _check(self, labels: Labels) -> None:
        found = {self.classes.names[label] for label in labels.labels.tolist()}
        if not found:
            raise ConfigError(f"no label of {labels.file} lies on data of {self.raster.source.name}. Draw some there.")
        if len(found) == 1 and max(self.like) < 0:
            raise ConfigError(f"{labels.file} labels {found.pop()!r} alone; need two classes to tell. Label another.")

    def fit(self, labels: Labels, kind: Kind | None = None) -> Refined:
        """The model, refined with labels; of the first kind of head that the options allow if none is given."""
        kind = kind or self.kinds[0]
        task, labels = self.task(labels, kind)
        model = fitted(self.start, task, kind.head, deep=kind.deep, bands=kind.bands)
        return model.with_card(self._card(model.card, labels))

    def _card(self, card: Card, labels: Labels) -> Card:
        """The card of the result: what it learned from, and nothing of the scores before."""
        counts = {name: {"objects": n, "pixels": m} for name, (n, m) in labels.counts(self.classes).items() if n}
        learned: dict[str, Any] = {
            "labels": labels.file,
            "sha256": labels.sha256,
            "scene": self.raster.source.name,
            "counts": counts,
        }
        learned |= {"seed": self.options.seed, "keep": self.options.keep}
        update = {"scores": {}, "protocol": "", "temperature": 1.0, "certain": (), "regard_version": __version__}
        return card.model_copy(update={**update, "refined_with": (*card.refined_with, learned)})

    def map(self, model: Refined) -> RefinedRegions:
        """The map of a refined model, box by box, from the features that are kept."""
        return RefinedRegions(model, self.layout(Kind(model.config.head, bool(model.config.base), model.stride == 1)))


@contextmanager
def session(
    model: Segmenter | None,
    scene: str | Path | Source,
    options: RefineOptions = RefineOptions(),
    windows: Windows = Windows(),
    given: Input = Input(),
    *,
    names: Sequence[str] = (),
) -> Iterator[Session]:
    """A session on a scene. Without a ``model`` there are no deep features: the classes are ``names``.

    Raises:
        UnreadableImage, BandMismatch: the scene cannot be read, or not with this model.
        ClassMismatch, UnknownName: impossible classes.
    """
    source = Source.of(scene)
    with ExitStack() as stack:
        expected = None if model is None else model.bands
        raster = stack.enter_context(open_raster(source, bands=given.bands, expected=expected, vrt=given.vrt))
        raster.no_data = given.nodata
        if model is None:
            model = blank(raster, names)
        check_scene(model, raster, given)
        folder = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regard-")))
        opened = Session(model, raster, windows, options, Store(folder, 1e6 * options.budget))
        if names:
            opened.like = (-1,) * len(names)  # it has learned nothing
        yield opened


def blank(raster: Raster, names: Sequence[str]) -> Refined:
    """A model that looks at the bands alone and has learned nothing; values are scaled as they are in the scene."""
    values = np.concatenate([part.values[:, part.valid].T for part in sampled(raster)]).astype(np.float64)
    bands = raster.band_names
    scaling = {**unscaled(bands), "divisor": 1.0}
    if len(values):
        spread = values.std(axis=0)
        scaling |= {"mean": tuple(values.mean(axis=0).tolist()), "std": tuple(np.where(spread > 0, spread, 1).tolist())}
    config = {"backbone": "none", "head": "kernel"}
    return Refined(Card(architecture="refined", config=config, classes=ClassMap.of(names), **scaling)).eval()


def new_classes(present: ClassMap, options: RefineOptions) -> tuple[ClassMap, tuple[int, ...]]:
    """The classes of the result, and for each the present class that it begins as, -1 for none.

    Raises:
        UnknownName: a class begins as one that there is not.
        ClassMismatch: a class twice.
    """
    added = dict(name.partition("=")[::2] for name in options.add_class)
    for like in filter(None, added.values()):
        present.label_of(like)
    names = options.classes or (*present.names, *added)
    begins = [name if name in present.names else added.get(name, "") for name in names]
    places = tuple(present.names.index(name) if name else -1 for name in begins)
    made = ClassMap.of(names)
    known = dict(zip(present.names, present.palette, strict=True))
    free = iter(colour for colour in default_palette(len(names) + len(present)) if colour not in known.values())
    return made.model_copy(update={"palette": tuple(known.get(name) or next(free) for name in names)}), places
