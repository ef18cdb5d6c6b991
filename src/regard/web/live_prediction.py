"""On-the-fly inference: the tiles in view, one request at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from regard.inference.scores import scores_of, views_of
from regard.inference.segmentation import Segmentation
from regard.io.image import read_image, slices
from regard.io.raster import Box
from regard.mapping.predict import predict
from regard.mapping.region import Region, Window
from regard.models import Segmenter
from regard.options import Views, Windows

MOST_WAITING = 32
BURST, PER_SECOND = 200, 20.0
POLL = 0.2  # seconds between checks that the client is still connected
Connected = Callable[[], bool]
Bands = tuple[int | str, ...] | None


class Busy(Exception):
    """Too many requests wait, or came in a short time."""


class Disconnected(Exception):
    """The client has disconnected."""


class Gate:
    """One request at a time for the model: a limit of waiting requests, and a token bucket against floods."""

    def __init__(self, *, waiting: int = MOST_WAITING, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self.most_waiting, self.burst, self.per_second = waiting, burst, per_second
        self._waiting, self._left, self._seen = 0, float(burst), time.monotonic()
        self._counting, self._worker = threading.Lock(), threading.Lock()

    @contextmanager
    def turn(self, connected: Connected) -> Iterator[None]:
        """Wait for the model.

        Raises:
            Busy, Disconnected: too many requests, or ``connected`` says that the client has gone.
        """
        self._enter()
        try:
            while not self._worker.acquire(timeout=POLL):
                if not connected():
                    raise Disconnected
            try:
                yield
            finally:
                self._worker.release()
        finally:
            with self._counting:
                self._waiting -= 1

    def _enter(self) -> None:
        with self._counting:
            now = time.monotonic()
            self._left = min(self.burst, self._left + (now - self._seen) * self.per_second)
            self._seen = now
            if self._waiting >= self.most_waiting or self._left < 1:
                raise Busy
            self._left -= 1
            self._waiting += 1


class Photograph:
    """The map of a photograph, which is not tiled, with the methods of :class:`~regard.mapping.region.Regions`."""

    def __init__(self, model: Segmenter, path: Path, bands: Bands, windows: Windows) -> None:
        self.model, self.path, self.bands, self.tile = model, path, bands, windows.tile

    @cached_property
    def whole(self) -> Segmentation:
        found = predict(self.model, self.path, bands=self.bands)
        assert isinstance(found, Segmentation)
        return found

    def windows(self, box: Box) -> list[Window]:
        return [(0, 0)]

    def window(self, window: Window) -> Segmentation:
        return self.whole

    def region(self, box: Box) -> Region:
        labels = self.whole.labels[slices(box)]
        return Region(labels, self.whole.confidence[slices(box)], labels != self.whole.classes.ignore_index)

    def probabilities(self, x: int, y: int) -> Float[np.ndarray, " k"]:
        pixels = read_image(self.path, bands=self.bands, expected=self.model.bands)
        return scores_of(self.model, pixels, views_of(Views(), self.model))[:, y, x].softmax(dim=0).cpu().numpy()
