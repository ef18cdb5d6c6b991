"""The style that QGIS opens a class map with: every class by its name and colour."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from regard.classes import ClassMap, Colour
from regard.files import check_writable, write_text


def style_path(raster: Path) -> Path:
    """Where QGIS looks for the style of a raster: the same name with the ending ``.qml``."""
    return raster.with_suffix(".qml")


def write_style(raster: Path, classes: ClassMap) -> Path:
    """Write the style beside the class map ``raster``; QGIS applies it when the map is opened.

    Raises:
        OutputError: the folder cannot be written to.
    """
    target = style_path(raster)
    check_writable(target)
    return write_text(target, raster_style(classes))


def raster_style(classes: ClassMap) -> str:
    """A QGIS style (QML) with one palette entry per class of band 1; other values are transparent."""
    entries = "".join(
        f'        <paletteEntry value="{label}" color="{as_hex(colour)}" alpha="255" label={quoteattr(name)}/>\n'
        for label, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True))
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22.0" styleCategories="Symbology">\n  <pipe>\n'
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        f"      <colorPalette>\n{entries}      </colorPalette>\n"
        '    </rasterrenderer>\n    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>\n'
        '    <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0"/>\n'
        '    <rasterresampler maxOversampling="2"/>\n  </pipe>\n  <blendMode>0</blendMode>\n</qgis>\n'
    )


def as_hex(colour: Colour) -> str:
    """``#rrggbb``."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
