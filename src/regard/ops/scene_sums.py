"""What context modules sum over pixels, taken over all pixels of a scene: added window by window, then given to each.

Each class stands in the place of the function that takes the sum over one image. Sums are in float64, so their order
does not show; a cell that several windows share counts in each by its weight, which add up to one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from regard.ops.attention import attend, gather_objects

TINY = torch.finfo(torch.float64).tiny  # of a scene without data
FAR_CELLS = 1024  # of the summary of a scene that position attention looks at, at most


class Enough(Exception):
    """All that this pass adds has been added: what the network would compute further is not needed."""


class Place:
    """Where the windows lie whose features are computed now, by image of the batch, in cells of the network's grid."""

    weight: Float[Tensor, "b h w"]  # how much each cell counts: it is shared with other windows, or holds no data
    inside: Float[Tensor, "b h w"]  # how much of each cell is of the scene and holds data
    rows: Integer[Tensor, "b h"]
    columns: Integer[Tensor, "b w"]
    size: tuple[int, int]  # of the scene
    left: int  # how many sums of this pass have not been met in this forward pass


class SceneSum(ABC):
    """A sum over the pixels of a scene: it waits for others that it depends on, is ``adding``, and then ``given``.

    Until it is given it gives something of the right shape, which nothing that is added depends on (see ``depths``).
    """

    def __init__(self, place: Place) -> None:
        self.place, self.adding, self.given = place, False, False
        self.state: dict[str, Tensor] = {}
        self.shaken = 0.0  # the size of noise in what it gives
        self.seen: list[tuple[Tensor, ...]] | None = None  # its arguments, where they are recorded

    def is_known(self, *found: Tensor) -> bool:
        """Whether the sum is given; if it is not, and it is time, add what this forward pass has found."""
        if self.seen is not None:
            self.seen.append(tuple(tensor.clone() for tensor in found))
        if self.adding:
            for number in range(len(found[0])):
                self.add(number, *(tensor[number] for tensor in found))
            self.place.left -= 1
            if not self.place.left:
                raise Enough
        return self.given

    def unknown(self, result: Tensor) -> Tensor:
        """What it gives until it is given."""
        return result + self.shaken * torch.randn_like(result) if self.shaken else result

    @abstractmethod
    def add(self, number: int, *found: Tensor) -> None:
        """Add the pixels of one window, the ``number``-th of the batch."""

    def weights(self, number: int) -> Float[Tensor, " n"]:
        """The weight of each pixel of a window."""
        return self.place.weight[number].flatten().double()


