"""What holds for every context block because all are one function; and how the seed's code breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regard.blocks import ChannelAttention, NonLocal, NonLocalPosition, ObjectContext, PositionAttention, SqueezeExcite
from regard.models.danet_ocr import PositionContext
from regard.ops.attention import gather_objects, to_tokens

CHANNELS, REGIONS, SIZE = 16, 5, (6, 9)


class PositionBranch(nn.Module):
    """The fusion's position branch as one block of pixels and regions."""

    def __init__(self, *, by_region: bool) -> None:
        super().__init__()
        self.attention = NonLocalPosition(CHANNELS)
        self.context = PositionContext(CHANNELS, by_region=by_region)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        return self.context(self.attention.embed(pixels), regions)


OF_PIXELS: dict[str, Callable[[], nn.Module]] = {
    "position attention": lambda: PositionAttention(CHANNELS, reduction=4),
    "channel attention": ChannelAttention,
    "non-local": lambda: NonLocal(CHANNELS),
    "non-local position": lambda: NonLocalPosition(CHANNELS, reduction=4),
    "squeeze-excite": lambda: SqueezeExcite(CHANNELS, reduction=4),
}
OF_REGIONS: dict[str, Callable[[], nn.Module]] = {
    "object context": lambda: ObjectContext(CHANNELS, 8),
    "position context R2": lambda: PositionBranch(by_region=True),
    "position context R1": lambda: PositionBranch(by_region=False),
}
BLOCKS = OF_PIXELS | OF_REGIONS


