"""Stand-ins for what cannot be installed where a benchmark runs and is imported there, but not used."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window


class Missing(types.ModuleType):
    """A module whose every name is a class that can do nothing."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_in_for_gdal() -> None:
    """What RSInferencer calls of osgeo.gdal, by rasterio."""

    class Dataset:
        def __init__(self, file: Any) -> None:
            self.file = file
            self.RasterXSize, self.RasterYSize, self.RasterCount = file.width, file.height, file.count

        def GetGeoTransform(self) -> Any:
            return self.file.transform.to_gdal()

        def GetProjection(self) -> str:
            return self.file.crs.to_wkt()

        def SetGeoTransform(self, numbers: Any) -> None:
            self.file.transform = rasterio.Affine.from_gdal(*numbers)

        def SetProjection(self, text: str) -> None:
            self.file.crs = rasterio.crs.CRS.from_wkt(text)

        def GetRasterBand(self, _: int) -> Any:
            return self

        def WriteArray(self, values: np.ndarray, left: int, top: int) -> None:
            window = Window(left, top, values.shape[1], values.shape[0])
            self.file.write(np.ascontiguousarray(values).astype("uint8"), 1, window=window)

        def ReadAsArray(self, left: int, top: int, width: int, height: int) -> np.ndarray:
            return self.file.read(window=Window(left, top, width, height))

    class Driver:
        def Create(self, path: str, width: int, height: int, count: int, _: Any) -> Dataset:
            size = {"width": width, "height": height, "count": count, "dtype": "uint8"}
            return Dataset(rasterio.open(path, "w", driver="GTiff", **size))

    gdal = types.ModuleType("osgeo.gdal")
    names = {"Dataset": Dataset, "GA_ReadOnly": 0, "GDT_Byte": 1, "GetDriverByName": lambda _: Driver()}
    gdal.__dict__.update(names, Open=lambda path, _: Dataset(rasterio.open(path)))
    package = types.ModuleType("osgeo")
    package.__dict__["gdal"] = gdal
    sys.modules.update({"osgeo": package, "osgeo.gdal": gdal})


def stand_in_for_mmcv_operations() -> None:
    """mmcv-lite has no compiled operations; mmsegmentation imports them with every model."""
    sys.modules["mmcv.ops"] = Missing("mmcv.ops")


def stand_in_for_pyogrio() -> None:
    """Where it is missing: it reads and writes polygons, and a benchmark's maps have none."""
    if importlib.util.find_spec("pyogrio") is None:
        modules = {name: Missing(f"pyogrio.{name}") for name in ("raw", "errors")}
        package = Missing("pyogrio")
        package.__dict__.update(modules)
        sys.modules.update({"pyogrio": package} | {module.__name__: module for module in modules.values()})
