"""Where a run is shown while it trains, beside its own record: Lightning's loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from regard.errors import MissingExtra


def loggers_of(names: Sequence[str], folder: Path, *, start: int) -> list[Logger]:
    """The loggers by name. A run that goes on after step ``start`` replaces what TensorBoard has from after it.

    Weights & Biases and MLflow find their server as they always do: ``wandb login``, ``MLFLOW_TRACKING_URI``.

    Raises:
        MissingExtra: the package of one is not installed.
    """
    return [_logger(name, folder, start) for name in names if name != "none"]


def _logger(name: str, folder: Path, start: int) -> Logger:
    try:
        if name == "tensorboard":
            # The start is in the file's name too: by its clock alone, two sessions in one second would share a file.
            return TensorBoardLogger(
                folder, name="", version="tensorboard", purge_step=start + 1, filename_suffix=f".{start:08}"
            )
        if name == "wandb":
            return WandbLogger(name=folder.name, project="regard", save_dir=folder)
        return MLFlowLogger(experiment_name="regard", run_name=folder.name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"--log {name}: {error.name or name} is not installed. Do: pip install {name}.") from None
