"""The rename engine on tensors of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regard.blocks import conv_block
from regard.checkpoints.foreign.openseg import positive_scales
from regard.checkpoints.foreign.rename import Family, reconcile, rename, translate
from regard.errors import CheckpointError
from regard.tensor_files import strip


def family(**parts) -> Family:
    return Family(
        **{"name": "toy", "architecture": "danet", "signature": ("a.weight",), "table": {}, "licence": "", **parts}
    )


def test_the_longest_whole_part_wins():
    table = {"a": "x", "a.b": "y", "a.b.c.weight": "z"}
    assert translate("a.b.c.weight", table) == "z"
    assert translate("a.b.c.bias", table) == "y.c.bias"
    assert translate("a.bb.weight", table) == "x.bb.weight"
    assert translate("ab.weight", table) is None


def test_every_tensor_is_renamed_dropped_or_an_error():
    tensors = {"a.weight": torch.ones(1), "loss.weight": torch.ones(1)}
    renamed, dropped = rename(tensors, family(table={"a": "x"}, drops=("loss",)))
    assert list(renamed) == ["x.weight"] and dropped == ["loss.weight"]
    with pytest.raises(CheckpointError, match=r"1 tensors have no place in danet \(toy\): losses\.weight"):
        rename({**tensors, "losses.weight": torch.ones(1)}, family(table={"a": "x"}, drops=("loss",)))


def test_two_tensors_of_one_name_are_an_error():
    with pytest.raises(CheckpointError, match=r"b\.weight"):
        rename({"a.weight": torch.ones(1), "b.weight": torch.ones(1)}, family(table={"a": "x", "b": "x"}))


@given(st.lists(st.sampled_from(["module.", "model.", "_orig_mod."]), max_size=3))
def test_wrappers_are_taken_off_in_any_order(prefixes: list[str]):
    name = "".join(prefixes) + "conv.weight"
    assert list(strip({name: torch.ones(1)})) == ["conv.weight"]


def test_the_mark_of_a_compiled_part_is_taken_out():
    names = ["backbone._orig_mod.conv.weight", "head._orig_modal.weight", "a.module.weight"]
    expected = ["backbone.conv.weight", "head._orig_modal.weight", "a.module.weight"]
    assert list(strip(dict.fromkeys(names, torch.ones(1)))) == expected


def test_what_stands_next_to_the_wrapped_tensors_stays():
    assert set(strip({"model.a": torch.ones(1), "loss.w": torch.ones(1)})) == {"a", "loss.w"}


def test_folding_a_bias_changes_nothing_in_evaluation():
    biased = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU()).eval()
    with torch.no_grad():
        for value in [*biased.parameters(), biased[1].running_mean]:
            value.normal_()
        biased[1].running_var.uniform_(0.5, 2)
    ours = conv_block(3, 5, 3).eval()
    prefixed = {f"block.{name}": value for name, value in ours.state_dict().items()}
    reconciled, folded = reconcile({f"block.{name}": value for name, value in biased.state_dict().items()}, prefixed)
    assert folded == ["block.0.bias"]
    ours.load_state_dict({name.removeprefix("block."): value for name, value in reconciled.items()})
    image = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(ours(image), biased(image), rtol=1e-5, atol=1e-5)
    assert biased[0].bias.abs().max() > 0.1


def test_a_bias_without_a_batch_norm_is_not_lost_in_silence():
    reconciled, folded = reconcile({"block.0.bias": torch.ones(3)}, {"block.0.weight": torch.ones(3)})
    assert folded == [] and "block.0.bias" in reconciled  # fitting refuses it by name


def test_scalars_counters_and_absent_biases():
    own = {
        "gamma": torch.ones(1),
        "n.num_batches_tracked": torch.tensor(0),
        "q.bias": torch.ones(4),
        "w": torch.ones(2),
    }
    reconciled, _ = reconcile({"gamma": torch.tensor(0.5)}, own, zeros=("q.bias",))
    assert reconciled["gamma"].tolist() == [0.5] and reconciled["q.bias"].tolist() == [0, 0, 0, 0]
    assert reconciled["n.num_batches_tracked"].dtype == torch.int64 and "w" not in reconciled


def test_only_batch_norms_get_positive_scales():
    tensors = {
        "n.weight": torch.tensor([-2.0, 3.0]),
        "n.running_mean": torch.zeros(2),
        "c.weight": torch.tensor([-1.0]),
    }
    positive = positive_scales(tensors)
    torch.testing.assert_close(positive["n.weight"], torch.tensor([2.00001, 3.00001]))
    assert positive["c.weight"].item() == -1
