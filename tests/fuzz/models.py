"""Model files as `regard.load` and `regard.convert` read them: safetensors, cards, PyTorch's pickles in zips, ONNX."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import warnings
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

import regard
from regard.checkpoints.foreign.mmseg import DANET
from regard.files import digest
from regard.models import MODELS
from tests.fuzz.damage import TEXTS, as_json, bytes_changed, edge, json_changed, json_text_changed, odd_value
from tests.fuzz.pictures import bomb, model, written
from tests.fuzz.worker import Files, Format
from tests.support import NAMES, save_image, tiny

PICTURE = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
MODEL = "given/model.safetensors"


class Touch:
    """What a hostile pickle does when it is read as Python reads pickles: it writes a file."""

    def __init__(self, path: str = "../neighbour/ran.txt") -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def models() -> list[Files]:
    """A small network of two architectures, as regard saves them."""
    kinds: tuple[dict[str, Any], ...] = ({"architecture": "danet_ocr"}, {"architecture": "ocrnet", "width": 8})
    return [
        {MODEL: written("m.safetensors", lambda path, kind=kind: regard.save(tiny(**kind), path))} for kind in kinds
    ]


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes behind it."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def model_changed(rng: Random, files: Files) -> Files:
    """The file as bytes; a field of the header; or tensors of other kinds, with the right digest."""
    content, kind = files[MODEL], rng.choice(("bytes", "header", "header", "length", "tensors", "tensors"))
    header, data = header_of(content)
    if kind == "bytes":
        files[MODEL] = bytes_changed(rng, content)
    elif kind == "length":
        files[MODEL] = edge(rng, 8) + content[8:]
    elif kind == "header":
        name = rng.choice([*header])
        header[name] = json_changed(rng, header[name])
        files[MODEL] = with_header(as_json(header), data)
    else:
        files[MODEL] = _with_other_tensors(rng, content, header["__metadata__"])
    return files


def _with_other_tensors(rng: Random, content: bytes, facts: dict[str, str]) -> bytes:
    tensors = tensors_of(content)
    for name in rng.sample([*tensors], rng.choice((1, 1, 3))):
        value = tensors.pop(name)
        kinds = (
            torch.bool,
            torch.int64,
            torch.uint8,
            torch.float64,
            torch.bfloat16,
            torch.float16,
            torch.complex64,
            torch.float8_e5m2,
        )
        shapes = ((), (0,), (0, 3), (2**20, 0, 2**20), (1,), (1,) * 9, tuple(value.shape))
        values = (
            torch.zeros(rng.choice(shapes), dtype=rng.choice(kinds)),
            value.to(rng.choice(kinds)),
            value * float("nan"),
        )
        values += (value.flatten()[:-1], value * 1e38, value.flatten())
        if rng.random() < 0.9:
            tensors[rng.choice((name, name, name, *TEXTS[:8]))] = rng.choice(values).contiguous()
    return bytes_of(tensors, {**facts, "sha256": digest(tensors)})


def cards() -> list[Files]:
    """The same files: their cards are damaged, the digest of the tensors stays right."""
    return models()


def card_changed(rng: Random, files: Files) -> Files:
    """A part of the card replaced; settings that a hostile file would try."""
    header, data = header_of(files[MODEL])
    facts = header["__metadata__"]
    card = json.loads(facts["regard"])
    if rng.random() < 0.4:
        _tempt(rng, card)
        facts["regard"] = as_json(card).decode()
    else:
        facts["regard"] = json_text_changed(rng, card).decode("latin-1")
    files[MODEL] = with_header(json.dumps(header).encode(), data)
    files["given/evil.pth"] = evil()
    return files


@cache
def evil() -> bytes:
    """A checkpoint that runs code where pickles are trusted."""
    file = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3), "x": Touch()}}, file)
    return file.getvalue()


def _tempt(rng: Random, card: dict[str, Any]) -> None:
    """Settings that reach into the libraries: other networks, sizes without end, files and addresses."""
    config = card["config"]
    numbers = (0, -1, 1, 3, 7, 10**4, 10**6, 10**9, 2**31, 2**62, 10**30, 1.5, float("nan"))
    options = {
        "checkpoint_path": "../given/evil.pth", "pretrained": True, "pretrained_cfg": {"file": "../given/evil.pth"},
        "pretrained_cfg_overlay": {"file": "../given/evil.pth"}, "pretrained_strict": False, "scriptable": True,
        "layers": [10**6] * 4,
        "cache_dir": "../neighbour", "channels": [rng.choice(numbers)] * 4, "stem_width": rng.choice(numbers),
        "block": "os.system", "out_indices": [rng.choice(numbers)], "in_chans": 5, "features_only": False,
        "num_classes": 10**9,
        "norm_layer": "eval", "act_layer": "print", "pool_ceil": [], "modules": [10**6] * 3, "blocks": [10**6] * 4,
        "exportable": 1,
    }  # fmt: skip
    names = ("resnet50", "vit_giant_patch14_dinov2", "eva_giant_patch14_560", "convnextv2_huge", "hrnet_w64",
    "regnety_2560",
             "hf-hub:user/repo", "local-dir:../given", "../given/evil.pth", "resnet50.a1_in1k", "test_vit",
             "efficientnet_b8")  # fmt: skip
    kind = rng.choice(("option", "option", "number", "name", "classes", "bands", "architecture"))
    if kind == "option":
        config["backbone_options"] = {name: options[name] for name in rng.sample([*options], rng.choice((1, 1, 2)))}
    elif kind == "number":
        named = [name for name, value in config.items() if isinstance(value, int) or value is None]
        config[rng.choice(named)] = rng.choice(numbers)
    elif kind == "name":
        config["backbone"], config["output_stride"] = rng.choice(names), rng.choice((None, 8, 16, 32))
    elif kind == "classes":
        count = rng.choice((2, 255, 256, 70_000))
        card["classes"] |= {"names": [str(index) for index in range(count)], "palette": [[0, 0, 0]] * count}
    elif kind == "bands":
        count = rng.choice((0, 1, 4, 70_000))
        card |= {"bands": ["b"] * count, "mean": [0.0] * count, "std": [1e-300] * count}
    else:
        card["architecture"] = rng.choice((*MODELS, "three_branch", "os.system", ""))


def read_model(folder: Path) -> None:
    """Load it and predict."""
    loaded = regard.load(folder / MODEL)
    if len(loaded.bands) == 3 and (folder / "made").is_dir():
        with torch.inference_mode():
            loaded(torch.zeros(1, 3, 32, 32))


def checkpoints() -> list[Files]:
    """A narrow DANet in mmsegmentation's names, in several envelopes: zip, the format before it, the weights alone."""
    backbone = {"backbone": "resnet18", "output_stride": 8, "backbone_options": {"channels": [8, 16, 32, 64]}}
    ours = regard.create("danet", classes=NAMES, width=16, auxiliary=True, auxiliary_width=16, **backbone).state_dict()
    back = {target: source for source, target in DANET.table.items()}
    state = {}
    for name, value in ours.items():
        head = max((target for target in back if f"{name}.".startswith(f"{target}.")), key=len)
        state[back[head] + name.removeprefix(head)] = value
    meta = {"CLASSES": list(NAMES), "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "config": "align_corners=False"}
    whole = {
        "meta": meta,
        "state_dict": state,
        "score": np.float64(0.5),
        "config_dict": {"normalize": {"mean": [0.5] * 3, "std": [1.0] * 3, "div_value": 255}},
    }
    ways: tuple[tuple[Any, dict[str, Any]], ...] = (
        (whole, {}),
        (whole, {"_use_new_zipfile_serialization": False}),
        (state, {}),
    )
    return [
        {"given/model.pth": written("m.pth", lambda path, c=content, o=options: torch.save(c, path, **o))}
        for content, options in ways
    ]


def checkpoint_changed(rng: Random, files: Files) -> Files:
    """As bytes; an entry of the zip; an opcode of the pickle; or other contents, hostile ones among them."""
    content, kind = files["given/model.pth"], rng.choice(("bytes", "zip", "pickle", "pickle", "content", "content"))
    if kind == "bytes" or (kind != "content" and not content.startswith(b"PK")):
        files["given/model.pth"] = bytes_changed(rng, content)
        return files
    if kind == "content":
        files["given/model.pth"] = rng.choice((_odd_content, _hostile_pickle))(rng)
        return files
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    target = io.BytesIO()
    spoiled = (
        next(name for name in entries if name.endswith("data.pkl")) if kind == "pickle" else rng.choice([*entries])
    )
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            _write_entry(rng, archive, name, data, kind if name == spoiled else "")
    files["given/model.pth"] = target.getvalue()
    return files


def _write_entry(rng: Random, archive: zipfile.ZipFile, name: str, data: bytes, kind: str) -> None:
    if kind == "pickle":
        data = pickle_changed(rng, data)
    elif kind == "zip":
        way = rng.choice(("data", "name", "compressed", "bomb", "missing", "twice"))
        if way == "missing":
            return
        data = {"data": bytes_changed(rng, data), "bomb": bytes(rng.choice((10**6, 10**8)))}.get(way, data)
        if way == "name":
            name = rng.choice(
                ("../" * 5 + name, "/" + name, name.upper(), name.partition("/")[2], "x" * 60_000, f"{name}/")
            )
        if way == "twice":
            archive.writestr(f"{name}2", data)
        if way in ("compressed", "bomb"):
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
            return
    archive.writestr(name, data)


def pickle_changed(rng: Random, data: bytes) -> bytes:
    """One operation changed: its number, its text, another in its place; or as bytes."""
    if rng.random() < 0.2:
        return bytes_changed(rng, data)
    steps = list(pickletools.genops(data))
    place = rng.randrange(len(steps))
    step, argument, begin = steps[place]
    end = steps[place + 1][2] if place + 1 < len(steps) else len(data)
    old = data[begin:end]
    if step.name == "GLOBAL" and rng.random() < 0.8:
        new = rng.choice(HOSTILE_GLOBALS)
    elif isinstance(argument, int) and rng.random() < 0.8:
        new = pickle.dumps(rng.choice((0, -1, 1, 255, 10**6, 10**9, 2**31, 2**33, 2**62, 2**63, 10**30)), 2)[2:-1]
    elif isinstance(argument, str):
        new = pickle.dumps(rng.choice((argument[:-1], argument + "x", *TEXTS[:8], "cuda:9", "meta", "mps")), 2)[2:-1]
    else:
        new = rng.choice(
            (
                b"N",
                b")",
                b"}",
                b"0",
                b"2",
                b"(",
                b"t",
                b"R",
                b"b",
                b"Q",
                b"\x81",
                b"a",
                b"e",
                b"s",
                b"u",
                b"\x93",
                b"i",
                b"o",
                old * 2,
                b"",
            )
        )
    return data[:begin] + new + data[end:]


HOSTILE_GLOBALS = tuple(
    b"c%s\n%s\n" % name
    for name in (
        (b"os", b"system"), (b"builtins", b"eval"), (b"builtins", b"open"), (b"builtins", b"getattr"),
        (b"torch", b"load"),
        (b"torch.serialization", b"load"), (b"numpy", b"ndarray"), (b"numpy", b"dtype"), (b"_codecs", b"encode"),
        (b"numpy.core.multiarray", b"_reconstruct"), (b"numpy._core.multiarray", b"scalar"),
        (b"argparse", b"Namespace"),
        (b"collections", b"OrderedDict"), (b"torch._utils", b"_rebuild_parameter"),
        (b"torch._utils", b"_rebuild_sparse_tensor"),
        (b"torch._utils", b"_rebuild_qtensor"), (b"torch._utils", b"_rebuild_meta_tensor_no_storage"),
        (b"torch", b"device"),
        (b"torch", b"Size"), (b"torch._tensor", b"_rebuild_from_type_v2"), (b"torch", b"Tensor"),
        (b"torch.hub", b"load"),
        (b"torch", b"HalfStorage"), (b"torch", b"QInt8Storage"), (b"torch", b"ComplexDoubleStorage"),
        (b"torch.storage", b"UntypedStorage"),
    )
)  # fmt: skip


def _odd_content(rng: Random) -> bytes:
    """What `torch.save` writes of tensors and values of every kind, where a dict of weights is expected."""
    weight = torch.ones(4, 3)
    warnings.simplefilter("ignore")  # of kinds of tensors that are new, or old
    tensors = [
        weight.to_sparse(), weight.to_sparse_csr(), torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        weight.to("meta"),
        weight.bool(), weight.to(torch.complex64), weight.to(torch.float8_e5m2), torch.ones(1).expand(10**6, 10**6),
        torch.ones(()),
        torch.nn.Parameter(weight), torch.empty(0, 5), weight[:, ::2], weight * float("nan"), np.ones(3),
        np.float64(1), b"x", None, 3,
    ]  # fmt: skip
    signature = {
        name: rng.choice(tensors) for name in (*DANET.signature, "backbone.conv1.weight", "decode_head.conv_seg.weight")
    }
    keys = (1, b"name", None, ("a", "b"), "", "a\0b", "x" * 10**5, "\ud800", "\x1b[2J", "a.b", 1.5, float("nan"))
    deep: Any = []
    for _ in range(rng.choice((50, 150))):
        deep = [deep]
    metas = [
        json_changed(
            rng,
            {
                "CLASSES": ["a", "b", "c"],
                "PALETTE": [[1, 2, 3]] * 3,
                "dataset_meta": {"classes": ["a"]},
                "cfg": "x",
                "config": "a",
            },
        )
        for _ in range(2)
    ]
    settings = json_changed(
        rng, {"normalize": {"mean": [0.5] * 3, "std": [1.0] * 3, "div_value": 255}, "data": {"input_mode": "BGR"}}
    )
    contents = (
        signature, {rng.choice(keys): rng.choice(tensors)}, {"state_dict": {rng.choice(keys): weight, **signature}},
        {"model": odd_value(rng)},
        {"state_dict": signature, "meta": rng.choice(metas), "config_dict": settings, "args": odd_value(rng)},
        {"meta": deep, **signature},
        odd_value(rng), rng.choice(tensors), [weight], {"state_dict": {}}, {**signature, "meta": odd_value(rng)},
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(rng.choice(contents), file, _use_new_zipfile_serialization=rng.random() < 0.7)
    return file.getvalue()


def _hostile_pickle(rng: Random) -> bytes:
    """Code in a plain pickle, in a checkpoint, and sizes that ask for much memory."""
    large = rng.choice((10**9, 10**10, 2**62))
    plain = rng.choice((
        pickle.dumps(Touch(), rng.randrange(6)), pickle.dumps({"state_dict": Touch()}, 2),
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x07\x00\x00\x00os.pathtR.", b"cnumpy\nndarray\n(I%d\ntR." % large,
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I%d\ntC\x01btR." % large,
        b"(" * 10**6 + b".", b"]" * 10**5 + b"a" * 10**5 + b".",
        b"c__builtin__\nopen\n(S'../neighbour/ran.txt'\nS'w'\ntR.",
        b"(S'../neighbour/ran.txt'\nS'w'\ni__builtin__\nopen\n.", b"I" + b"9" * 10**5 + b"\n.",
    ))  # fmt: skip
    if rng.random() < 0.5:
        return plain
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in {
            "a/data.pkl": plain,
            "a/version": b"3\n",
            "a/byteorder": rng.choice((b"little", b"big", b"?")),
            "a/data/0": bomb(),
        }.items():
            file.writestr(name, data)
    return rng.choice((archive.getvalue(), evil()))


def read_checkpoint(folder: Path) -> None:
    """Convert it; what is converted loads."""
    done = regard.convert(folder / "given" / "model.pth", folder / "made" / "model.safetensors")
    regard.load(done.path)


def exported() -> list[Files]:
    """A network by hand, with what `regard.export` says of it: scaled or raw input."""
    return [{"given/model.onnx": _network(kind).SerializeToString()} for kind in ("scaled", "raw")]


def _network(kind: str) -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["image", "weight"], ["cells"], kernel_shape=[8, 8], strides=[8, 8], pads=[0, 0, 0, 0]
        ),
        helper.make_node("Resize", ["cells", "", "scales"], ["logits"], mode="linear"),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales")
    shape = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        nodes, "network", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [numpy_helper.from_array(weights, "weight"), scales],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(
        proto, {"regard_card": model().card.model_dump_json(), "regard_stride": "8", "regard_input": kind}
    )
    return proto


def network_changed(rng: Random, files: Files) -> Files:
    """As bytes; a node, a weight, an input or what the file says of itself."""
    if rng.random() < 0.35:
        return files | {"given/model.onnx": bytes_changed(rng, files["given/model.onnx"])}
    proto = onnx.load_from_string(files["given/model.onnx"])
    graph, kind = (
        proto.graph,
        rng.choice(("node", "node", "attribute", "weight", "weight", "facts", "facts", "input", "loop", "opset")),
    )
    if kind == "node":
        node = rng.choice(graph.node)
        operations = (
            "Loop",
            "Identity",
            "If",
            "Gemm",
            "ConvTranspose",
            "Softmax",
            "Scan",
            "Nope",
            "MatMul",
            "ArgMax",
            "Concat",
            "Shape",
        )
        node.op_type = rng.choice(operations)
    elif kind == "attribute":
        attribute = rng.choice(graph.node[0].attribute)
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((0, -1, 1, 9, 2**31, 2**40, 2**62))
    elif kind == "weight":
        _change_weight(rng, rng.choice(graph.initializer))
    elif kind == "facts":
        entry = rng.choice(proto.metadata_props)
        changed = json_text_changed(rng, json.loads(entry.value) if entry.key != "regard_input" else entry.value)
        entry.value = changed.decode("utf-8", "replace").replace("\0", "") or "x"
    elif kind == "input":
        size = graph.input[0].type.tensor_type
        size.elem_type = rng.choice((*range(0, 17), 1))
        size.shape.dim[rng.randrange(4)].dim_value = rng.choice((0, 1, 7, 2**40))
    elif kind == "loop":
        graph.node[0].input[0] = rng.choice(("logits", "cells", "", "nothing"))
    else:
        proto.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**40))
    return files | {"given/model.onnx": proto.SerializeToString()}


