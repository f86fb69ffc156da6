"""The floating-point operations of a traced program, by the formula of every operation.

A product of [M, K] and [K, N] takes 2 M N K operations, one multiplication and one addition for
each pair; a convolution 2 for each tap of each output, taps on padding included and those between
the values of a dilated input not. Other operations count one for each number of the result, and
reductions one for each number that they read. These are the operations of the definition: forms
that multiply less, such as Winograd's, do not change them, so that they measure what a device
achieves of its rate.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core


@dataclasses.dataclass(frozen=True)
class Operations:
    """Floating-point operations of a program, over all devices.

    Attributes:
        products: those of matrix products and convolutions.
        again: products that the backward pass computes again rather than keep; not in `products`.
        others: all other operations.
        unbounded: loops whose number of turns the program does not tell; each counts once.
    """

    products: float = 0.0
    again: float = 0.0
    others: float = 0.0
    unbounded: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def times(self, count: int) -> "Operations":
        """Those of `count` runs; a loop counts once however often it is run."""
        return Operations(
            count * self.products, count * self.again, count * self.others, self.unbounded
        )

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.again + self.others


def _values(operations: Operations) -> tuple:
    return dataclasses.astuple(operations)


def of_traced(traced: jax.stages.Traced) -> Operations:
    """The operations of `jax.jit(function).trace(...)`, without those that no result needs."""
    jaxpr = traced.jaxpr.jaxpr
    return _of(jaxpr, [True] * len(jaxpr.outvars))[0]


def _of(jaxpr: core.Jaxpr, wanted: Sequence[bool]) -> tuple[Operations, list[bool]]:
    """The operations for the results that are wanted, and which arguments they need."""
    defaults = _default_branches(jaxpr)
    outputs = zip(jaxpr.outvars, wanted, strict=True)
    live = {v for v, want in outputs if want and not isinstance(v, core.Literal)}
    total = Operations()
    for eqn in reversed(jaxpr.eqns):
        if not (live.intersection(eqn.outvars) or eqn.effects):
            continue
        cost, needed = _of_equation(eqn, [v in live for v in eqn.outvars], defaults)
        if "rematted_computation" in str(eqn.source_info.name_stack):
            cost = dataclasses.replace(cost, products=0.0, again=cost.products + cost.again)
        total += cost
        inputs = zip(eqn.invars, needed, strict=True)
        live |= {v for v, need in inputs if need and not isinstance(v, core.Literal)}
    return total, [v in live for v in jaxpr.invars]


def _default_branches(jaxpr: core.Jaxpr) -> dict[Any, int]:
    """Variables that choose between platforms, and the choice of one that is not named."""
    chosen: dict[Any, int] = {}
    for eqn in jaxpr.eqns:
        known = [chosen[v] for v in eqn.invars if not isinstance(v, core.Literal) and v in chosen]
        if eqn.primitive.name == "platform_index":
            chosen[eqn.outvars[0]] = eqn.params["platforms"].index(None)
        elif known and eqn.primitive.name in ("convert_element_type", "clamp"):
            chosen[eqn.outvars[0]] = known[0]
    return chosen


def _of_equation(
    eqn: core.JaxprEqn, wanted: Sequence[bool], defaults: Mapping[Any, int]
) -> tuple[Operations, list[bool]]:
    name, params = eqn.primitive.name, eqn.params
    everything = [True] * len(eqn.invars)
    if name == "cond":
        index, branches = eqn.invars[0], params["branches"]
        if not isinstance(index, core.Literal) and index in defaults:
            branches = branches[defaults[index] : defaults[index] + 1]
        by_branch = [_of(branch.jaxpr, wanted) for branch in branches]
        needed = [any(need) for need in zip(*(needs for _, needs in by_branch), strict=True)]
        return max((cost for cost, _ in by_branch), key=lambda cost: cost.total), [True, *needed]
    if name == "scan":
        return _all_of(params["jaxpr"].jaxpr).times(params["length"]), everything
    if name == "while":
        once = _all_of(params["body_jaxpr"].jaxpr) + _all_of(params["cond_jaxpr"].jaxpr)
        return dataclasses.replace(once, unbounded=once.unbounded + 1), everything
    inner = [jaxpr for value in params.values() for jaxpr in _jaxprs(value)]
    if not inner:
        return _of_primitive(eqn), everything
    called = inner[0]  # the others of a custom derivative are rules, not calls
    same = (len(called.invars), len(called.outvars)) == (len(eqn.invars), len(eqn.outvars))
    cost, needed = _of(called, wanted) if same else (_all_of(called), everything)
    if name == "shard_map":
        sizes = params["mesh"].shape
        cost = cost.times(math.prod(sizes[axis] for axis in params["newly_manual_axes"]))
    return cost, needed


def _all_of(jaxpr: core.Jaxpr) -> Operations:
    return _of(jaxpr, [True] * len(jaxpr.outvars))[0]


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    """The program that a parameter of an equation is, if it is one."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    return [value] if isinstance(value, core.Jaxpr) else []


def _of_primitive(eqn: core.JaxprEqn) -> Operations:
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return Operations(products=_PRODUCTS[name](eqn))
    if name in _FREE:
        return Operations()
    read = name.startswith(("reduce", "arg", "cum"))
    return Operations(others=float(sum(_size(v) for v in (eqn.invars if read else eqn.outvars))))


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))


def _dot(eqn: core.JaxprEqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = _shape(eqn.invars[0])
    return float(2 * _size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracted))


def _convolution(eqn: core.JaxprEqn) -> float:
    params, kernel = eqn.params, _shape(eqn.invars[1])
    _, features_in, *space = params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel[axis] for axis in space) * kernel[features_in]
    between = math.prod(params["lhs_dilation"])
    # Of a convolution grouped by batch each output sees the images of its group alone.
    return float(2 * _size(eqn.outvars[0]) * taps / between / params["batch_group_count"])


_PRODUCTS: Mapping[str, Callable[[core.JaxprEqn], float]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}

_FREE = frozenset(
    (
        "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice",
        "dynamic_slice", "concatenate", "pad", "rev", "dynamic_update_slice", "gather", "copy",
        "iota", "convert_element_type", "bitcast_convert_type", "split", "stop_gradient",
        "optimization_barrier", "sharding_constraint", "random_wrap", "random_unwrap",
        "platform_index", "axis_index", "pcast", "pvary", "ppermute", "psum", "all_gather",
        "all_to_all", "name", "random_seed", "random_bits", "random_fold_in", "random_split",
        "threefry2x32", "create_token", "copy_p", "device_put",
    )
)  # fmt: skip
"""Operations that move numbers or compute none of floats."""
