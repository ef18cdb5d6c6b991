"""One step of training, as Lightning takes it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from regard.errors import ConfigError
from regard.models import Segmenter
from regard.ops.losses import Criterion, weighted_sum
from regard.training.config import TrainConfig
from regard.training.faults import check_loss
from regard.training.loader import Batch
from regard.training.optimizer import freeze, optimizer_of


class SegmentationTask(pl.LightningModule):
    """One optimisation step over ``{"image", "mask"}`` batches, for any network of regard.

    ``model`` is trained, ``ema`` holds the exponential moving average of its weights and buffers.
    """

    def __init__(self, model: Segmenter, config: TrainConfig, criterion: Criterion) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.criterion = criterion
        self.frozen = freeze(model, config.freeze)
        self.ema = AveragedModel(model, avg_fn=get_ema_avg_fn(config.ema), use_buffers=True)
        self.ema.requires_grad_(False)  # else DDP waits for its gradients

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        for module in self.frozen:
            module.eval()
        # Dropout depends on the step and the process alone.
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step + 1_000_000_007 * self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = self._outputs(batch["image"])
        losses = weighted_sum(outputs, batch["mask"], self.model.loss_weights, self.criterion)
        check_loss(losses["loss"], self.global_step + 1, batch["names"])
        rate = self.optimizers().param_groups[-1]["lr"]  # type: ignore[union-attr]
        self.log_dict({**losses, "rate": rate}, prog_bar=True, logger=False, sync_dist=self.trainer.world_size > 1)
        return losses["loss"]

    def _outputs(self, image: Tensor) -> dict[str, Tensor]:
        try:
            return self.model.outputs(image)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"batch {self.config.batch} with crop {self.config.crop} leaves one value per channel, too few for "
                "batch normalisation. Use a batch of 2 or more, or a larger crop."
            ) from None

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimizer_of(self.model, self.config)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checkpoints of version 0.1 call the EMA ``averaged``."""
        tensors = checkpoint["state_dict"]
        for name in [name for name in tensors if name.startswith("averaged.")]:
            tensors["ema." + name.removeprefix("averaged.")] = tensors.pop(name)
