"""The networks of the study by the names that ``regard.create`` takes once this file is imported."""

from __future__ import annotations

from torch import Tensor

from experiments.fusion.backbone import OnFiveStages, WidthConfig
from experiments.fusion.designs import Dual, Reading
from regard.blocks.conv import classifier
from regard.card import Card
from regard.models import MODELS, DANet, DANetOCRSerial, OCRNet
from regard.models.segmenter import LogitMaps, Pretrained, Segmenter


class FCN(OnFiveStages):
    """One 3x3 convolution and a classifier, no context; the last map but one has a loss of its own."""

    config_type = WidthConfig
    loss_weights = {"main": 1.0, "auxiliary": 0.4}

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        middle, deep = self.attach_backbone(pretrained)
        self.classify = classifier(deep, len(card.classes), width=self.config.width)
        self.auxiliary = classifier(middle, len(card.classes), width=middle // 4)

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> LogitMaps:
        middle, deep = self.backbone(image)
        outputs = {"main": self.classify(deep)}
        return outputs | {"auxiliary": self.auxiliary(middle)} if auxiliary else outputs


class FiveStageDANet(OnFiveStages, DANet):
    """DANet."""


class FiveStageOCRNet(OnFiveStages, OCRNet):
    """OCRNet."""


class FiveStageSerial(OnFiveStages, DANetOCRSerial):
    """OCR behind DANet."""


NETWORKS: dict[str, type[Segmenter]] = {
    "study_fcn": FCN,
    "study_danet": FiveStageDANet,
    "study_ocrnet": FiveStageOCRNet,
    "study_reading": Reading,
    "study_serial": FiveStageSerial,
    "study_dual": Dual,
}
MODELS |= NETWORKS
