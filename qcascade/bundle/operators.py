"""The operators that a bundle's graph may call, by name: an allow-list, and nothing is looked up outside it.

What comes in: a node's target, or its name in a file. What goes out: the other of the two. In the list are ATen's pure
computations and their in-place forms, what symbolic sizes are computed with, the two wrappers for gradient mode and
autocast, our own simulation, and nothing else: no input or output (`from_file`, `_print`), no pointers, strides or storages
(`as_strided`, `set_`, `resize_`), no backends' or tests' own operators.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload

from qcascade.capture.runnable import WRAPPERS
from qcascade.errors import BundleError

_ATEN_NAMES = """
__and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _aminmax _assert_async
_assert_scalar _assert_tensor_metadata _batch_norm_impl_index _cdist_forward _conj _convolution _convolution_mode
_dim_arange _euclidean_dist _fft_c2c _fft_c2r _fft_r2c _is_all_true _is_any_true _local_scalar_dense _log_softmax
_pad_circular _pad_enum _safe_softmax _scaled_dot_product_attention_math _shape_as_tensor _softmax _to_copy _trilinear
_unique2 _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm abs absolute acos acosh adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv
addcmul addmm addmv addr adjoint affine_grid_generator alias all alpha_dropout amax amin aminmax angle any arange
arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort asin asinh atan atan2 atanh atleast_1d
atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm bartlett_window batch_norm bernoulli bilinear
binary_cross_entropy binary_cross_entropy_with_logits bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor blackman_window block_diag bmm broadcast_tensors broadcast_to bucketize cartesian_prod
cat cauchy cdist ceil celu chain_matmul channel_shuffle cholesky chunk clamp clamp_max clamp_min clip clone col2im
column_stack combinations complex concat concatenate conj conj_physical constant_pad_nd contiguous conv1d conv2d
conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copysign corrcoef cos cosh
cosine_embedding_loss cosine_similarity count_nonzero cov cross cross_entropy_loss cummax cummin cumprod cumsum
cumulative_trapezoid deg2rad det detach detach_copy diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter
diff digamma dim dist div divide dot dropout dsplit dstack einsum elu embedding empty empty_like eq equal erf erfc
erfinv exp exp2 expand expand_as expand_copy expm1 exponential eye feature_alpha_dropout feature_dropout fft_fft
fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft
fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn fill fill_diagonal fix flatten flip fliplr flipud
float_power floor floor_divide fmax fmin fmod frac frexp frobenius_norm full full_like gather gcd ge gelu geometric
ger glu greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt hamming_window
hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hinge_embedding_loss histc hsplit hstack huber_loss
hypot i0 im2col imag index index_add index_copy index_fill index_put index_reduce index_select inner instance_norm
inverse is_complex is_floating_point is_nonzero is_same_size isclose isfinite isin isinf isnan isneginf isposinf
isreal istft item kaiser_window kl_div kron kthvalue l1_loss layer_norm lcm ldexp le leaky_relu lerp less less_equal
lgamma lift lift_fresh lift_fresh_copy linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross linalg_det
linalg_diagonal linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv
linalg_inv_ex linalg_lstsq linalg_lu linalg_lu_factor linalg_matmul linalg_matrix_exp linalg_matrix_norm
linalg_matrix_power linalg_matrix_rank linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve
linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander
linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2 log_normal log_sigmoid log_softmax logaddexp
logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logspace logsumexp lstm lstm_cell
lt mH mT margin_ranking_loss masked_fill masked_scatter masked_select matmul matrix_H matrix_exp matrix_power max
max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean
median meshgrid min minimum mish mm mode moveaxis movedim mse_loss msort mul multi_margin_loss multilabel_margin_loss
multinomial multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow narrow_copy native_batch_norm
native_dropout native_group_norm native_layer_norm ne neg negative new_empty new_full new_ones new_zeros nextafter
nll_loss nll_loss2d nll_loss_nd nonzero nonzero_numpy norm normal normal_functional not_equal nuclear_norm numel
numpy_T one_hot ones ones_like outer pad pad_sequence pairwise_distance permute permute_copy pinverse pixel_shuffle
pixel_unshuffle poisson poisson_nll_loss polar polygamma positive pow prelu prod qr quantile rad2deg rand rand_like
randint randint_like randn randn_like random randperm range ravel real reciprocal reflection_pad1d reflection_pad2d
reflection_pad3d relu relu6 remainder renorm repeat repeat_interleave replication_pad1d replication_pad2d
replication_pad3d reshape reshape_as resolve_conj resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
roll rot90 round rrelu rrelu_with_noise rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
scatter_reduce searchsorted select select_copy select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice
slice_copy slice_scatter slogdet smooth_l1_loss soft_margin_loss softmax softplus softshrink sort special_bessel_j0
special_bessel_j1 special_digamma special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2
special_expit special_expm1 special_gammainc special_gammaincc special_gammaln special_i0 special_i0e special_i1
special_i1e special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp special_multigammaln
special_ndtr special_ndtri special_polygamma special_psi special_round special_sinc special_softmax special_xlog1py
special_xlogy special_zeta split split_with_sizes sqrt square squeeze squeeze_copy stack std std_mean stft sub
subtract sum sum_to_size svd swapaxes swapdims sym_constrain_range sym_constrain_range_for_size sym_numel sym_size t
t_copy take take_along_dim tan tanh tensor_split tensordot threshold tile to topk trace transpose transpose_copy
trapezoid trapz triangular_solve tril tril_indices triplet_margin_loss triu triu_indices true_divide trunc type_as
unbind unflatten unfold uniform unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes
unsqueeze unsqueeze_copy upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_trilinear3d vander var var_mean vdot view view_as view_as_complex
view_as_real vsplit vstack where xlogy zero zeros zeros_like
"""
_ATEN = frozenset(_ATEN_NAMES.split())
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int]] = {  # name -> function and how many arguments it takes
    **{
        f"operator.{name}": (getattr(operator, name), 2)
        for name in [
            "getitem",
            "add",
            "sub",
            "mul",
            "truediv",
            "floordiv",
            "mod",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "and_",
            "or_",
        ]
    },
    **{f"operator.{name}": (getattr(operator, name), 1) for name in ("neg", "not_", "abs", "pos")},
    **{f"math.{name}": (getattr(math, name), 1) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.{name}": (getattr(torch, name), 1) for name in ("sym_int", "sym_float", "sym_not", "sym_sum")},
    **{f"torch.{name}": (getattr(torch, name), 2) for name in ("sym_max", "sym_min")},
    "torch.sym_ite": (torch.sym_ite, 3),
}
_WRAPPERS: Mapping[str, HigherOrderOperator] = {f"higher_order.{wrapper.name()}": wrapper for wrapper in WRAPPERS}
SIMULATE: OpOverload = torch.ops.qcascade.simulate.default
_NAMES: Mapping[Any, str] = {
    **{function: name for name, (function, _) in _FUNCTIONS.items()},
    **{wrapper: name for name, wrapper in _WRAPPERS.items()},
    SIMULATE: "qcascade.simulate.default",
}


def operator_name(target: Any) -> str:
    """The name of a node's target.

    Raises:
        BundleError: It is not in the list.

    Example:
        >>> operator_name(torch.ops.aten.add.Tensor)
        'aten.add.Tensor'
    """
    if callable(target) and target in _NAMES:
        return _NAMES[target]
    if isinstance(target, OpOverload) and _overload(str(target)) is target:
        return str(target)
    raise BundleError(
        f"the graph calls {target}, which is none of the operators that a bundle may hold (qcascade/bundle/operators.py). "
        "Models with operators of their own cannot be exported."
    )


def operator_of(name: str) -> Callable[..., Any]:
    """The operator of a name.

    Raises:
        BundleError: It is not in the list.

    Example:
        >>> operator_of("aten.from_file.default")
        Traceback (most recent call last):
        qcascade.errors.BundleError: graph.json calls 'aten.from_file.default', which is no operator that a bundle may hold.
    """
    found: Callable[..., Any] | None = SIMULATE if name == _NAMES[SIMULATE] else _WRAPPERS.get(name)
    found = found or _FUNCTIONS.get(name, (None,))[0] or _overload(name)
    if found is None:
        raise BundleError(f"graph.json calls {name[:80]!r}, which is no operator that a bundle may hold.")
    return found


def is_wrapper(target: Any) -> bool:
    """Whether an operator runs an inner graph."""
    return target in _WRAPPERS.values()


def arity(target: Any) -> int | None:
    """How many arguments a plain function takes, None for operators of torch."""
    name = _NAMES.get(target, "")
    return _FUNCTIONS[name][1] if name in _FUNCTIONS else None


def _overload(name: str) -> OpOverload | None:
    """An ATen operator of the list."""
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten":
        return None
    base = parts[1].removesuffix("_") if not parts[1].endswith("__") else parts[1]
    if base not in _ATEN and parts[1] not in ("copy_", "normal_", "uniform_", "random_"):
        return None
    packet = getattr(torch.ops.aten, parts[1], None)
    if packet is None or parts[2] not in packet.overloads():
        return None
    overload: OpOverload = getattr(packet, parts[2])
    taken = overload._schema.arguments
    written = any(a.alias_info is not None and a.alias_info.is_write and a.kwarg_only for a in taken)
    collections = any(str(a.type).startswith(("Dict", "List[t]")) for a in taken)
    return None if written or collections else overload  # forms with out=, and TorchScript's own, are never captured
