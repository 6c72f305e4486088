"""Vectors of eight floats for Numba: one CPU register for float32 (AVX2, AVX-512, NEON pairs), two for float64.

The compiled kernels say which eight values move together instead of hoping that loops vectorise. All functions are Numba
intrinsics, for use inside `numba.njit` only. Arrays are one-dimensional and contiguous; places count elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8


class VectorType(types.Type):  # type: ignore[misc]
    """Eight floats."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector8({scalar})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend: VectorType) -> None:
        element = ir.FloatType() if frontend.scalar is types.float32 else ir.DoubleType()
        super().__init__(manager, frontend, ir.VectorType(element, LANES))


_VECTORS = {types.float32: VectorType(types.float32), types.float64: VectorType(types.float64)}


def _address(context: Any, builder: Any, array_type: Any, array: Any, place: Any, vector: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    pointer = builder.gep(data, [place])
    return builder.bitcast(pointer, context.get_value_type(vector).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, place: Any) -> Any:
    """The eight values from `place` on."""
    vector = _VECTORS[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], args[0], args[1], vector)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Write eight values from `place` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], args[0], args[1], value)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


@intrinsic  # type: ignore[untyped-decorator]
def gather(typing: Any, array: Any, lanes: Any, place: Any) -> Any:
    """The eight values at lanes[k] ^ place. One by one: the processor's own gathers are slower, some of them by far."""
    vector = _VECTORS[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, offsets = (
            cgutils.create_struct_proxy(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], args[:2], strict=True)
        )
        result = ir.Constant(context.get_value_type(vector), ir.Undefined)
        for k in range(LANES):
            offset = builder.load(builder.gep(offsets, [ir.Constant(ir.IntType(64), k)]))
            value = builder.load(builder.gep(data, [builder.xor(offset, args[2])]))
            result = builder.insert_element(result, value, ir.Constant(ir.IntType(32), k))
        return result

    return vector(array, lanes, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(typing: Any, value: Any) -> Any:
    """One value eight times."""
    vector = _VECTORS[value]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(vector)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)

    return vector(value), generate


def _arithmetic(emit: Callable[..., Any], doc: str) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        return a(a, a), lambda context, builder, signature, args: emit(builder, *args)

    typed.__doc__ = doc
    return intrinsic(typed)


add = _arithmetic(lambda builder, a, b: builder.fadd(a, b), "a + b.")
sub = _arithmetic(lambda builder, a, b: builder.fsub(a, b), "a − b.")
mul = _arithmetic(lambda builder, a, b: builder.fmul(a, b), "a · b.")


def _fused(negate: bool) -> Any:
    def typed(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = args[0].type
            name = "llvm.fma.v8f64" if kind.element == ir.DoubleType() else "llvm.fma.v8f32"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
            return builder.call(function, [builder.fneg(args[0]) if negate else args[0], args[1], args[2]])

        return a(a, a, a), generate

    typed.__doc__ = "c − a · b, rounded once." if negate else "a · b + c, rounded once."
    return intrinsic(typed)


fma = _fused(False)
fnma = _fused(True)


def _shuffled(distance: int) -> Any:
    def typed(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [k ^ distance for k in range(LANES)])
            return builder.shuffle_vector(args[0], ir.Constant(args[0].type, ir.Undefined), mask)

        return a(a), generate

    typed.__doc__ = f"Lane k takes lane k ^ {distance}."
    return intrinsic(typed)


shuffle1, shuffle2, shuffle4 = _shuffled(1), _shuffled(2), _shuffled(4)


@intrinsic  # type: ignore[untyped-decorator]
def parity(typing: Any, value: Any) -> Any:
    """1 where an integer has an odd number of set bits, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(builder.ctpop(args[0]), ir.Constant(ir.IntType(64), 1))

    return types.int64(types.int64), generate