def _change_weight(rng: Random, weight: onnx.TensorProto) -> None:
    kind = rng.choice(("shape", "type", "data", "outside", "values"))
    if kind == "shape":
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice((0, 1, 2, 9, 2**31, 2**40, -1))
    elif kind == "type":
        weight.data_type = rng.randrange(24)
    elif kind == "data":
        weight.raw_data = bytes_changed(rng, weight.raw_data)
    elif kind == "values":
        odd = rng.choice((float("nan"), float("inf"), 1e9, 1e6, -1.0, 0.0))
        weight.raw_data = np.full(max(1, int(np.prod(weight.dims))), odd, np.float32).tobytes()
    else:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        place = rng.choice(("../neighbour/kept.txt", "/etc/hostname", "model.onnx", "", "gone.bin", "x" * 5000))
        for key, value in (
            ("location", place),
            ("offset", rng.choice(("0", "-1", "x", "9" * 30))),
            ("length", rng.choice(("12", "-1", "9" * 18))),
        ):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value


def read_network(folder: Path) -> None:
    """Load it and predict."""
    loaded, photo = regard.load(folder / "given" / "model.onnx"), folder / "scratch" / "photo.png"
    regard.predict(loaded, photo if photo.exists() else save_image(photo, PICTURE), progress=False)


FORMATS = {
    "safetensors": Format(models, model_changed, read_model),
    "card": Format(cards, card_changed, read_model),
    "pth": Format(checkpoints, checkpoint_changed, read_checkpoint),
    "ONNX": Format(exported, network_changed, read_network),
}
