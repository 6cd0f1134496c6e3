"""A backbone's products in 8-bit integers, calibrated on photographs. It is measured here, and no
engine of the package: see what it saves, and costs in agreement, in the table of `speed.py`."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor

from dinolizer import Localizer
from dinolizer.model import engines
from dinolizer.model.batches import as_batch


class Inputs(CalibrationDataReader):
    """Batches, one by one, as the library asks for them."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"windows": batch.contiguous().numpy()}


def quantized(path: Path, batches: Iterable[Tensor]) -> Path:
    """Write a copy of an ONNX file beside it, in which products with weights are of integers.

    Activations are unsigned, weights signed and each output channel's own, all in a range that was
    met in the batches; weights have 7 bits, so that sums of pairs do not overflow 16 on a CPU
    without VNNI.
    """
    out = path.with_suffix(".int8.onnx")
    quantize_static(
        path,
        out,
        Inputs(batches),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        extra_options={"MatMulConstBOnly": True},
    )
    return out


def in_int8(
    localizer: Localizer, engine: str, photographs: Iterable[NDArray[np.uint8]]
) -> Localizer:
    """A copy whose backbone is run by that engine in integers, calibrated on the middle windows of
    photographs."""
    backbone, side, device = localizer.backbone, localizer.window, torch.device("cpu")

    def normalised(batch: Tensor) -> Tensor:
        return (batch - backbone.mean) / backbone.std

    windows = (localizer.plan(*one.shape[:2]).windows(one, device) for one in photographs)
    batches = (normalised(as_batch([each[len(each) // 2]], device)) for each in windows)
    path = quantized(engines.exported(backbone, side), batches)
    infer = engines.compiled(engine, path, "float32", torch.get_num_threads())

    def tokens(batch: Tensor) -> Tensor:
        return torch.from_numpy(infer({"windows": normalised(batch).contiguous().numpy()})[0])

    other = localizer.with_settings(engine=engine)
    vars(other)["_tokens"] = tokens  # in place of those that it would export
    return other
