"""The temperature of a model: fitted, judged, stored in its card, and used by everything that shows a probability."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

import regard
from regard.assessment.calibrate import fitted, reliability
from regard.checkpoints.file import load, save
from regard.cli import main
from regard.errors import DatasetError
from regard.export.export import Exported
from regard.inference.scores import grid_scores, scores_of
from regard.io.image import Pixels
from regard.models import Segmenter
from regard.options import Views
from support import save_image, tiny, write_set


def drawn(temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and labels drawn from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(2)
    scores = 3 * torch.randn(40_000, 4, generator=generator, dtype=torch.float64)
    return scores, torch.multinomial((scores / temperature).softmax(dim=1), 1, generator=generator)[:, 0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set", count=4, size=(64, 96))


def hot(model: Segmenter, temperature: float) -> Segmenter:
    return model.with_card(model.card.model_copy(update={"temperature": temperature}))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found(true: float) -> None:
    assert fitted(*drawn(true)) == pytest.approx(true, rel=0.03)


def test_no_other_temperature_has_a_smaller_log_loss() -> None:
    scores, labels = drawn(2.5)
    best = fitted(scores, labels)
    losses = [reliability(scores / (best * factor), labels).log_loss for factor in (0.999, 1, 1.001)]
    assert losses[1] == min(losses)


def test_scores_without_an_error_stay_within_bounds() -> None:
    scores = torch.eye(3, dtype=torch.float64).repeat(9, 1)
    assert fitted(scores, torch.arange(3).repeat(9)) == pytest.approx(1 / 20)


def test_calibration_error_and_brier_score_are_those_of_torchmetrics_and_of_a_loop() -> None:
    scores, labels = drawn(1.7)
    found, shares = reliability(scores, labels), scores.softmax(dim=1)
    expected = multiclass_calibration_error(shares, labels, num_classes=4, n_bins=15)
    assert found.calibration_error == pytest.approx(float(expected), abs=1e-6)
    first = [sum((p - (k == int(label))) ** 2 for k, p in enumerate(row)) for row, label in
             zip(shares[:500].tolist(), labels[:500], strict=True)]  # fmt: skip
    assert reliability(scores[:500], labels[:500]).brier == pytest.approx(np.mean(first), rel=1e-12)


def test_the_card_has_the_temperature_and_probabilities_use_it(data: Path, tiny_model: Segmenter) -> None:
    found = regard.calibrate(hot(tiny_model, 7.0), regard.folder(data), progress=False)
    pixels = Pixels(np.full((3, 32, 32), 99, np.uint8), np.ones((32, 32), bool))
    assert found.model.card.temperature == found.temperature != 7.0
    for views in (Views(), Views(fusion="logits")):
        plain, now = (scores_of(model, pixels, views) for model in (tiny_model, found.model))
        assert torch.allclose(now.softmax(dim=0), (plain / found.temperature).softmax(dim=0), atol=1e-6)
    assert torch.allclose(
        grid_scores(found.model, [pixels]), grid_scores(tiny_model, [pixels]) / found.temperature, atol=1e-6
    )
    assert tiny_model.card.temperature == 1


def test_it_becomes_better_on_blocks_that_were_held_out(data: Path, tiny_model: Segmenter) -> None:
    found = regard.calibrate(tiny_model, regard.folder(data), progress=False)
    assert found.after.log_loss < found.before.log_loss
    assert (found.blocks, found.pixels) == (2 * 16, 2 * 4096)


def test_an_exported_program_gives_calibrated_probabilities(tiny_model: Segmenter) -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = Exported(hot(tiny_model, 2.0), normalise=False, probabilities=True)(image)
        expected = (tiny_model(image) / 2).softmax(dim=1)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_training_begins_at_the_temperature_one(tiny_model: Segmenter) -> None:
    card = hot(tiny_model, 2.0).card.model_copy(update={"certain": ((0.9, 0.05),)})
    assert (card.without_data().temperature, card.without_data().certain) == (1.0, ())


def test_the_command_writes_the_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = save(tiny(), tmp_path / "model.safetensors"), tmp_path / "better.safetensors"
    with pytest.raises(SystemExit, match="0"):
        main(["calibrate", str(model), str(data), "-o", str(out), "--json", "--no-progress"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == [str(out)] and load(out).card.temperature == facts["temperature"]
    assert facts["after"].keys() == {"calibration_error", "brier", "log_loss"}


def test_labels_in_one_block_are_refused(tmp_path: Path, tiny_model: Segmenter) -> None:
    few = write_set(tmp_path / "few", count=3, size=(40, 48))
    for name in ("tile1", "tile2"):
        labels = np.full((40, 48), 255, np.uint8)
        labels[0, 0] = 1 if name == "tile1" else 255
        save_image(few / "masks" / f"{name}.png", labels)
    with pytest.raises(DatasetError, match="one block of ground"):
        regard.calibrate(tiny_model, regard.folder(few), progress=False)


def test_a_temperature_of_zero_is_no_card(tiny_model: Segmenter) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        regard.Card.model_validate(tiny_model.card.model_dump() | {"temperature": 0})
