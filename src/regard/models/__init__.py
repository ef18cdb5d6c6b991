"""The networks: one class a file, its forward written out from image to logits."""

from regard.models.danet import DANet
from regard.models.danet_ocr import DANetOCR
from regard.models.danet_ocr_serial import DANetOCRSerial
from regard.models.danet_three_branch import DANetThreeBranch
from regard.models.deeplab import DeepLab
from regard.models.non_local_net import NonLocalNet
from regard.models.ocrnet import OCRNet
from regard.models.ocrnet_multiscale import MultiScaleOCRNet
from regard.models.refined import Refined
from regard.models.segmenter import Segmenter

MODELS: dict[str, type[Segmenter]] = {
    "danet": DANet,
    "danet_ocr": DANetOCR,
    "danet_ocr_serial": DANetOCRSerial,
    "danet_three_branch": DANetThreeBranch,
    "deeplab": DeepLab,
    "non_local": NonLocalNet,
    "ocrnet": OCRNet,
    "ocrnet_multiscale": MultiScaleOCRNet,
    "refined": Refined,
}
Refined.networks = {name: network for name, network in MODELS.items() if network is not Refined}

__all__ = [
    "MODELS",
    "DANet",
    "DANetOCR",
    "DANetOCRSerial",
    "DANetThreeBranch",
    "DeepLab",
    "MultiScaleOCRNet",
    "NonLocalNet",
    "OCRNet",
    "Refined",
    "Segmenter",
]
