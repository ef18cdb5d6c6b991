"""What can end a training before its last step: reported in one line, and what was saved before stays intact."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn

from regard.errors import RegardError, TrainingError
from regard.files import write_bytes

LOST = re.compile(r"gloo|NCCL|ProcessGroup")  # in what PyTorch says where a process of a distributed training is gone
KEPT = "What was saved before is kept: continue from last.safetensors in another folder (--init)"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint next to the last one, then renames it.

    Lightning's own is written to the folder for temporary files; from another disk it is copied over the last one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())


def check_loss(loss: Tensor, step: int, names: Sequence[str]) -> None:
    """Raise a TrainingError that names the images of the batch if the loss is nan or infinite."""
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {loss.item()} {_at(step, names)}")


def check_weights(model: nn.Module, step: int, names: Sequence[str]) -> None:
    """Raise a TrainingError of this form if a weight is nan or infinite, so that none reaches the EMA or a file."""
    size = nn.utils.get_total_norm([parameter.detach() for parameter in model.parameters()])
    if not torch.isfinite(size):
        raise TrainingError(f"the weights are no longer numbers {_at(step, names)}")


def _at(step: int, names: Sequence[str]) -> str:
    advice = "Lower the learning rate, use precision 32, or look at these images"
    return f"at step {step} (images {', '.join(names)}). {advice}. {KEPT}."


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a data process raises into an error of one line, and its death into a TrainingError."""
    try:
        yield
    except RegardError as error:
        if not str(error).startswith("Caught "):  # else PyTorch has added the process and its stack
            raise
        raise type(error)(str(error).strip().splitlines()[-1].partition(": ")[2]) from None
    except SystemExit as error:
        if error.code != 1:
            raise
        raise KeyboardInterrupt from None  # what Lightning exits for without a word
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two while it was sending
        reason = " ".join(str(error).split()) or type(error).__name__
        if LOST.search(reason):
            raise TrainingError(
                "another process of this training died, or the connection to it was lost. The same command resumes "
                "from the last checkpoint."
            ) from None
        if isinstance(error, RuntimeError) and not reason.startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"a process that reads images died ({reason}). Often memory was short: use fewer "
            "workers or smaller crops. The same command resumes from the last checkpoint."
        ) from None
