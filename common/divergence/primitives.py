"""What is known about the primitives of JAX."""

# The parameters of an equation that hold the body of a call.
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
INLINED = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "checkpoint",
    "remat",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "custom_lin",
}
# Primitives that do not round, except when they cast to a narrower dtype.
EXACT = {
    "abs",
    "broadcast_in_dim",
    "concatenate",
    "constant",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "gather",
    "input",
    "max",
    "min",
    "neg",
    "pad",
    "reduce_max",
    "reduce_min",
    "reshape",
    "rev",
    "scan slice",
    "scan stack",
    "select_n",
    "slice",
    "sort",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}
CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "debug_print"}
