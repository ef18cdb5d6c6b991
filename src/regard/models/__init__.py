"""The networks: one class a file, its forward written out from image to logits."""

from regard.models.danet import DANet
from regard.models.danet_ocr import DANetOCR
from regard.models.danet_ocr_serial import DANetOCRSerial
from regard.models.deeplab import DeepLab
from regard.models.non_local_net import NonLocalNet
from regard.models.ocrnet import OCRNet
from regard.models.ocrnet_multiscale import MultiScaleOCRNet
from regard.models.segmenter import Segmenter
from regard.models.three_branch import ThreeBranch

MODELS: dict[str, type[Segmenter]] = {
    "danet": DANet,
    "danet_ocr": DANetOCR,
    "danet_ocr_serial": DANetOCRSerial,
    "deeplab": DeepLab,
    "non_local": NonLocalNet,
    "ocrnet": OCRNet,
    "ocrnet_multiscale": MultiScaleOCRNet,
    "three_branch": ThreeBranch,
}

__all__ = [
    "MODELS",
    "DANet",
    "DANetOCR",
    "DANetOCRSerial",
    "DeepLab",
    "MultiScaleOCRNet",
    "NonLocalNet",
    "OCRNet",
    "Segmenter",
    "ThreeBranch",
]
