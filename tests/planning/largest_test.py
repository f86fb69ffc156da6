"""The search for the largest batch."""

import pytest

from segjax.compilers.operations import Operations
from segjax.planning import plan
from segjax.planning.largest import largest


def search(memory, room: float, *, unit: int = 1, first: int = 8, most: int = 4096):
    """(what is found, the batches that were compiled); `memory` tells None where it is refused."""
    tried = []

    def compiled(images: int) -> plan.Program:
        tried.append(images)
        needed = memory(images)
        taken = None if needed is None else plan.Memory(0, 0, needed, needed)
        return plan.Program(taken, Operations(), None, 0.0)

    return largest(compiled, unit, room, first=first, most=most), tried


@pytest.mark.parametrize("room", [99, 100, 105, 117, 1000, 20_000])
@pytest.mark.parametrize("first", [1, 8, 64])
def test_the_largest_batch_is_found_with_few_steps_compiled(room, first):
    found, tried = search(lambda images: 20 + 10 * images, room, first=first)
    assert found.images == (room - 20) // 10
    assert found.fits.memory.total <= room < found.beyond.memory.total
    assert len(tried) == len(set(tried)) <= 8


def test_a_batch_grows_by_what_the_devices_and_parts_need():
    found, tried = search(lambda images: 10 * images, 205, unit=8)
    assert found.images == 16
    assert all(images % 8 == 0 for images in tried)


def test_memory_that_grows_in_steps_is_found_too():
    def memory(images):
        return 100 * -(-images // 5) + images

    found, _ = search(memory, 350)
    assert memory(found.images) <= 350 < memory(found.images + 1)


def test_a_compiler_that_refuses_counts_as_too_much():
    found, _ = search(lambda images: None if images > 21 else 10 * images, 1000)
    assert found.images == 21
    assert found.beyond.memory is None


def test_where_nothing_fits_none_is_said():
    found, tried = search(lambda images: 500 + images, 100)
    assert (found.images, found.fits) == (0, None)
    assert 1 in tried


def test_no_more_is_tried_than_allowed():
    found, tried = search(lambda images: images, 1e9, most=512)
    assert (found.images, found.beyond) == (512, None)
    assert max(tried) == 512