def shaken(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A block in eval mode whose every parameter and statistic is random, gamma and alpha not zero."""
    torch.manual_seed(seed)
    block = build()
    for name, parameter in block.named_parameters():
        nn.init.constant_(parameter, 0.7) if name.endswith(("gamma", "alpha")) else nn.init.normal_(parameter, std=0.4)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block.eval()


def inputs(name: str, *, batch: int = 2, size: tuple[int, int] = SIZE) -> tuple[Tensor, ...]:
    """Pixels, and regions where the block asks for them."""
    pixels, regions = torch.randn(batch, CHANNELS, *size), 2 * torch.randn(batch, REGIONS, *size)
    return (pixels, regions) if name in OF_REGIONS else (pixels,)


def permuted(x: Tensor, order: Tensor) -> Tensor:
    """The same pixels in another order."""
    return x.flatten(2)[:, :, order].unflatten(2, x.shape[2:])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_permuted_pixels_give_the_permuted_result(name: str, seed: int):
    block, given = shaken(BLOCKS[name], seed), inputs(name)
    order = torch.randperm(SIZE[0] * SIZE[1])
    expected = permuted(block(*given), order)
    assert expected.std() > 0.01  # not one value everywhere, which would pass any permutation
    torch.testing.assert_close(block(*(permuted(x, order) for x in given)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_each_image_of_a_batch_is_treated_alone(name: str):
    block, given = shaken(BLOCKS[name], 2), inputs(name, batch=3)
    alone = [block(*(x[index : index + 1] for x in given)) for index in range(3)]
    torch.testing.assert_close(block(*given), torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_sizes_of_one_keep_their_axes(name: str, size: tuple[int, int]):
    given = inputs(name, batch=1, size=size)
    assert shaken(BLOCKS[name], 3)(*given).shape == given[0].shape


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_memory_layout_does_not_matter(name: str):
    block, given = shaken(BLOCKS[name], 4), inputs(name)
    layouts = (lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x.mT.contiguous().mT)
    for layout in layouts:
        torch.testing.assert_close(block(*map(layout, given)), block(*given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["position attention", "channel attention"])
def test_gamma_zero_is_the_identity(name: str):
    torch.manual_seed(5)
    block, (pixels,) = OF_PIXELS[name](), inputs(name)
    assert torch.equal(block(pixels), pixels)  # gamma starts at 0
    block.gamma.data.fill_(0.5)
    assert not torch.allclose(block(pixels), pixels, atol=1e-3)


def test_alpha_zero_leaves_the_assembled_pixels():
    torch.manual_seed(6)
    block, (pixels,) = OF_PIXELS["non-local position"](), inputs("non-local position")
    assert torch.equal(block(pixels), block.assemble(pixels))


def test_every_parameter_learns_once_gamma_is_not_zero():
    for name, build in BLOCKS.items():
        block = shaken(build, 7).train()
        (block(*inputs(name)) ** 2).sum().backward()
        idle = {part for part, value in block.named_parameters() if value.grad is None or not value.grad.abs().sum()}
        # A bias of the keys shifts all energies of a query alike, so softmax cancels it: no gradient but rounding.
        assert not idle - {"key.bias"}, f"{name}: {idle}"


def test_gather_does_not_mind_the_order_of_pixels():
    tokens, logits, order = torch.randn(2, 40, 8), torch.randn(2, 5, 40) * 3, torch.randperm(40)
    torch.testing.assert_close(gather_objects(tokens[:, order], logits[:, :, order]), gather_objects(tokens, logits))


def one_hot_regions(labels: Tensor, count: int) -> Tensor:
    """Saturated region logits of a label map: softmax over pixels is 1/size inside a region, 0 outside."""
    return 1e4 * nn.functional.one_hot(labels, count).movedim(-1, 1).float()


def class_means(pixels: Tensor, labels: Tensor, count: int) -> Tensor:
    """(b, k, c) by the loop."""
    means = [
        [image[:, label == k].mean(dim=1) for k in range(count)] for image, label in zip(pixels, labels, strict=True)
    ]
    return torch.stack([torch.stack(image) for image in means])


def labelled_pixels() -> tuple[Tensor, Tensor]:
    labels = torch.randint(REGIONS, (2, *SIZE))
    labels[:, 0, :REGIONS] = torch.arange(REGIONS)  # each region has a pixel
    return torch.randn(2, CHANNELS, *SIZE), labels


def test_gather_of_saturated_regions_is_the_mean_of_each_class():
    pixels, labels = labelled_pixels()
    expected = class_means(pixels, labels, REGIONS)
    regions = one_hot_regions(labels, REGIONS)
    torch.testing.assert_close(gather_objects(to_tokens(pixels), regions.flatten(2)), expected)
    objects = ObjectContext(CHANNELS, 8).gather(pixels, regions)
    torch.testing.assert_close(objects.squeeze(-1).transpose(1, 2), expected)


def changed_pixels(function: Callable[[Tensor], Tensor], pixels: Tensor) -> list[tuple[int, ...]]:
    """Where the result changes (image, row, column) when the pixel (0, 2, 3) does."""
    moved = pixels.clone()
    moved[0, :, 2, 3] += 1.0
    difference = (function(moved) - function(pixels)).abs().amax(dim=1)
    return [tuple(place) for place in (difference > 1e-5).nonzero().tolist()]


@torch.no_grad()
def test_one_pixel_changes_one_row_of_distribute():
    block, (pixels, _) = shaken(OF_REGIONS["object context"], 8), inputs("object context")
    objects = torch.randn(2, CHANNELS, REGIONS, 1)
    assert changed_pixels(lambda x: block.distribute(x, objects), pixels) == [(0, 2, 3)]


@pytest.mark.parametrize("by_region", [True, False])
@torch.no_grad()
def test_one_pixel_of_the_query_changes_one_row_of_position_context(by_region: bool):
    branch, (pixels, regions) = shaken(lambda: PositionBranch(by_region=by_region), 9), inputs("position context R2")
    embedded = branch.attention.embed(pixels)
    assert changed_pixels(lambda x: branch.context(embedded._replace(output=x), regions), pixels) == [(0, 2, 3)]


@torch.no_grad()
def test_channels_that_look_alike_weigh_less():
    block = ChannelAttention()
    block.gamma.data.fill_(1.0)
    pixels = torch.randn(1, 4, 3, 3)
    tokens = pixels.flatten(2)
    energies = tokens @ tokens.transpose(1, 2)
    published = (energies.max(dim=-1, keepdim=True).values - energies).softmax(dim=-1) @ tokens  # the authors' lines
    torch.testing.assert_close(block(pixels), published.unflatten(2, (3, 3)) + pixels)


class SeedsContext(nn.Module):
    """The seed project's object context as published, without its norms (reference/spec.md e.3, D1 to D3): do not copy.

    ``.view(n, -1, c)`` of a map (n, c, h, w) reinterprets memory: a row mixes channels and pixels, no shape complains.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    @staticmethod
    def gather(features: Tensor, regions: Tensor) -> Tensor:
        n, k, c = *regions.shape[:2], features.shape[1]
        probabilities = regions.view(n, k, -1).softmax(dim=2)
        return (probabilities @ features.view(n, -1, c)).unsqueeze(3)

    def distribute(self, features: Tensor, objects: Tensor) -> Tensor:
        n, c, h, w = features.shape
        query = self.to_q(features).view(n, -1, c)
        key, value = self.to_k(objects).view(n, c, -1), self.to_v(objects).view(n, -1, c)
        return (query @ key * c**-0.5).softmax(dim=-1).matmul(value).view(n, c, h, w)


@torch.no_grad()
def test_the_seeds_gather_is_caught_by_these_properties():
    pixels, labels = labelled_pixels()
    regions, order = one_hot_regions(labels, REGIONS), torch.randperm(SIZE[0] * SIZE[1])
    scrambled = SeedsContext.gather(pixels, regions)
    assert scrambled.shape == (2, REGIONS, CHANNELS, 1)  # D2: regions where convolutions expect channels
    expected = class_means(pixels, labels, REGIONS)
    assert (scrambled.squeeze(3) - expected).norm() > 0.5 * expected.norm()
    moved = SeedsContext.gather(permuted(pixels, order), permuted(regions, order))
    assert (moved - scrambled).norm() > 0.5 * scrambled.norm()


@torch.no_grad()
def test_the_seeds_gather_of_channel_j_constant_j_is_not_j():
    pixels = torch.arange(16.0)[:, None, None].expand(16, 8, 8)[None].contiguous()
    regions = torch.zeros(1, 16, 8, 8)
    assert (SeedsContext.gather(pixels, regions) - 7.5).abs().max() < 1e-4  # the mean of all channels in every entry
    right = gather_objects(to_tokens(pixels), regions.flatten(2))
    torch.testing.assert_close(right, torch.arange(16.0).expand(1, 16, 16))


@torch.no_grad()
def test_the_seeds_distribute_is_caught_by_these_properties():
    torch.manual_seed(10)
    block, pixels = SeedsContext(16), torch.randn(1, 16, 8, 8)
    objects, order = torch.randn(1, 16, 16, 1), torch.randperm(64)
    assert len(changed_pixels(lambda x: block.distribute(x, objects), pixels)) > 1
    expected = permuted(block.distribute(pixels, objects), order)
    assert (block.distribute(permuted(pixels, order), objects) - expected).norm() > 0.5 * expected.norm()
