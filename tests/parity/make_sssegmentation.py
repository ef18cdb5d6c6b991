"""Make the sssegmentation fixtures with sssegmentation's own modules (1.7.0, from its source distribution).

    PYTHONPATH=.../sssegmentation-1.7.0 python tests/parity/make_sssegmentation.py

Its optional dependencies are replaced by empty modules. All weights are procedural (`fixtures.whole_state`), so that a
fixture holds keys, shapes, an input and the outputs only.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types

import fixtures
import torch
from safetensors.torch import save_file

HEAVY = ("cv2", "dill", "pandas", "mmcv", "apex", "chainercv", "pycocotools", "ftfy", "scipy", "matplotlib", "bs4")


class Empty(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that the networks import but do not use."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in HEAVY else None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


COMMON = {
    "num_classes": 19,
    "align_corners": False,
    "norm_cfg": {"type": "BatchNorm2d"},
    "act_cfg": {"type": "ReLU", "inplace": True},
}
RESNET = {"type": "ResNet", "structure_type": "none", "depth": 50, "outstride": 8, "base_channels": 8}
RESNET |= {"stem_channels": 16, "use_conv3x3_stem": True, "pretrained": False}
HRNET = {"type": "HRNet", "structure_type": "none", "arch": "hrnetv2_w18_small", "pretrained": False}


def settings(backbone, deep, middle, *, key):
    head = {"in_channels": deep, "feats_channels": 64, "transform_channels": key, "dropout": 0.1, "scale": 1}
    return COMMON | {
        "backbone": backbone,
        "head": head,
        "auxiliary": {"in_channels": middle, "out_channels": 32, "dropout": 0.1},
    }


def danet_outputs(model, maps):
    pam = model.pam_out_conv(model.pam_net(model.pam_in_conv(maps[-1])))
    cam = model.cam_out_conv(model.cam_net(model.cam_in_conv(maps[-1])))
    return {
        "fusion": model.decoder_pamcam(pam + cam),
        "pam": model.decoder_pam(pam),
        "cam": model.decoder_cam(cam),
        "auxiliary": model.auxiliary_decoder(maps[-2]),
    }


def ocrnet_outputs(model, maps):
    regions = model.auxiliary_decoder(maps[-2])
    pixels = model.bottleneck(maps[-1])
    augmented = model.object_context_block(pixels, model.spatial_gather_module(pixels, regions))
    return {"ocr": model.decoder(augmented), "aux": regions}


@torch.inference_mode()
def make(name, kind, cfg, outputs):
    from ssseg.modules.utils import SSSegInputStructure

    model = kind(cfg, "TEST").eval()
    keys = {key: list(value.shape) for key, value in model.state_dict().items() if "num_batches" not in key}
    model.load_state_dict(fixtures.whole_state(keys), strict=False)
    tensors = {}
    for index, size in enumerate([(1, 3, 65, 97), (2, 3, 72, 88)]):
        image = torch.randn(size, generator=torch.Generator().manual_seed(index))
        maps = model.transforminputs(model.backbone_net(image), cfg["backbone"].get("selected_indices"))
        raw = outputs(model, maps)
        whole = model(SSSegInputStructure(images=image, mode="TEST")).seg_logits
        assert torch.equal(whole, next(iter(raw.values())))
        tensors |= {f"case{index}/input": image} | {f"case{index}/raw_{part}": value for part, value in raw.items()}
    meta = {"source": "sssegmentation 1.7.0", "align_corners": False, "checks": {}}
    meta["keys"] = {key: ["whole", shape] for key, shape in keys.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, fixtures.HERE / f"{name}.safetensors")
    (fixtures.HERE / f"{name}.json").write_text(json.dumps(meta, separators=(",", ":")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # before the stand-ins: it looks for optional packages of the same names
    sys.meta_path.insert(0, EmptyModules())
    from ssseg.modules.models.backbones import hrnet
    from ssseg.modules.models.segmentors.danet import DANet
    from ssseg.modules.models.segmentors.ocrnet import OCRNet

    hrnet.HRModule.use_checkpoint = False  # 1.7.0 forgets to set it, so its HRNet cannot be built as published
    make("sssegmentation_danet_r50", DANet, settings(RESNET, 256, 128, key=8), danet_outputs)
    make("sssegmentation_ocrnet_r50", OCRNet, settings(RESNET, 256, 128, key=32), ocrnet_outputs)
    make("sssegmentation_ocrnet_hr18s", OCRNet, settings(HRNET, 270, 270, key=32), ocrnet_outputs)
