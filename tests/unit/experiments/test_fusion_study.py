"""The long study of the fusion: equal cost, a protocol that keeps val out of every choice, and its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import regard
from experiments.fusion import diagnose, plan, run, table
from experiments.fusion.arms import ARMS, DESIGNS, GMAC, RECIPE, SHORT_DESIGN, TOLERANCE
from experiments.fusion.plan import Run, Size, next_run, schedule
from regard.ops.losses import weighted_sum

ROOT = Path(__file__).parents[3]
FIVE = list("abcde")
QUICK = ("fcn", "danet", "ocrnet", "r2", "dual")


@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.nightly) for each in ARMS]
)
def test_every_network_costs_the_same(name: str) -> None:
    with torch.device("meta"):
        model = regard.create(ARMS[name].network, classes=FIVE, backbone=run.BACKBONE, **ARMS[name].settings).eval()
        with FlopCounterMode(display=False) as counter:
            model.logits(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(GMAC, rel=TOLERANCE)


def finished(until: str | None = None) -> dict[Run, float]:
    """The results of a study in which designs later in the list score higher, and 3e-3 is the best rate of all."""
    order, results = [*ARMS], dict[Run, float]()
    while (following := next_run(results)) is not None and following.stage != until:
        results[following] = 50 + order.index(following.arm) + (following.rate == 3e-3)
    return results


def test_the_schedule_ends_and_no_run_comes_twice() -> None:
    results = finished()
    assert len(list(schedule(results))) == len(results) == len({each.name for each in results})


def test_later_seeds_do_not_change_which_design_has_them() -> None:
    results = finished()
    more = [each for each in results if each.arm == [*DESIGNS][-1] and each.seed in Size().more_seeds]
    assert len(more) == 6
    assert next_run(results | dict.fromkeys(more, 0.0)) is None


def test_val_is_seen_only_when_everything_is_chosen() -> None:
    stages = [each.stage for each in finished()]
    assert [stage for stage, following in pairwise([*stages, ""]) if stage != following] == [
        "rung 1",
        "rung 2",
        "rates",
        "full",
    ]


def test_the_better_designs_and_the_best_rate_go_on() -> None:
    results = finished()
    designs = [*DESIGNS]
    assert {each.arm for each in results if each.stage == "rung 2"} == {*designs[-4:]}
    assert {each.arm for each in results if each.stage == "full"} & {*designs} == {*designs[-2:]}
    assert {each.rate for each in results if each.stage == "full"} == {3e-3}


def test_an_early_stop_leaves_whole_seeds() -> None:
    full = [each for each in finished() if each.stage == "full"]
    one_seed = 6 * len(Size().full_data)
    assert {each.seed for each in full[:one_seed]} == {0}
    assert {(each.arm, each.data) for each in full[:one_seed]} == {(each.arm, each.data) for each in full[:one_seed]}
    assert len({(each.arm, each.data) for each in full[:one_seed]}) == one_seed


def test_the_interval_is_student_s() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 6.0]
    assert table.interval(values) == pytest.approx((3.2, 2.776 * np.std(values, ddof=1) / 5**0.5), rel=1e-3)


def test_a_difference_is_to_the_better_parent_of_the_data_set() -> None:
    scores = {"danet": {0: 60.0, 1: 62.0}, "ocrnet": {0: 65.0, 1: 58.0}, "dual": {0: 63.0, 1: 64.0, 2: 99.0}}
    assert table.above(scores, "dual") == {0: -2.0, 1: 6.0}


def test_objects_are_sorted_by_their_pixels() -> None:
    labels = np.full((200, 200), 255)
    labels[:31, :33] = 0  # 1023 pixels
    labels[50:82, :32] = 0  # 1024
    labels[100:196, 100:196] = 1  # 9216
    sizes = diagnose.object_sizes(labels, 2)
    assert {value: (sizes == value).sum() for value in (-1, 0, 1, 2)} == {-1: 28737, 0: 1023, 1: 1024, 2: 9216}


@pytest.fixture(scope="module")
def dual() -> regard.models.Segmenter:
    torch.manual_seed(0)
    model = regard.create("study_dual", classes=FIVE, backbone=run.BACKBONE, width=16).double()
    model.position.gamma.data.fill_(1.0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model(torch.randn(2, 3, 32, 40, dtype=torch.float64))  # statistics of a batch: else all maps are near zero
    return model.eval()


def test_the_entropy_is_that_of_the_weights(dual: regard.models.Segmenter) -> None:
    torch.manual_seed(1)
    image = torch.randn(2, 3, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        found = diagnose.entropies(dual, image)["entropy_position"]
        x = dual.position_in(dual.backbone(image)[-1])
        query, key = (conv(x).flatten(2).numpy() for conv in (dual.position.query, dual.position.key))
    rows = [np.exp(key[b].T @ query[b][:, i]) for b in range(2) for i in range(20)]
    weights = [row / row.sum() for row in rows]
    assert found == pytest.approx(mean(-(w * np.log(w)).sum() for w in weights) / np.log(20), abs=1e-9)


def test_a_context_that_is_alike_everywhere_has_no_share(dual: regard.models.Segmenter) -> None:
    image = torch.randn(1, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shares = diagnose.context_shares(dual, image)
        for context in dual.contexts:
            context.pixel[-1][1].weight.data.zero_()  # all queries alike
        flat = diagnose.context_shares(dual, image)
    assert shares["share_objects"] > 1e-8
    assert flat["share_objects"] < 1e-20
    assert flat["share_position"] > 1e-8


def test_the_gradients_compared_are_those_of_disjoint_paths(dual: regard.models.Segmenter) -> None:
    torch.manual_seed(3)
    image, labels = torch.randn(2, 3, 32, 40, dtype=torch.float64), torch.randint(5, (2, 32, 40))
    leaves = [dual.backbone(image)[-1].detach().requires_grad_() for _ in range(2)]  # for the branch, and for the rest

    def gradient(leaf: int, cut: bool) -> torch.Tensor:
        hooks = [
            context.up.register_forward_hook(lambda _, __, x: x.detach() if cut else x) for context in dual.contexts
        ]
        hooks.append(dual.position_in.register_forward_pre_hook(lambda _, __: (leaves[0],)))
        hooks.append(dual.backbone.register_forward_hook(lambda _, __, maps: [*maps[:-1], leaves[1]]))
        loss = weighted_sum(dual.outputs(image), labels, dual.loss_weights)["loss"]
        for hook in hooks:
            hook.remove()
        return torch.autograd.grad(loss, leaves[leaf])[0].flatten()

    position, objects = gradient(0, cut=True), gradient(1, cut=False) - gradient(1, cut=True)
    expected = float(position @ objects / position.norm() / objects.norm())
    assert diagnose.conflict(dual, image, labels)["gradient_cosine"] == pytest.approx(expected, abs=1e-9)
    assert abs(expected) > 1e-3


@pytest.fixture
def study(tmp_path: Path) -> run.Study:
    folder, rng = tmp_path / "dubai", np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    names = {"train": ["t1_p1", "t1_p3", "t2_p3", "t2_p8"], "val": ["t1_p2"]}
    for split, stems in names.items():
        (folder / f"{split}.txt").write_text("\n".join(stems))
        for stem in stems:
            labels = np.zeros((48, 48), np.uint8)
            labels[8:30, 8:30] = 1
            pixels = 100 * labels[..., None] + rng.integers(0, 50, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{stem}.png")
            Image.fromarray(labels).save(folder / "masks" / f"{stem}.png")
    (folder / "classes.json").write_text(json.dumps({"names": ["land", "building"]}))
    (tmp_path / "out" / "records").mkdir(parents=True)
    return run.Study(tmp_path, tmp_path / "out", RECIPE | {"crop": 32, "batch": 2})


def stopping(at: int) -> Callable[..., None]:
    """A callback's method that ends the process's work at the end of a step."""

    def stop(_: object, trainer: Any, *__: object) -> None:
        if trainer.global_step == at:
            raise KeyboardInterrupt

    return stop


def test_the_short_form_records_each_network_once(study: run.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RECIPE", study.recipe)
    monkeypatch.setattr(plan, "BASELINES", ("danet",))
    monkeypatch.setattr("sys.argv", ["run", str(study.source), "--out", str(study.out), "--short", "--steps", "2"])
    run.main()
    found = table.runs_of(run.read_records(study.out / "records"))
    assert [each.arm for each in found] == ["danet", SHORT_DESIGN]
    assert all([line["step"] for line in lines if "miou" in line] == [2] for lines in found.values())
    monkeypatch.setattr(run.Study, "train", None)  # nothing is left to do
    run.main()
    assert [row.split(" | ")[0] for row in table.main_table(found).splitlines()[2:]] == [
        f"| {ARMS[arm].title}" for arm in ("danet", SHORT_DESIGN)
    ]


@pytest.mark.nightly
def test_a_killed_run_resumes_with_the_same_numbers(study: run.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "KEPT_EVERY", 2)
    planned = Run("rung 1", "dual-gate", "dubai", 0, 1e-3, 5)
    whole, folder = study.train(planned), study.out / "runs" / planned.name
    lines = run.read_metrics(folder)
    run.shutil.rmtree(folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.Keep, "on_train_batch_end", stopping(at=4), raising=False)
        study.train(planned)
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    assert [line for line in study.train(planned) if "miou" in line] == [line for line in whole if "miou" in line]
    assert run.read_metrics(folder) == lines


def test_designs_are_chosen_without_val(study: run.Study) -> None:
    data = run.part_of(run.read("dubai", study.source, study.out), "dubai", "rung 1")
    assert {split: [pair.name for pair in pairs] for split, pairs in data.splits.items()} == {
        "train": ["t1_p3", "t2_p3"],
        "val": ["t1_p1", "t2_p8"],
    }


@pytest.fixture(scope="module")
def recorded() -> run.Records:
    if not table.RECORDS.is_file():
        pytest.skip("no run of the study is recorded yet")
    return run.read_records(table.RECORDS)


def test_the_page_follows_from_the_records(recorded: run.Records) -> None:
    """Renew it with: python -m experiments.fusion.table --page docs/study.md."""
    assert table.page(recorded) in (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


def test_what_is_recorded_was_planned_and_cost_the_same(recorded: run.Records) -> None:
    results = run.results_of(recorded)
    planned = [each for each, _ in zip(schedule(results), results, strict=False)]
    assert set(planned) == set(results)
    assert all(abs(lines[0]["gmac"] / GMAC - 1) < TOLERANCE for lines in recorded.values())
