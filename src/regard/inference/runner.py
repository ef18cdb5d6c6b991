"""A trained network that something else computes: another program, or other numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.card import Card
from regard.models.segmenter import ModelConfig, Segmenter

Run = Callable[[Tensor], Tensor]


class Runner(Segmenter):
    """``run`` gives the main logits on the network's own grid; ``mark`` (32 bytes) tells it from any other network."""

    def __init__(self, card: Card, run: Run, *, stride: int, mark: bytes, network: Segmenter | None = None) -> None:
        super().__init__(card)
        self.run, self.stride, self.fast = run, stride, True
        self.config = ModelConfig(align_corners=card.config.get("align_corners", False))
        self.network = network  # so that it moves to a device with this
        self.mark = nn.Parameter(torch.tensor(list(mark), dtype=torch.float32), requires_grad=False)

    def main_logits(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k _ _"]:
        return self.run(image)

    def logits(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b k _ _"]]:
        return {"main": self.run(image)}

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.at_size_of(image, self.run(image))


def in_bfloat16(network: Segmenter) -> Runner:
    """``network`` with products and convolutions in bfloat16; energies of attention and the logits stay in float32."""

    def run(image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16):
            return network.main_logits(image).float()

    return Runner(network.card, run, stride=network.stride, mark=b"bfloat16".ljust(32), network=network)


def has_fast_bfloat16(device: str) -> bool:
    """Whether products of bfloat16 are faster than of float32 there: CUDA, or AMX or AVX512-BF16 in the processor."""
    if device != "cpu":
        return device.startswith("cuda") and torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
