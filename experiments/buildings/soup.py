"""The mean of several trained models' weights, with the logit of building lowered.

    python -m experiments.buildings.soup OUT.safetensors DATA 1:A.safetensors 2:B.safetensors --lower 0.5

Source: Wortsman et al., Model soups, 2022, arXiv 2203.05482. The card is the last model's, with the mean's scores on
the split val of DATA.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import regard
from regard.checkpoints.file import load, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, help="a folder as regard train takes it")
    parser.add_argument("models", nargs="+", help="weight:file, of one network trained further and further")
    parser.add_argument("--lower", type=float, default=0.0, help="taken from the logit of building")
    given = parser.parse_args()
    shares, files = zip(*(text.split(":", 1) for text in given.models), strict=True)
    weights = torch.tensor([float(share) for share in shares])
    weights /= weights.sum()
    networks = [load(Path(file)) for file in files]
    states = [network.state_dict() for network in networks]
    with torch.no_grad():
        for name, tensor in states[-1].items():
            if tensor.is_floating_point():
                tensor.copy_(sum(weight * state[name] for weight, state in zip(weights, states, strict=True)))
        networks[-1].classify.bias[networks[-1].classes.names.index("building")] -= given.lower
    mean = networks[-1]
    mean.card = mean.card.model_copy(update={"scores": regard.evaluate(mean, regard.folder(given.data)).summary()})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save(mean, given.out)
    print(mean.card.scores)


if __name__ == "__main__":
    main()
