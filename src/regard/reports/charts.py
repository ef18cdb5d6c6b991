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

from regard.errors import visible
from regard.ops.metrics import ONE, calibration_error

COLOURS = ("#3b82c4", "#d9730d", "#2f9e6e", "#b0579b", "#9a8420", "#808890")  # legible on white and on near black
LEFT_OUT = r"<defs>\s*<style.*?</defs>|<!--.*?-->|(?<=<g) id=\"[^\"]*\"| font-family:[^;]*;"
POINTS = 400
HISTOGRAM = 20  # bars
styled = matplotlib.style.context(["default", "regard.reports.charts"])  # a decorator; reads charts.mplstyle
Lines = Sequence[Mapping[str, Any]]
Curve = Float[np.ndarray, "n"]
Chart = tuple[Markup, str]  # the drawing and its caption


@styled
def curves(metrics: Lines) -> list[Chart]:
    """Loss by output, validation mIoU and learning rate over the steps of a run, as far as it has them."""
    trained, scored = [line for line in metrics if "rate" in line], [line for line in metrics if "miou" in line]
    charts = []
    if trained:
        charts += [_losses(trained), _peak(trained, "rate", "learning rate", "Learning rate of the heads")]
    if scored:
        charts.append(_peak(scored, "miou", "mIoU, %", "Validation mIoU", unit=100.0))
    return charts


@styled
def calibration(bins: Int[np.ndarray, "bins 3"]) -> Chart:
    """Reliability diagram: pixel accuracy by confidence, above a histogram of the pixels by confidence."""
    pixels, correct, confidence = bins[:, 0], bins[:, 1], bins[:, 2] / ONE
    edges, filled, total = np.linspace(0, 100, len(bins) + 1), pixels > 0, max(1, pixels.sum())
    figure = Figure(figsize=(3.6, 3.4))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    heights = 100 * correct[filled] / pixels[filled]
    axes.bar(edges[:-1][filled], heights, 100 / len(bins), align="edge", color=COLOURS[0], edgecolor="none")
    axes.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1)
    axes.set(ylabel="pixel accuracy, %", xlim=(0, 100), ylim=(0, 100))
    below.bar(edges[:-1], 100 * pixels / total, 100 / len(bins), align="edge", color=COLOURS[5], edgecolor="none")
    below.set(xlabel="confidence, %", ylabel="of pixels, %")
    mean, accuracy = 100 * confidence.sum() / total, 100 * correct.sum() / total
    error = 100 * calibration_error(torch.from_numpy(bins))
    verdict = "overconfident" if mean > accuracy else "underconfident"
    caption = (
        f"Mean confidence {mean:.1f} %, pixel accuracy {accuracy:.1f} %: {abs(mean - accuracy):.1f} points "
        f"{verdict}. Expected calibration error {error:.1f} %."
    )
    return _chart(axes, f"Pixel accuracy by confidence. {caption}", caption)


@styled
def histogram(levels: Int[np.ndarray, "256"]) -> Chart:
    """Histogram of a map's pixels by confidence, which is in steps of 1/255; level 0 is no data."""
    counted = levels.copy()
    counted[0] = 0
    total, confidence = max(1, counted.sum()), np.arange(256) / 2.55
    shares = 100 * np.histogram(confidence, HISTOGRAM, (0, 100), weights=counted)[0] / total
    median = confidence[min(255, int(np.searchsorted(counted.cumsum(), total / 2)))]
    axes = Figure(figsize=(3.6, 2.5)).add_subplot()
    axes.bar(np.linspace(0, 100, HISTOGRAM + 1)[:-1], shares, 100 / HISTOGRAM, align="edge", color=COLOURS[0])
    axes.set(xlabel="confidence, %", ylabel="of pixels, %", xlim=(0, 100))
    low = 100 * counted[:128].sum() / total
    caption = f"Median confidence {median:.0f} %; {low:.1f} % of the pixels are below 50 %."
    return _chart(axes, f"Histogram of the pixels by confidence. {caption}", caption)


def _losses(lines: Lines) -> Chart:
    names = [name for name in lines[0] if name not in ("step", "loss", "rate")] or ["loss"]
    axes, trends = _axes("loss", lines), []
    for index, name in enumerate(names):
        steps, values = _curve(lines, name)
        smooth, colour = _smooth(values), COLOURS[index % len(COLOURS)]
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(steps, smooth, color=colour, label=name)
        trends.append(f"{name} from {smooth[0]:.2f} to {smooth[-1]:.2f}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return _chart(
        axes, f"Loss by step: {', '.join(trends)}.", "Training loss of each output: raw (faint) and smoothed."
    )


def _peak(lines: Lines, name: str, label: str, title: str, *, unit: float = 1.0) -> Chart:
    """One curve with its highest point marked; its values are multiplied by ``unit``."""
    axes, (steps, values) = _axes(label, lines), _curve(lines, name)
    values = unit * values
    top = len(values) - 1 - int(values[::-1].argmax())
    axes.plot(steps, values, color=COLOURS[0], marker="o" if len(values) < 50 else "", markersize=3)
    axes.plot(steps[top], values[top], color=COLOURS[0], marker="o", markersize=6)
    axes.margins(y=0.2)
    axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    caption = f"{title}, highest {values[top]:.3g} at step {steps[top]:,.0f}."
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


def _chart(axes: Axes, alt: str, caption: str) -> Chart:
    """The drawing with ``alt`` as its text, without size, fonts, addresses and ids that repeat."""
    buffer, figure = io.StringIO(), cast(Figure, axes.figure)
    with matplotlib.rc_context({"svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    box, body = re.findall(r'viewBox="([^"]*)".*?(<defs>.*)', buffer.getvalue(), re.DOTALL)[0]
    body = re.sub(LEFT_OUT, "", body, flags=re.DOTALL)
    body = body.replace("#000000", "var(--ink)").replace("#b0b0b0", "var(--line)")  # the page's colours
    return Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, visible(alt)) + Markup(
        visible(body)
    ), caption
