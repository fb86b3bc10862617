"""The names that the command accepts, written by .ci/generate: no Keras is needed."""

SCHEDULES = (
    "constant_sparsity",
    "cosine",
    "dense_sparse_dense",
    "exponential",
    "iterative",
    "one_cycle",
    "polynomial_decay",
)
PATTERNS = (
    "unstructured",
    "block",
    "channel",
    "column",
    "filter",
    "kernel",
    "n_of_m",
    "row",
    "slice",
)
CRITERIA = (
    "magnitude",
    "apoz",
    "batch_norm_scale",
    "fpgm",
    "gradient",
    "gradient_momentum",
    "hessian_diagonal",
    "l1_filter",
    "l2_filter",
    "lamp",
    "large_final",
    "large_init",
    "large_init_large_final",
    "magnitude_increase",
    "mean_activation",
    "movement",
    "movmag",
    "random",
    "saliency",
    "small_final",
    "small_init",
    "small_init_small_final",
    "squared_final",
    "taylor",
)
SCOPES = ("local", "global")
DISTRIBUTIONS = (
    "uniform",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "first_layer_dense",
    "lamp",
    "per_layer",
)
FORMATS = ("keras", "saved_model", "onnx", "litert")
QUANTIZED = ("dynamic", "float16", "int8")
COMPARED = (
    "keras",
    "litert",
    "sparse litert",
    "dynamic litert",
    "float16 litert",
    "int8 litert",
    "onnx",
)
COMPARED_BY_DEFAULT = ("keras", "litert", "sparse litert", "int8 litert")
