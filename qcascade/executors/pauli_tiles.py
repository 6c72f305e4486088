"""Sixteen vectors of sixteen numbers for Numba, the tiles in which a two-qubit gate acts on a state in the Pauli basis.

Vector 4i + j of a tile is at first + i · place + j · other; in memory vectors have an order of their own (`slot`). A vector is one
register of AVX-512 for float32, several of other processors. Intrinsics, for use inside `numba.njit` only; arrays are one-dimensional
and contiguous, and states begin at a cache line.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
LINE = 64  # bytes of a cache line, at which vectors are aligned
_INT = ir.IntType(64)


def _vectors(context: Any, builder: Any, array_type: Any, array: Any, places: list[Any]) -> list[Any]:
    """Where the vectors are."""
    kind = ir.VectorType(context.get_value_type(array_type.dtype), LANES)
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return [builder.bitcast(builder.gep(data, [_slot(builder, place)]), kind.as_pointer()) for place in places]


def _slot(builder: Any, place: Any) -> Any:
    """Exclusive or of the low six bits of a vector's number with the next six."""
    return builder.xor(place, builder.and_(builder.lshr(place, _INT(6)), _INT(63 * LANES)))


@intrinsic  # type: ignore[untyped-decorator]
def slot(typing: Any, place: Any) -> Any:
    """Where number `place` of a state lies in memory; vectors of one tile would else compete for the few lines of one set of the cache."""
    return types.int64(types.int64), lambda context, builder, signature, args: _slot(builder, args[0])


@intrinsic  # type: ignore[untyped-decorator]
def multiply(typing: Any, matrix: Any, state: Any, first: Any, place: Any, other: Any) -> Any:
    """Multiply a tile by a matrix [16 · 16], in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers, state, first, place, other = args

        def at(number: Any) -> Any:
            """Where a vector of the tile is."""
            i, j = builder.lshr(number, _INT(2)), builder.and_(number, _INT(3))
            return builder.add(first, builder.add(builder.mul(place, i), builder.mul(other, j)))

        def pointers(places: list[Any]) -> list[Any]:
            return _vectors(context, builder, signature.args[1], state, places)

        vectors = [builder.load(one, align=LINE) for one in pointers([at(_INT(k)) for k in range(16)])]
        kind = vectors[0].type
        name = f"llvm.fma.v{LANES}f{signature.args[1].dtype.bitwidth}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, numbers).data
        none, everywhere = (
            ir.Constant(kind, ir.Undefined),
            ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES),
        )
        with cgutils.for_range(builder, _INT(16)) as loop:
            total = None
            for column, vector in enumerate(vectors):
                entry = builder.add(builder.mul(loop.index, _INT(16)), _INT(column))
                number = builder.load(builder.gep(data, [entry]))
                one = builder.shuffle_vector(builder.insert_element(none, number, _INT(0)), none, everywhere)
                total = builder.fmul(one, vector) if total is None else builder.call(fma, [one, vector, total])
            builder.store(total, pointers([at(loop.index)])[0], align=LINE)
        return context.get_dummy_value()

    return types.void(matrix, state, types.int64, types.int64, types.int64), generate


def _exchange(bits: tuple[int, int], doc: str) -> Any:
    """For four vectors `step` apart: exchange two bits of the lanes' numbers with the two bits of the vectors' own."""

    def typed(typing: Any, state: Any, first: Any, step: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            state, first, step = args
            places = [builder.add(first, builder.mul(step, _INT(k))) for k in range(4)]
            pointers = _vectors(context, builder, signature.args[0], state, places)
            vectors = [builder.load(pointer, align=LINE) for pointer in pointers]
            for number, bit in zip((1, 2), bits, strict=True):
                low = [k if not k & bit else LANES + (k ^ bit) for k in range(LANES)]
                high = [k ^ bit if not k & bit else LANES + k for k in range(LANES)]
                for k in range(4):
                    if not k & number:
                        pair = vectors[k], vectors[k | number]
                        vectors[k], vectors[k | number] = (
                            builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask))
                            for mask in (low, high)
                        )
            for vector, pointer in zip(vectors, pointers, strict=True):
                builder.store(vector, pointer, align=LINE)
            return context.get_dummy_value()

        return types.void(state, types.int64, types.int64), generate

    typed.__doc__ = doc
    return intrinsic(typed)


exchange_low = _exchange((1, 2), "Number k mod 4 of vector v and number v mod 4 of vector k change places.")
exchange_high = _exchange(
    (4, 8), "Likewise k div 4: numbers 4k … 4k + 3 of vector v and 4v … 4v + 3 of vector k change places."
)
