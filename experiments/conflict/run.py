"""Train arms of the study and write one JSONL file for each arm and seed; files that exist are skipped.

python -m experiments.conflict.run --arms key --seeds 0 1 2
python -m experiments.records collect runs/conflict experiments/conflict/records.csv.gz
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import regard
from experiments.conflict.arms import ARMS, GROUPS, Arm
from experiments.conflict.constant import constant_answers
from experiments.conflict.crops import BATCH, Crops, Given, Maps, frozen_maps, scaled
from experiments.conflict.measure import conflict, cost, entropies, norms, scores
from experiments.conflict.seed_model import SeedDANet, SeedSerial
from experiments.conflict.variants import Fusion
from regard.ops.losses import weighted_sum

HERE = Path(__file__).parent
SHARED = HERE.parents[1].parent / "shared" / "data"
BUNDLED = HERE.parents[1] / "src" / "regard" / "bundled"
BACKBONE, WIDTH = "tf_efficientnet_lite0", 64
SEED_NETWORKS = {"seed_danet": SeedDANet, "seed_serial": SeedSerial}


@lru_cache(1)
def backbone(weights: Path) -> nn.Module:
    """With ImageNet weights if the file exists, else that of the bundled model of Dubai."""
    if weights.is_file():
        return regard.create("danet", classes=["a", "b"], backbone=BACKBONE, pretrained=weights).backbone
    return regard.load("dubai-s").backbone.float()


def build(arm: Arm, classes: regard.ClassMap, base: nn.Module, seed: int) -> nn.Module:
    """The arm's network with random heads; all arms get the same backbone."""
    torch.manual_seed(seed)
    if arm.network in SEED_NETWORKS:
        model = SEED_NETWORKS[arm.network](base, 320, len(classes), width=WIDTH, how=arm.defects)
    elif arm.network == "variant":
        card = regard.create("danet_ocr", classes=classes, backbone=BACKBONE, width=WIDTH).card
        torch.manual_seed(seed)
        model = Fusion(card, arm.variant)
    else:
        config = {"width": WIDTH, **({"key_width": WIDTH // 2} if arm.network != "danet" else {}), **arm.config}
        model = regard.create(arm.network, classes=classes, backbone=BACKBONE, **config)
    model.backbone = copy.deepcopy(base) if arm.backbone == "tuned" else Given()
    return model


class Study:
    """Data, backbone and the backbone's maps, for every arm."""

    def __init__(self, data: Path, weights: Path, *, steps: int, every: int, device: str = "cpu") -> None:
        self.crops, self.weights, self.every, self.device = Crops(data, steps, device), weights, every, device
        self.validation = self.crops.validation()
        self.maps = lru_cache(1)(self._maps)

    def _maps(self, seed: int, treatment: str, shuffled: bool) -> Maps:
        batch_norm = treatment == "batch"
        base = copy.deepcopy(backbone(self.weights)).to(self.device)
        return frozen_maps(base, self.crops, seed, every=self.every, batch_norm=batch_norm, shuffled=shuffled)

    def train(self, arm: Arm, seed: int) -> list[dict[str, Any]]:
        """Every line of the record of one run."""
        model = build(arm, self.crops.data.classes, backbone(self.weights), seed).to(self.device)
        maps = None if arm.backbone == "tuned" else self.maps(seed, arm.backbone, arm.shuffled)
        groups = [{"params": [p for name, p in model.named_parameters() if not name.startswith("backbone")]}]
        if maps is None:
            groups.append({"params": list(model.backbone.parameters()), "lr": arm.learning_rate / 10})
        adam = torch.optim.Adam(groups, lr=arm.learning_rate, weight_decay=arm.weight_decay)
        steps = self.crops.steps
        fall = LambdaLR(adam, lambda step: max(0.0, 1 - step / steps) ** 0.9 if arm.falling else 1.0)
        lines = []
        for step in range(steps + 1):
            if step % self.every == 0:
                lines.append({"step": step, **self.evaluate(model, maps and maps.val[step])})
            if step < steps:
                images, labels = self.crops.batch(seed, step, shuffled=arm.shuffled)
                if maps:
                    model.backbone.maps = maps.train[step]
                lines.append({"step": step, **take_step(model, adam, scaled(images), labels)})
                fall.step()
        if maps:
            model.backbone.maps = [x[:1] for x in maps.val[0][0]]
            lines.insert(0, cost(model, scaled(images[:1])))
        return lines

    def evaluate(self, model: nn.Module, maps: list[list[Tensor]] | None) -> dict[str, float]:
        model.eval()
        logits = []
        with torch.no_grad():
            for index, (images, _) in enumerate(self.validation):
                if maps:
                    model.backbone.maps = maps[index]
                logits.append(model.outputs(scaled(images))["main"])
        labels = torch.cat([labels for _, labels in self.validation])
        found = scores(torch.cat(logits), labels, len(self.crops.data.classes)) | norms(model)
        images, labels = self.validation[len(self.validation) // 2]
        if maps:
            model.backbone.maps = [x.clone().requires_grad_() for x in maps[len(maps) // 2]]
            found |= conflict(model, model.backbone.maps[-1], scaled(images), labels)
        return found | entropies(model, scaled(images))


def take_step(model: nn.Module, adam: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> dict[str, float]:
    model.train()
    losses = weighted_sum(model.outputs(images), labels, model.loss_weights)
    adam.zero_grad()
    losses["loss"].backward()
    gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    adam.step()
    return {"loss": float(losses["main"].detach()), "gradient": float(torch.stack(gradients).norm())}


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = (SHARED / "dubai").is_dir()
    parser.add_argument("--arms", nargs="+", default=["key"], help=f"names, or groups: {', '.join(GROUPS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=SHARED / "dubai" if there else BUNDLED / "city")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / f"{BACKBONE}.pth")
    parser.add_argument("--steps", type=int, help="default: the arm's")
    parser.add_argument("--every", type=int, default=40, help="steps between evaluations")
    parser.add_argument("--device", default="cpu", help="the records of the study are of a CPU")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "runs" / "conflict")
    return parser.parse_args()


def main() -> None:
    given = options()
    torch.use_deterministic_algorithms(True, warn_only=True)
    given.out.mkdir(parents=True, exist_ok=True)
    names = [name for asked in given.arms for name in GROUPS.get(asked, (asked,))]
    if given.steps:
        ARMS.update({name: replace(ARMS[name], steps=given.steps) for name in names})
    for steps in sorted({ARMS[name].steps for name in names}):
        study = Study(given.data, given.weights, steps=steps, every=given.every, device=given.device)
        run(study, [name for name in names if ARMS[name].steps == steps], given)


def run(study: Study, names: list[str], given: argparse.Namespace) -> None:
    for seed in given.seeds:
        constant = given.out / f"constant-{seed}.json"
        if not constant.exists() and any(ARMS[name].network in SEED_NETWORKS for name in names):
            constant.write_text(json.dumps(rounded(constant_answers(study.crops, seed))) + "\n", encoding="utf-8")
        # arms that share the backbone's maps run one after the other
        for name in sorted(names, key=lambda name: (ARMS[name].backbone, not ARMS[name].shuffled, names.index(name))):
            path, start = given.out / f"{name}-{seed}.jsonl", time.process_time()
            if path.exists():
                continue
            lines = study.train(ARMS[name], seed)
            head = {"arm": name, "seed": seed, "data": given.data.name, "batch": BATCH}
            head |= {"weights": given.weights.is_file(), "torch": torch.__version__, **asdict(ARMS[name])}
            head["cpu_seconds"] = round(time.process_time() - start, 1)
            part = path.with_suffix(".part")
            part.write_text("".join(json.dumps(rounded(line)) + "\n" for line in [head, *lines]), encoding="utf-8")
            part.rename(path)
            last = [line for line in lines if "val_loss" in line][-1]
            print(f"{name} {seed}: {head['cpu_seconds']} s, {rounded(last)}", flush=True)


if __name__ == "__main__":
    main()
