"""Recipes as data: each is a possible training, and what is given holds over it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from regard.errors import ConfigError, UnknownName
from regard.models import MODELS
from regard.training.config import TrainConfig, recipes, with_recipe
from regard.training.optimizer import CITYSCAPES_WEIGHTS


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_a_possible_training(name: str):
    plan, config = recipes()[name], with_recipe(name, {})
    network = MODELS[plan.architecture].config_type(backbone=plan.backbone, **plan.config)
    assert timm.is_model(plan.backbone) and network.backbone == plan.backbone
    assert plan.pretrained == ("none" if name == "default" else "imagenet")
    written = config.model_dump(mode="json")
    assert {key: written[key] for key in plan.settings} == plan.settings
    assert all((plan.source, plan.published, plan.differs)) and plan.ours != ""


def test_numbers_of_the_published_recipes():
    danet = with_recipe("danet-cityscapes", {})
    assert danet.steps == 240 * 2975 // 8 and danet.learning_rate * danet.backbone_rate == pytest.approx(0.003)
    ocr = with_recipe("hrnet-ocr-cityscapes", {})
    assert ocr.steps == 484 * 2975 // 12 and (ocr.crop, ocr.crop_width) == (512, 1024)
    assert with_recipe("hrnet-ocr-ade20k", {}).steps == 120 * 20_210 // 16
    assert with_recipe("danet-pascal-context", {}).steps == 80 * 4998 // 16
    assert (min(CITYSCAPES_WEIGHTS), len(CITYSCAPES_WEIGHTS)) == (0.8373, 19) and CITYSCAPES_WEIGHTS[-1] == 1.0507


def test_networks_of_the_published_recipes():
    """mmseg's ResNetV1c is timm's resnet50c, openseg's deep base resnet101s; the authors' align_corners is true."""
    assert recipes()["mmseg-40k"].backbone == "resnet50c" and recipes()["mmseg-40k"].config["auxiliary"]
    openseg = recipes()["openseg-ocr-cityscapes"]
    assert openseg.backbone == "resnet101s" and openseg.config["backbone_options"] == {"pool_ceil": True}
    for name, plan in recipes().items():
        assert plan.config.get("align_corners", False) == name.startswith(("danet-", "hrnet-", "openseg-"))


def test_given_settings_hold_over_the_recipe():
    config = with_recipe("mmseg-40k", {"steps": 7, "loss": "focal"})
    assert (config.steps, config.loss, config.optimizer, config.learning_rate) == (7, "focal", "sgd", 0.01)
    assert with_recipe("default", {}) == TrainConfig()


def test_an_unknown_recipe_and_an_impossible_mixture_are_refused():
    with pytest.raises(UnknownName, match="Did you mean 'mmseg-40k'"):
        with_recipe("mmseg-40", {})
    with pytest.raises(ConfigError, match="512 x 1024 cannot be rotated"):
        with_recipe("mmseg-40k", {"rot90": True})


def test_the_page_lists_what_was_run_and_apart_from_it_what_was_not():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    run, transcribed = page.split("**not yet run with regard**")
    for name, plan in recipes().items():
        start = f"| `{name}` | {plan.architecture}, {plan.backbone} | {plan.source} |"
        if plan.ours:
            assert f"{start} {plan.ours} |" in run
        else:
            assert f"{start} {plan.published} | {plan.differs} |" in transcribed
