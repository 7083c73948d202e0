"""Types of decoded weights (docs/format.md, sections 2 and 6)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class DType(IntEnum):
    """Type of the decoded weights (section 2); the numbers are those of ONNX's TensorProto.DataType."""

    FLOAT32 = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    FLOAT64 = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20

    @property
    def storage(self) -> np.dtype[np.generic]:
        """The numpy dtype of the stored bytes; bfloat16 and float8, which numpy lacks, are their bits, unsigned."""
        return np.dtype(_STORAGE[self])

    @property
    def coded(self) -> bool:
        """Whether EG, RL and BM can be declared to hold it; RAW stores every type."""
        return self in (DType.FLOAT32, DType.FLOAT16, DType.FLOAT64, DType.BFLOAT16)

    @property
    def holds_levels(self) -> bool:
        """Whether asking a coded blob for it gives the levels themselves (section 6)."""
        return self in (DType.INT8, DType.INT16, DType.INT32)


_STORAGE = {
    DType.FLOAT32: "<f4",
    DType.UINT8: "u1",
    DType.INT8: "i1",
    DType.UINT16: "<u2",
    DType.INT16: "<i2",
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.BOOL: "?",
    DType.FLOAT16: "<f2",
    DType.FLOAT64: "<f8",
    DType.UINT32: "<u4",
    DType.UINT64: "<u8",
    DType.COMPLEX64: "<c8",
    DType.COMPLEX128: "<c16",
    DType.BFLOAT16: "<u2",
    DType.FLOAT8E4M3FN: "u1",
    DType.FLOAT8E4M3FNUZ: "u1",
    DType.FLOAT8E5M2: "u1",
    DType.FLOAT8E5M2FNUZ: "u1",
}