class SceneChannels(SceneSum):
    """Channel attention by energies that are summed over a scene; until they are known it adds nothing."""

    def __call__(self, channels: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
        if not self.is_known(channels):
            return self.unknown(torch.zeros_like(channels))
        return self.mixing().to(channels) @ channels

    def mixing(self) -> Float[Tensor, "c c"]:
        """The weight of each channel in what another one adds."""
        return (-self.state["products"]).softmax(dim=1)

    def add(self, number: int, channels: Float[Tensor, "c n"]) -> None:  # type: ignore[override]
        exact = channels.double()
        products = (exact * self.weights(number)) @ exact.t()
        self.state["products"] = self.state["products"] + products if self.state else products


class SceneRegions(SceneSum):
    """:func:`~regard.ops.attention.gather_objects` over a scene: a running maximum and sums, as blockwise attention.

    The regions of ``behind`` channel attention are a linear function of those before it, and so need no other pass.
    """

    behind: tuple[SceneChannels, Float[Tensor, "1"]] | None = None  # with the gate of the attention

    def __call__(self, tokens: Float[Tensor, "b n c"], region_logits: Float[Tensor, "b k n"]) -> Float[Tensor, "b k c"]:
        if not self.is_known(tokens, region_logits):
            return self.unknown(gather_objects(tokens, region_logits))
        mean = self.state["sums"] / self.state["total"].clamp_min(TINY)[:, None]
        if self.behind is not None:
            channels, gate = self.behind
            mean = mean + gate.double() * (mean @ channels.mixing().t())
        return mean.to(tokens).expand(len(tokens), -1, -1)

    def add(self, number: int, tokens: Float[Tensor, "n c"], region_logits: Float[Tensor, "k n"]) -> None:  # type: ignore[override]
        weight, logits, state = self.weights(number), region_logits.double(), self.state
        logits = logits.masked_fill(weight <= 0, -torch.inf)
        if not state:
            state |= {
                "maximum": logits.new_full((len(logits),), torch.finfo(torch.float64).min),
                "total": logits.new_zeros(len(logits)),
                "sums": logits.new_zeros(len(logits), tokens.shape[1]),
            }
        maximum = torch.maximum(state["maximum"], logits.amax(dim=1))
        before, shares = (state["maximum"] - maximum).exp(), (logits - maximum[:, None]).exp() * weight
        state["total"] = state["total"] * before + shares.sum(dim=1)
        state["sums"] = state["sums"] * before[:, None] + shares @ tokens.double()
        state["maximum"] = maximum


class SceneMean(SceneSum, nn.Module):
    """The mean of each channel over a scene, in the place of ``nn.AdaptiveAvgPool2d(1)``."""

    def __init__(self, place: Place) -> None:
        nn.Module.__init__(self)
        SceneSum.__init__(self, place)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        if not self.is_known(x):
            return self.unknown(x.mean(dim=(2, 3), keepdim=True))
        return (self.state["sums"] / self.state["total"].clamp_min(TINY)).to(x).expand(len(x), -1)[..., None, None]

    def add(self, number: int, x: Float[Tensor, "c h w"]) -> None:  # type: ignore[override]
        weight = self.weights(number)
        sums, total = x.flatten(1).double() @ weight, weight.sum()
        before = self.state or {"sums": torch.zeros_like(sums), "total": torch.zeros_like(total)}
        self.state = {"sums": before["sums"] + sums, "total": before["total"] + total}


class SceneSummary(SceneSum):
    """:func:`~regard.ops.attention.attend` to the pixels of the window, and to the scene's others by a summary of them.

    The scene is cut into at most 1,024 squares. The mean key and value of a square stand for those of its pixels that
    lie outside the window: a key that stands for n pixels has log n added to its energies, so it weighs as n.
    """

    def __call__(
        self,
        query: Float[Tensor, "b n d"],
        key: Float[Tensor, "b m d"],
        value: Float[Tensor, "b m c"],
        *,
        scale: float = 1.0,
    ) -> Float[Tensor, "b n c"]:
        if not self.is_known(key, value):
            return self.unknown(value.new_zeros(*query.shape[:2], value.shape[2]))
        outside = torch.stack([self._outside(number) for number in range(len(key))]).to(key)
        count = self.state["count"].clamp_min(1e-9)[:, None]
        far_key, far_value = (
            (self.state[name] / count).to(value).expand(len(key), -1, -1) for name in ("keys", "values")
        )
        added = torch.cat([key.new_zeros(*key.shape[:2], 1), outside.log()[..., None] / scale], dim=1)
        keys = torch.cat([torch.cat([key, far_key.to(key)], dim=1), added.clamp_min(-1e30)], dim=2)
        ones = query.new_ones(*query.shape[:2], 1).transpose(1, 2)
        queries = torch.cat([query.transpose(1, 2), ones], dim=1).transpose(1, 2)
        return attend(queries, keys, torch.cat([value, far_value], dim=1), scale=scale)

    def add(self, number: int, key: Float[Tensor, "m d"], value: Float[Tensor, "m c"]) -> None:  # type: ignore[override]
        square, count = self._squares(number)
        if not self.state:
            widths = {"keys": key.shape[1], "values": value.shape[1]}
            self.state = {name: key.new_zeros(count, width, dtype=torch.float64) for name, width in widths.items()}
            self.state["count"] = key.new_zeros(count, dtype=torch.float64)
        weight = self.weights(number)
        self.state["count"].index_add_(0, square, weight)
        for name, tokens in (("keys", key), ("values", value)):
            self.state[name].index_add_(0, square, tokens.double() * weight[:, None])

    def _outside(self, number: int) -> Float[Tensor, " squares"]:
        """How many pixels of each square lie outside the window; 0 where it is less than one."""
        square, _ = self._squares(number)
        own = torch.zeros_like(self.state["count"]).index_add_(0, square, self.place.inside[number].flatten().double())
        left = self.state["count"] - own
        return left.where(left >= 1, 0)

    def _squares(self, number: int) -> tuple[Integer[Tensor, " n"], int]:
        """The square of each pixel of a window, and how many squares the scene has."""
        height, width = self.place.size
        side = side_of_squares((height, width))
        down, across = -(-height // side), -(-width // side)
        rows = self.place.rows[number].clamp_max(height - 1) // side
        columns = self.place.columns[number].clamp_max(width - 1) // side
        return (rows[:, None] * across + columns).flatten(), down * across


def side_of_squares(size: tuple[int, int]) -> int:
    """The least power of two with which the squares over a scene of ``size`` are few enough."""
    side = 1
    while -(-size[0] // side) * -(-size[1] // side) > FAR_CELLS:
        side *= 2
    return side
