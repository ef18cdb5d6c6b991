"""What can end a training half-way: said in one line, with what was saved before left whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn

from regard.errors import RegardError, TrainingError
from regard.files import write_bytes

KEPT = "What was saved before is kept: go on from last.safetensors in another folder (--init)"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the last one, then renames it.

    Lightning's own goes by the folder for temporary files; from another disk it is copied over the last one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())


def check_loss(loss: Tensor, step: int, names: Sequence[str]) -> None:
    """Whether the loss is a number.

    Raises:
        TrainingError: it is not; the message names the images of the batch.
    """
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {loss.item()} {_at(step, names)}")


def check_weights(model: nn.Module, step: int, names: Sequence[str]) -> None:
    """Whether the weights are numbers, so that none are averaged or saved that are not.

    Raises:
        TrainingError: they are not; the message names the images of the batch that they learned from last.
    """
    size = nn.utils.get_total_norm([parameter.detach() for parameter in model.parameters()])
    if not torch.isfinite(size):
        raise TrainingError(f"the weights are no longer numbers {_at(step, names)}")


def _at(step: int, names: Sequence[str]) -> str:
    return (
        f"at step {step} (images {', '.join(names)}). Lower the learning rate, use precision 32, or look at these "
        f"images. {KEPT}."
    )


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what a data process raises, or its death, into one line.

    Raises:
        TrainingError: a data process died.
    """
    try:
        yield
    except RegardError as error:
        if not str(error).startswith("Caught "):  # else PyTorch has put the process and its stack around it
            raise
        raise type(error)(str(error).strip().splitlines()[-1].partition(": ")[2]) from None
    except SystemExit as error:
        if error.code != 1:
            raise
        raise KeyboardInterrupt from None  # what Lightning exits for without a word
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two while it was sending
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainingError(
            f"a process that reads images died ({reason}). Often memory was short: use fewer "
            "workers or smaller crops. The same command goes on from the last checkpoint."
        ) from None
