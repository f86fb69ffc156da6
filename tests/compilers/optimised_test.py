"""The traffic of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from segjax import sharding
from segjax.compilers import optimised

TEXT = """
HloModule jit_step

%fused (p0: f32[4,8]) -> f32[4,8] {
  %p0 = f32[4,8]{1,0} parameter(0)
  ROOT %inner = f32[4,8]{1,0} negate(%p0)
}

%body (carry: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %carry = (s32[], f32[4,8]{1,0}) parameter(0)
  %value = f32[4,8]{1,0} get-tuple-element(%carry), index=1
  %sum = f32[4,8]{1,0} all-reduce(%value), replica_groups={}, to_apply=%add
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%i, %sum)
}

ENTRY %main (a: f32[4,8], b: bf16[8,2]) -> f32[4,8] {
  %a = f32[4,8]{1,0:T(8,128)} parameter(0)
  %b = bf16[8,2]{1,0} parameter(1)
  %f = f32[4,8]{1,0} fusion(%a), kind=kLoop, calls=%fused
  %loop = (s32[], f32[4,8]{1,0}) while(%init), body=%body, config={"known_trip_count":{"n":"5"}}
  %start = (bf16[8,2]{1,0}, bf16[8,2]{1,0}) collective-permute-start(%b), pairs={{0,1}}
  %done = bf16[8,2]{1,0} collective-permute-done(%start)
  %conv = (f32[4,8]{1,0}, s8[4096]{0}) custom-call(%f, %a), custom_call_target="conv"
  ROOT %root = f32[4,8]{1,0} get-tuple-element(%conv), index=0
}
"""


def test_a_program_moves_the_operands_and_results_of_its_instructions():
    found = optimised.traffic(TEXT)
    array, half = 4 * 8 * 4, 8 * 2 * 2
    assert found.by_kind == {
        "all-reduce": 5 * 2 * array,  # five turns of the loop
        "custom-call": 3 * array,  # without the room that it works in
        "fusion": 2 * array,
        "collective-permute": 2 * half,
    }
    assert found.bytes == sum(found.by_kind.values())
    assert found.collectives == (
        optimised.Collective("all-reduce", 5, 5 * array),
        optimised.Collective("collective-permute", 1, half),
    )


PARTS = """
HloModule jit_step

%sliced (p0: bf16[8,16], p1: f32[8,4], p2: s32[]) -> (f32[8,4], f32[2,4]) {
  %p0 = bf16[8,16]{1,0} parameter(0)
  %p1 = f32[8,4]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %wide = f32[8,16]{1,0} convert(%p0)
  %part = f32[2,4]{1,0} slice(%wide), slice={[0:2], [0:4]}
  %placed = f32[8,4]{1,0} dynamic-update-slice(%p1, %part, %p2, %p2)
  ROOT %both = (f32[8,4]{1,0}, f32[2,4]{1,0}) tuple(%placed, %part)
}

ENTRY %main (a: bf16[8,16], b: f32[8,4]) -> f32[2,4] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = f32[8,4]{1,0} parameter(1)
  %i = s32[] constant(0)
  %f = (f32[8,4]{1,0}, f32[2,4]{1,0}) fusion(%a, %b, %i), kind=kLoop, calls=%sliced
  %placed = f32[8,4]{1,0} get-tuple-element(%f), index=0
  %near = f32[8,4]{1,0:T(8,128)S(1)} copy(%placed)
  %row = f32[1,4]{1,0:T(8,128)S(1)} dynamic-slice(%near, %i, %i), dynamic_slice_sizes={1,4}
  ROOT %out = f32[1,4]{1,0} negate(%row)
}
"""


def test_slices_count_as_what_they_read_and_updates_as_what_they_write():
    """Also inside of fusions; what lies in a TPU core's own memory does not count."""
    part = 2 * 4
    assert optimised.traffic(PARTS).by_kind == {
        "fusion": part * 2 + 4 + part * 4 + part * 4,  # the slice, the index, the update, the part
        "copy": 8 * 4 * 4,  # from the main memory, to the core's
        "negate": 1 * 4 * 4,
        "dynamic-slice": 4 + 4,
    }


def test_the_gradients_of_a_batch_over_devices_are_summed_once():
    mesh = sharding.make_mesh(1)
    rows, whole = sharding.batch_sharding(mesh, "image"), sharding.replicated(mesh)
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=rows)
    kernel = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=whole)
    gradient = jax.grad(lambda kernel, x: jnp.sum(jnp.sin(x @ kernel)))
    text = jax.jit(gradient, out_shardings=whole).lower(kernel, x).compile().as_text()
    assert optimised.traffic(text).collectives == (
        optimised.Collective("all-reduce", 1, 16 * 4 * 4),
    )


@pytest.mark.parametrize("size", [1000, 4000])
def test_an_addition_moves_what_it_reads_and_writes(size):
    x = jax.ShapeDtypeStruct((size,), jnp.float32)
    text = jax.jit(jnp.add).lower(x, x).compile().as_text()
    assert optimised.traffic(text).bytes == 3 * 4 * size
