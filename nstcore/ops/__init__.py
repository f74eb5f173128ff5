"""Operations on tensors and arrays, one file a family; `OPS` is the registry of their records."""

from __future__ import annotations

from nstcore.ops._op import OPS, Case, Kernel, Op, Tolerance
from nstcore.ops.contrastive import contrastive_loss
from nstcore.ops.conv import conv2d
from nstcore.ops.elementwise import (
    absolute,
    add,
    div,
    exp,
    log,
    maximum,
    mul,
    power,
    relu,
    relu_backward,
    sigmoid,
    softplus,
    sqrt,
    sub,
)
from nstcore.ops.gram import gram, style_loss
from nstcore.ops.linear import l2_normalize, logistic_loss, matmul
from nstcore.ops.norm import batch_norm, batch_norm_pool2d, dropout
from nstcore.ops.normalization import local_response_norm
from nstcore.ops.pairwise import nearest, pairwise_cosine, pairwise_inner, pairwise_sqdist
from nstcore.ops.pool import avg_pool2d, channel_peaks, max_pool2d
from nstcore.ops.prelu import prelu
from nstcore.ops.reduce import mean, sum
from nstcore.ops.shaping import concat, getitem, pad, reshape, transpose
from nstcore.ops.standardize import standardize
from nstcore.ops.style import content_loss, normalize_channels, total_variation
from nstcore.ops.triplet import TripletStats, batch_triplet_loss, triplet_loss, triplet_stats
from nstcore.ops.warp import warp_affine

__all__ = [
    "OPS", "Case", "Kernel", "Op", "Tolerance", "TripletStats", "absolute", "add", "avg_pool2d", "batch_norm",
    "batch_norm_pool2d", "batch_triplet_loss", "channel_peaks", "concat", "content_loss", "contrastive_loss", "conv2d",
    "div", "dropout", "exp", "getitem", "gram", "l2_normalize", "local_response_norm", "log", "logistic_loss", "matmul",
    "max_pool2d", "maximum", "mean", "mul", "nearest", "normalize_channels", "pad", "pairwise_cosine",
    "pairwise_inner", "pairwise_sqdist", "power", "prelu", "relu", "relu_backward", "reshape", "sigmoid", "softplus",
    "sqrt", "standardize", "style_loss", "sub", "sum", "total_variation", "transpose", "triplet_loss", "triplet_stats",
    "warp_affine",
]  # fmt: skip
