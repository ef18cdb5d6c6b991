"""Which module takes the output of a convolution, and nothing else does: found by a run on noise."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from regard.models import Segmenter
from regard.models.backbone import CONVOLUTIONS

SAMPLE = 64  # pixels a side of the noise


class Uses(TorchFunctionMode):
    """Counts how many operations take each tensor, and keeps the tensors so that none gets the identity of another.

    An operation is what makes another tensor or changes one; ``x.shape`` or ``x.float()`` of float32 is none. (The mode
    that sees what is dispatched would be plainer, but imports PyTorch's compiler: 150 MB and 1.6 s.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.alive: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors_in((args, kwargs))
        versions = _versions(given)
        found = func(*args, **(kwargs or {}))
        if versions != _versions(given) or _tensors_in(found).keys() - given.keys():
            self.count.update(given.keys())
        self.alive += given.values()
        return found


def _tensors_in(values: Any) -> dict[int, Tensor]:
    return {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


def _versions(tensors: dict[int, Tensor]) -> list[int]:
    """How often each was changed; weights made in inference mode do not tell."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors.values()]


def is_hooked(module: nn.Module) -> bool:
    """Whether it has hooks, by which timm takes some maps: they would not be called for what replaces it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@torch.inference_mode(False)
@torch.no_grad()
def followers(model: Segmenter, convs: tuple[type, ...], kinds: tuple[type, ...]) -> list[tuple[nn.Module, nn.Module]]:
    """The pairs of a convolution and the module of one of ``kinds`` that alone takes its output, at every call.

    A module that works in place may share the output with what comes after it, as that sees the result.
    """
    uses, made = Uses(), dict[int, nn.Module]()
    given: Counter[nn.Module] = Counter()
    took: Counter[nn.Module] = Counter()
    taken: list[tuple[nn.Module, nn.Module, int]] = []

    def note(conv: nn.Module, _: Any, output: Tensor) -> None:
        given[conv] += 1
        made[id(output)] = conv
        uses.alive.append(output)

    def take(module: nn.Module, inputs: tuple[Tensor]) -> None:
        took[module] += 1
        if id(inputs[0]) in made and not uses.count[id(inputs[0])]:
            taken.append((made[id(inputs[0])], module, id(inputs[0])))

    found = [module for module in model.modules() if not is_hooked(module)]
    handles = [module.register_forward_hook(note) for module in found if isinstance(module, convs)]
    handles += [module.register_forward_pre_hook(take) for module in found if isinstance(module, kinds)]
    with uses:
        model(torch.randn(1, len(model.bands), SAMPLE, SAMPLE).to(next(model.parameters())))
    for handle in handles:
        handle.remove()
    pairs = Counter(
        (conv, module) for conv, module, output in taken if uses.count[output] == 1 or getattr(module, "inplace", False)
    )
    return [pair for pair, times in pairs.items() if times == given[pair[0]] == took[pair[1]]]


def fold_norms(model: Segmenter) -> None:
    """Fold each batch norm into the convolution whose output it takes; an activation inside the norm stays."""
    names = {module: name for name, module in model.named_modules()}
    for conv, norm in followers(model, (nn.Conv2d,), (nn.BatchNorm2d,)):
        if type(conv) not in CONVOLUTIONS:
            continue  # another forward than its weights say, as standardised weights
        model.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        model.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))
