"""The compressors that the codec is measured against, each on one thread and one tensor of integers at a time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import lzma
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsexport import codebook
from bsexport.layout import best_code

Levels = npt.NDArray[np.signedinteger[Any]]
TABLE_ENTRY_BITS = 16  # what an entropy coder's model is charged for a symbol, besides the symbol itself


@dataclass
class Coder:
    """encode: levels, int8, int16 or int32, the narrowest that holds them, to something that `size` gives the bytes of;
    decode: that and the type and number of the levels, to the levels.
    """

    name: str
    encode: Callable[[Levels], Any]
    decode: Callable[[Any, np.dtype[Any], int], Levels]
    size: Callable[[Any], int] = len

    def decode_all(self, coded: list[Any], like: Sequence[Levels]) -> list[Levels]:
        """All tensors of a set, one after another."""
        return [self.decode(one, levels.dtype, levels.size) for one, levels in zip(coded, like, strict=True)]


def peers() -> tuple[list[Coder], list[str]]:
    """Those that are installed, and a line for each that is not."""
    found, absent = [lzma_coder()], []
    for package, make in (
        ("zstandard", zstandard_coders),
        ("brotli", brotli_coders),
        ("lz4", lz4_coders),
        ("blosc2", blosc2_coders),
        ("pcodec", pcodec_coders),
        ("constriction", constriction_coders),
        ("nncodec", nncodec_coders),
    ):
        try:
            version = importlib.metadata.version(package)
            found += make(version)
        except (ImportError, OSError) as error:
            absent.append(f"{package} ({type(error).__name__}: {error})")
    return found, absent


def lzma_coder() -> Coder:
    return Coder(
        "xz -6 (Python's lzma)",
        lambda levels: lzma.compress(levels.tobytes(), preset=6),
        lambda coded, dtype, count: np.frombuffer(lzma.decompress(coded), dtype),
    )


def zstandard_coders(version: str) -> Iterator[Coder]:
    import zstandard

    def make(level: int) -> Coder:
        return Coder(
            f"zstd -{level} (zstandard {version})",
            lambda levels: zstandard.ZstdCompressor(level=level).compress(levels.data),
            lambda coded, dtype, count: np.frombuffer(zstandard.ZstdDecompressor().decompress(coded), dtype),
        )

    return (make(level) for level in (3, 19))


def brotli_coders(version: str) -> Iterator[Coder]:
    import brotli

    yield Coder(
        f"brotli -9 ({version})",
        lambda levels: brotli.compress(levels.tobytes(), quality=9, lgwin=24),
        lambda coded, dtype, count: np.frombuffer(brotli.decompress(coded), dtype),
    )


def lz4_coders(version: str) -> Iterator[Coder]:
    import lz4.block

    yield Coder(
        f"lz4 ({version})",
        lambda levels: lz4.block.compress(levels.data),
        lambda coded, dtype, count: np.frombuffer(lz4.block.decompress(coded), dtype),
    )


def blosc2_coders(version: str) -> Iterator[Coder]:
    import blosc2

    blosc2.set_nthreads(1)
    yield Coder(
        f"blosc2 (zstd, bit shuffle, level 9, {version})",
        lambda levels: blosc2.compress(
            levels.data,
            typesize=levels.itemsize,
            clevel=9,
            filter=blosc2.Filter.BITSHUFFLE,
            codec=blosc2.Codec.ZSTD,
        ),
        lambda coded, dtype, count: np.frombuffer(blosc2.decompress(coded), dtype),
    )


def pcodec_coders(version: str) -> Iterator[Coder]:
    from pcodec import ChunkConfig, standalone

    config = ChunkConfig(compression_level=8)

    def encode(levels: Levels) -> bytes:
        wide = levels.astype(np.int16) if levels.itemsize == 1 else levels  # it has no 8-bit numbers
        return bytes(standalone.simple_compress(wide.reshape(-1), config))

    yield Coder(f"pcodec level 8 ({version})", encode, lambda coded, dtype, count: standalone.simple_decompress(coded))


def constriction_coders(version: str) -> Iterator[Coder]:
    import constriction

    class Coded:
        """An ANS stream of symbols and its static model: one frequency a symbol."""

        def __init__(self, levels: Levels) -> None:
            symbols = codebook.rank(codebook.count(levels.astype(np.int32)))
            self.codebook = symbols.levels.astype(levels.dtype)
            order = np.argsort(symbols.levels)
            ranks = order[symbols.levels[order].searchsorted(levels.reshape(-1))].astype(np.int32)
            counts = symbols.counts if symbols.counts.size > 1 else np.append(symbols.counts, 1)  # it wants two symbols
            self.model = constriction.stream.model.Categorical(
                (counts / symbols.total).astype(np.float32), perfect=False
            )
            coder = constriction.stream.stack.AnsCoder()
            coder.encode_reverse(ranks, self.model)
            self.words = coder.get_compressed()

        def decode(self, count: int) -> Levels:
            symbols = constriction.stream.stack.AnsCoder(self.words).decode(self.model, count)
            decoded: Levels = self.codebook.take(symbols)
            return decoded

        def size(self) -> int:
            steps = np.diff(np.sort(self.codebook.astype(np.int64)), prepend=0)
            table = best_code(np.bincount(np.abs(steps)))[1] + TABLE_ENTRY_BITS * steps.size
            return 4 * self.words.size + table // 8

    yield Coder(
        f"ANS, one static model (constriction {version})",
        Coded,
        lambda coded, dtype, count: coded.decode(count),
        lambda coded: coded.size(),
    )


def nncodec_coders(version: str) -> Iterator[Coder]:
    """Its DeepCABAC alone, with the settings of its own `compress`; its Python layer would import torchvision."""
    folder = Path(str(importlib.metadata.distribution("nncodec").locate_file("nncodec"))) / "extensions"
    library = next(iter(folder.glob("deepCABAC.*.so")), None)
    spec = library and importlib.util.spec_from_file_location("deepCABAC", library)
    if not spec or not spec.loader:
        raise ImportError("it was installed without its compiled DeepCABAC")
    cabac = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cabac)
    off = (cabac.HdspMode.AlwaysOff, np.zeros(2, np.int8))
    unary_length, optimise, dependent, scan, profile, parents, skip_rows = 11, 1, 0, 0, 0, 0, 0

    class Coded:
        def __init__(self, levels: Levels) -> None:
            self.shape = levels.shape if levels.ndim > 1 else (1, levels.size)
            rows = np.zeros(self.shape[0], np.int32)
            coder = cabac.Encoder()
            coder.initCtxModels(unary_length, optimise)
            wide = levels.reshape(self.shape).astype(np.int32)
            coder.encodeLayer(wide, dependent, scan, profile, parents, skip_rows, rows, *off, 0, 0)
            self.data = coder.finish()

        def decode(self) -> Levels:
            levels = np.zeros(self.shape, np.int32)
            coder = cabac.Decoder()
            coder.setStream(self.data)
            coder.initCtxModels(unary_length)
            coder.decodeLayer(levels, dependent, scan, profile, parents, *off, 0, 0)
            return levels

    yield Coder(
        f"DeepCABAC (nncodec {version})",
        Coded,
        lambda coded, dtype, count: coded.decode(),
        lambda coded: int(coded.data.size),
    )
