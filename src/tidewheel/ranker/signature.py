"""Whether a graph can run here, and takes and gives what its bundle says: judged before anything is scored. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidewheel.contracts.bundle import ModelEntry
from tidewheel.errors import ContractError

MIN_ONNXRUNTIME = "onnxruntime_min"  # keys of a manifest's `runtime`
OPSET, IR_VERSION = "onnx_opset", "onnx_ir_version"
_ELEMENTS = {"FP32": "tensor(float)", "FP64": "tensor(double)", "INT64": "tensor(int64)", "BYTES": "tensor(string)"}
_VARINT, _LENGTH = 0, 2  # wire types of protocol buffers
_WIDTHS = {1: 8, 5: 4}
_IR_FIELD, _OPSET_FIELD = 1, 8  # of ModelProto
_DOMAIN_FIELD, _VERSION_FIELD = 1, 2  # of OperatorSetIdProto


@dataclass(frozen=True)
class Tensor:
    """Name, element type as ONNX Runtime writes it, and shape: an integer, or the name of a size that is free."""

    name: str
    element: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.element} {[size if isinstance(size, int) else -1 for size in self.shape]}"


def signature_fault(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], widths: tuple[int, int], entry: ModelEntry
) -> str | None:
    """Why a graph with these tensors is not the one of `entry`, whose encoders make `widths` columns; None where it is."""
    want_inputs = (Tensor("ids", "tensor(int64)", (-1, widths[0])), Tensor("numbers", "tensor(float)", (-1, widths[1])))
    want_outputs = tuple(Tensor(out.name, _ELEMENTS.get(out.datatype, out.datatype), out.shape) for out in entry.outputs)
    for kind, found, wanted in (("input", inputs, want_inputs), ("output", outputs, want_outputs)):
        by_name = {tensor.name: tensor for tensor in found}
        if set(by_name) != {tensor.name for tensor in wanted}:
            return f"{kind}s are {_names(found)}; expected {_names(wanted)}"
        for want in wanted:
            if not _fits(by_name[want.name], want):
                return f"{kind} is {by_name[want.name]}; expected {want}"
    return None


def runtime_fault(made_with: Mapping[str, str], onnxruntime: str, ir_version: int, opset: int) -> str | None:
    """Why a graph cannot be trusted to run under ONNX Runtime `onnxruntime`, from what its bundle and its file say, or None."""
    least = made_with.get(MIN_ONNXRUNTIME)
    if least is not None and _version(onnxruntime) < _version(least):
        return f"found ONNX Runtime {onnxruntime}, expected {least} or newer; update it or distill for the older one"
    for key, found in ((OPSET, opset), (IR_VERSION, ir_version)):
        if made_with.get(key, str(found)) != str(found):
            return f"{key} is {found}; its bundle's runtime says {made_with[key]}; distill again"
    return None


def onnx_versions(path: Path) -> tuple[int, int]:
    """IR version and opset of the default domain that an ONNX file names; 0 where it names none.

    Read from the file's outermost fields, so that whoever serves needs no ONNX package.

    Raises:
        ContractError: it is not an ONNX file.
    """
    ir_version = opset = 0
    try:
        for field, value in _fields(path.read_bytes()):
            if field == _IR_FIELD and isinstance(value, int):
                ir_version = value
            elif field == _OPSET_FIELD and isinstance(value, bytes):
                one = dict(_fields(value))
                if one.get(_DOMAIN_FIELD, b"") in (b"", b"ai.onnx"):
                    opset = int(one.get(_VERSION_FIELD, 0))
    except (IndexError, KeyError) as error:
        raise ContractError(f"{path}: is not an ONNX graph; restore the bundle") from error
    return ir_version, opset


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """(number, value) of the fields of a protocol buffer; IndexError or KeyError where it is none."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == _VARINT:
            value, at = _varint(data, at)
            found.append((key >> 3, value))
            continue
        size, at = _varint(data, at) if key & 7 == _LENGTH else (_WIDTHS[key & 7], at)
        if at + size > len(data):
            raise IndexError(size)
        found.append((key >> 3, data[at : at + size]))
        at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _fits(found: Tensor, want: Tensor) -> bool:
    """-1 of `want` is a size that is free, and so must it be in `found`."""
    if found.element != want.element or len(found.shape) != len(want.shape):
        return False
    return all(
        not isinstance(size, int) if wanted == -1 else size == wanted
        for size, wanted in zip(found.shape, want.shape, strict=True)
    )


def _names(tensors: Sequence[Tensor]) -> str:
    return ", ".join(sorted(tensor.name for tensor in tensors)) or "none"


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 1.31.0rc1 is (1, 31, 0)."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
