"""Tensor networks in PyTorch: formats, decompositions, initializers, contraction, and layers made of them."""

from .bias import TTBias
from .canonical_polyadic import CanonicalPolyadic
from .cheap_shapes import cheapest_shape
from .contraction import Plan, explain, matmul
from .decompositions import from_kronecker, to_kronecker, tr_svd, tt_svd
from .describe import describe
from .embedding import TTEmbedding
from .formats import FORMATS
from .initializers import (
    const_initializer,
    glorot_initializer,
    he_initializer,
    lecun_initializer,
    matrix_with_random_cores,
    random_matrix,
)
from .linear import TTLinear
from .low_rank import from_low_rank, to_low_rank
from .normalization import ScaleNorm, TTLayerNorm
from .shapes import factorize, suggest_shape, tt_shape
from .tensor_basis import TensorBasis, TensorBasisFormat
from .tensor_ring import TensorRing
from .tensor_train import TensorTrain
from .tucker import Tucker
from .version import __version__

__all__ = [
    "FORMATS",
    "CanonicalPolyadic",
    "Plan",
    "ScaleNorm",
    "TTBias",
    "TTEmbedding",
    "TTLayerNorm",
    "TTLinear",
    "TensorBasis",
    "TensorBasisFormat",
    "TensorRing",
    "TensorTrain",
    "Tucker",
    "__version__",
    "cheapest_shape",
    "const_initializer",
    "describe",
    "explain",
    "factorize",
    "from_kronecker",
    "from_low_rank",
    "glorot_initializer",
    "he_initializer",
    "lecun_initializer",
    "matmul",
    "matrix_with_random_cores",
    "random_matrix",
    "suggest_shape",
    "to_kronecker",
    "to_low_rank",
    "tr_svd",
    "tt_shape",
    "tt_svd",
]
