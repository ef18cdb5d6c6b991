"""Curves and diagrams as inline SVG in the page's own ink, so that it reads on light, on dark and on paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib.style
import numpy as np
import torch
from jaxtyping import Float, Int
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regard.ops.metrics import ONE, calibration_error

COLOURS = ("#3b82c4", "#d9730d", "#2f9e6e", "#b0579b", "#9a8420", "#808890")  # legible on white and on near black
LEFT_OUT = r"<defs>\s*<style.*?</defs>|<!--.*?-->|(?<=<g) id=\"[^\"]*\"| font-family:[^;]*;"
POINTS = 400
HISTOGRAM = 20  # bars
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
Lines = Sequence[Mapping[str, Any]]
Curve = Float[np.ndarray, "n"]
Chart = tuple[Markup, str]  # the drawing and what stands under it


def curves(metrics: Lines) -> list[Chart]:
    """Loss by output, validation mIoU and learning rate over the steps of a run, as far as it has them."""
    trained, scored = [line for line in metrics if "rate" in line], [line for line in metrics if "miou" in line]
    with matplotlib.style.context(["default", STYLE]):
        charts = (
            [_losses(trained), _peak(trained, "rate", "learning rate", "Learning rate of the heads")] if trained else []
        )
        return charts + ([_peak(scored, "miou", "mIoU, %", "Validation mIoU", unit=100.0)] if scored else [])


def calibration(bins: Int[np.ndarray, "bins 3"]) -> Chart:
    """How often the model is right where it is so and so sure, above the share of the pixels where it is."""
    pixels, right, sure = bins[:, 0], bins[:, 1], bins[:, 2] / ONE
    edges, some, total = np.linspace(0, 100, len(bins) + 1), pixels > 0, max(1, pixels.sum())
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(3.6, 3.4))
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        heights = 100 * right[some] / pixels[some]
        axes.bar(edges[:-1][some], heights, 100 / len(bins), align="edge", color=COLOURS[0], edgecolor="none")
        axes.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1)
        axes.set(ylabel="pixels right, %", xlim=(0, 100), ylim=(0, 100))
        below.bar(edges[:-1], 100 * pixels / total, 100 / len(bins), align="edge", color=COLOURS[5], edgecolor="none")
        below.set(xlabel="confidence, %", ylabel="of pixels, %")
        told, was = 100 * sure.sum() / total, 100 * right.sum() / total
        error = 100 * calibration_error(torch.from_numpy(bins))
        verdict = "too sure" if told > was else "not sure enough"
        said = (
            f"On average the model is {told:.1f} % sure and right in {was:.1f} % of the pixels: {abs(told - was):.1f} "
            f"points {verdict}. Expected calibration error {error:.1f} %."
        )
        return _chart(axes, f"Share of right pixels by confidence. {said}", said)


def histogram(levels: Int[np.ndarray, "256"]) -> Chart:
    """The share of a map's pixels at each confidence, which is in steps of 1/255; level 0 is no data."""
    counted = levels.copy()
    counted[0] = 0
    total, sure = max(1, counted.sum()), np.arange(256) / 2.55
    shares = 100 * np.histogram(sure, HISTOGRAM, (0, 100), weights=counted)[0] / total
    middle = sure[min(255, int(np.searchsorted(counted.cumsum(), total / 2)))]
    with matplotlib.style.context(["default", STYLE]):
        axes = Figure(figsize=(3.6, 2.5)).add_subplot()
        axes.bar(np.linspace(0, 100, HISTOGRAM + 1)[:-1], shares, 100 / HISTOGRAM, align="edge", color=COLOURS[0])
        axes.set(xlabel="confidence, %", ylabel="of pixels, %", xlim=(0, 100))
        low = 100 * counted[:128].sum() / total
        said = f"Half of the pixels are at least {middle:.0f} % sure; {low:.1f} % are less than 50 % sure."
        return _chart(axes, f"Share of the pixels by confidence. {said}", said)


def _losses(lines: Lines) -> Chart:
    names = [name for name in lines[0] if name not in ("step", "loss", "rate")] or ["loss"]
    axes, said = _axes("loss", lines), []
    for index, name in enumerate(names):
        steps, values = _curve(lines, name)
        smooth, colour = _smooth(values), COLOURS[index % len(COLOURS)]
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(steps, smooth, color=colour, label=name)
        said.append(f"{name} from {smooth[0]:.2f} to {smooth[-1]:.2f}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return _chart(axes, f"Loss by step: {', '.join(said)}.", "Training loss of each output: raw (faint) and smoothed.")


def _peak(lines: Lines, name: str, label: str, what: str, *, unit: float = 1.0) -> Chart:
    """One curve with its highest point marked; its values are multiplied by ``unit``."""
    axes, (steps, values) = _axes(label, lines), _curve(lines, name)
    values = unit * values
    top = len(values) - 1 - int(values[::-1].argmax())
    axes.plot(steps, values, color=COLOURS[0], marker="o" if len(values) < 50 else "", markersize=3)
    axes.plot(steps[top], values[top], color=COLOURS[0], marker="o", markersize=6)
    axes.margins(y=0.2)
    axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    caption = f"{what}, highest {values[top]:.3g} at step {steps[top]:,.0f}."
    return _chart(axes, caption, caption)


def _axes(label: str, lines: Lines) -> Axes:
    axes = Figure(figsize=(3.6, 2.5)).add_subplot()
    axes.set(xlabel="step", ylabel=label, xlim=(0, 1.03 * lines[-1]["step"]))
    axes.locator_params(axis="x", nbins=5, integer=True)
    return axes


def _curve(lines: Lines, name: str, points: int = POINTS) -> tuple[Curve, Curve]:
    """Steps and values, at most ``points`` of them: means over equal stretches."""
    table = np.array([(line["step"], line.get(name, np.nan)) for line in lines], dtype=float)
    steps, values = np.array([part.mean(axis=0) for part in np.array_split(table, min(points, len(table)))]).T
    return steps, values


def _smooth(values: Curve) -> Curve:
    """The mean of each point with its neighbours, a tenth of the curve."""
    reach = len(values) // 20
    return np.array([values[max(0, index - reach) : index + reach + 1].mean() for index in range(len(values))])


def _chart(axes: Axes, said: str, caption: str) -> Chart:
    """The drawing, described by ``said``, without size, fonts, addresses and ids that repeat."""
    buffer, figure = io.StringIO(), cast(Figure, axes.figure)
    with matplotlib.rc_context({"svg.hashsalt": said}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    box, body = re.findall(r'viewBox="([^"]*)".*?(<defs>.*)', buffer.getvalue(), re.DOTALL)[0]
    body = re.sub(LEFT_OUT, "", body, flags=re.DOTALL)
    body = body.replace("#000000", "var(--ink)").replace("#b0b0b0", "var(--line)")  # its ink and grid become the page's
    return Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, said) + Markup(body), caption
