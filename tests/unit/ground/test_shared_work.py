"""Work shared by processes, in one process that plays each of them; two true ones are in test_distributed (slow)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from regard import distributed as module
from regard.distributed import distributed_map, process_group, rank_and_size, share_buffers


@pytest.mark.parametrize("rank", range(3))
def test_every_process_has_all_results_in_order(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Process i computes the items i, i + 3, ..."""
    parts = [([0, 9], None), ([1, 16], None), ([4], None)]

    def gather(target: list[Any], own: Any) -> None:
        assert own == parts[rank]
        target[:] = parts

    monkeypatch.setattr(module, "rank_and_size", lambda: (rank, 3))
    monkeypatch.setattr(module.distributed, "all_gather_object", gather)
    assert distributed_map(lambda item: item**2, range(5)) == [0, 1, 4, 9, 16]


def test_what_one_process_raises_is_raised_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = [([1], None), ([], ValueError("item 1 is dark"))]
    monkeypatch.setattr(
        module.distributed, "all_gather_object", lambda target, _: target.__setitem__(slice(2), gathered)
    )
    for rank in (0, 1):
        monkeypatch.setattr(module, "rank_and_size", lambda rank=rank: (rank, 2))
        with pytest.raises(ValueError, match="item 1 is dark"):
            distributed_map(lambda item: item, [0, 1])


def test_a_fault_of_ones_own_reaches_the_others_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def gather(target: list[Any], own: Any) -> None:
        sent.append(own)
        target[:] = [own, ([], None)]

    monkeypatch.setattr(module, "rank_and_size", lambda: (0, 2))
    monkeypatch.setattr(module.distributed, "all_gather_object", gather)
    with pytest.raises(ZeroDivisionError):
        distributed_map(lambda item: 1 // item, [0, 1])
    assert isinstance(sent[0][1], ZeroDivisionError)


def test_buffers_are_those_of_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Size, int]] = []
    monkeypatch.setattr(module.distributed, "broadcast", lambda value, source: seen.append((value.shape, source)))
    share_buffers(nn.BatchNorm2d(4))
    assert not seen and rank_and_size() == (0, 1), "alone"
    monkeypatch.setattr(module, "rank_and_size", lambda: (1, 2))
    share_buffers(nn.BatchNorm2d(4))
    assert seen == [(torch.Size([4]), 0)] * 2 + [(torch.Size([]), 0)]


@pytest.mark.parametrize(("size", "rank", "first"), [("1", 0, True), ("2", 0, True), ("2", 1, False)])
def test_a_group_is_joined_where_there_is_one_and_left_again(
    monkeypatch: pytest.MonkeyPatch, size: str, rank: int, first: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setattr(module.distributed, "init_process_group", calls.append)
    monkeypatch.setattr(module.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(module.distributed, "destroy_process_group", lambda: calls.append("left"))
    with pytest.raises(KeyError), process_group() as is_first:
        assert is_first is first
        raise KeyError
    assert calls == ([] if size == "1" else ["gloo", "left"])
