"""The networks: one class a file, its forward written out from image to logits."""

from regard.models.danet import DANet
from regard.models.danet_ocr import DANetOCR
from regard.models.ocrnet import OCRNet
from regard.models.segmenter import Segmenter

MODELS: dict[str, type[Segmenter]] = {
    "danet": DANet,
    "ocrnet": OCRNet,
    "danet_ocr": DANetOCR,
}

__all__ = ["MODELS", "DANet", "DANetOCR", "OCRNet", "Segmenter"]
