"""What every network has: a device, a scaling, a card."""

from __future__ import annotations

import pytest
import torch

from regard.card import Card
from regard.classes import ClassMap
from regard.errors import ConfigError
from support import tiny


def test_scaling_is_the_cards():
    model = tiny()
    scaling = model.scaling
    assert (scaling.mean, scaling.std, scaling.divisor) == (model.card.mean, model.card.std, model.card.divisor)


def test_the_device_is_that_of_the_weights():
    assert tiny().device == torch.device("cpu")
    assert tiny().to("meta").device.type == "meta"


def test_another_card_is_of_the_same_network():
    model = tiny()
    card = model.card.model_copy(update={"origin": "elsewhere"})
    other = model.with_card(card)
    assert other.card is card and model.card.origin == "" and type(other) is type(model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "update",
    [
        {"classes": ClassMap.of(["a", "b"])},
        {"architecture": "deeplab"},
        {"config": {"backbone": "resnet18"}},
        {"bands": ("red", "green"), "mean": (0.0, 0.0), "std": (1.0, 1.0)},
    ],
)
def test_a_card_of_another_network_is_refused(update: dict):
    model = tiny()
    with pytest.raises(ConfigError, match="is not of this network"):
        model.with_card(Card(**{**dict(model.card), **update}))
