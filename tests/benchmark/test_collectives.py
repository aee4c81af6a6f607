"""The communication of a program, read from the text of its HLO.

The lines are those of XLA, on several platforms.
"""

import pytest

from common.benchmark.collectives import (
    Collective,
    moved_bytes,
    read_collectives,
    ring_bytes,
)

HEADER = "HloModule jit_f, is_scheduled=true, num_partitions=8\n\n"


def module(*lines: str, before: str = "") -> str:
    """Returns an HLO module with some instructions in its entry."""
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"{HEADER}{before}ENTRY %main.1_spmd (param: f32[8]) -> f32[8] {{\n"
        f"{body}\n}}\n"
    )


def one(line: str) -> Collective:
    (found,) = read_collectives(module(line))
    return found


MESH = "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}"


@pytest.mark.parametrize(
    ("line", "kind", "size", "devices", "moved"),
    [
        (
            "%all-reduce.21 = (f32[64,64]{1,0}, bf16[6]{0}, /*index=5*/f32[]) "
            "all-reduce(%dot.5, %x, %loss), channel_id=11, "
            "replica_groups=[2,4]<=[8], to_apply=%add",
            "all-reduce",
            64 * 64 * 4 + 12 + 4,
            4,
            1.5 * (64 * 64 * 4 + 16),
        ),
        (
            "%all-reduce-start = f32[64]{0} all-reduce-start(%x), "
            "replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add",
            "all-reduce",
            256,
            2,
            256,
        ),
        (
            f"ROOT %all-gather.2 = f32[8,8]{{0,1}} all-gather(%x), {MESH}",
            "all-gather",
            256,
            4,
            192,
        ),
        (
            "%ags = (bf16[2,8]{1,0}, bf16[16,8]{1,0}) "
            "all-gather-start(bf16[2,8]{1,0} %x), replica_groups={}",
            "all-gather",
            256,
            8,
            224,
        ),
        (
            "%ags = ((f32[1], f32[2]), (f32[8]{0}, f32[16]{0:T(128)})) "
            "all-gather-start(%x, %y), replica_groups={}",
            "all-gather",
            96,
            8,
            84,
        ),
        (
            "%rs = f32[2,8]{1,0} reduce-scatter(%param.1), "
            "replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add",
            "reduce-scatter",
            256,
            4,
            192,
        ),
        (
            "%all-to-all = (f32[4,8]{1,0}, f32[4,8]{1,0}) "
            "all-to-all(%a, %b), replica_groups={{0,1},{2,3}}",
            "all-to-all",
            256,
            2,
            128,
        ),
        (
            "%permute = pred[8,8]{1,0} collective-permute(%x), "
            "source_target_pairs={{0,2},{2,4},{4,6}}",
            "collective-permute",
            64,
            4,
            64,
        ),
        (
            "%cps = (f64[8]{0}, f64[8]{0}, u32[], u32[]) "
            "collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            64,
            2,
            64,
        ),
        (
            "%cb = s4[16]{0} collective-broadcast(%x), "
            "replica_groups={{0,1,2}}",
            "collective-broadcast",
            8,
            3,
            8,
        ),
        (
            "%ar = f32[2]{0} all-reduce(%x), replica_groups="
            "mesh['a'=4,'b'=2] {'a':(2)2,'b'}, to_apply=%add",
            "all-reduce",
            8,
            4,
            12,
        ),
    ],
)
def test_operation_is_read(line, kind, size, devices, moved):
    found = one(line)
    assert (found.kind, found.size, found.devices) == (kind, size, devices)
    assert found.moved == moved == ring_bytes(kind, size, devices)


@pytest.mark.parametrize(
    "line",
    [
        "%ard = f32[64]{0} all-reduce-done(%all-reduce-start)",
        "%fusion = f32[64]{0} fusion(%all-reduce), calls=%fused",
        "%ar = f32[64]{0} all-reduce(%x), replica_groups={{0},{1}}",
        "%cp = f32[8]{0} collective-permute(%x), "
        "source_target_pairs={{0,0},{1,1}}",
    ],
)
def test_what_sends_nothing_does_not_count(line):
    assert read_collectives(module(line)) == ()


INSIDE = (
    "%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {\n"
    "  %ar = f32[8]{0} all-reduce(%x), replica_groups={}, to_apply=%add\n"
    "}\n\n"
    "%outer (p: f32[8]) -> f32[8] {\n"
    "  ROOT %w = (s32[], f32[8]) while(%t), condition=%c, body=%body, "
    'backend_config={"known_trip_count":{"n":"3"}}\n'
    "}\n\n"
)


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("%c = f32[8] call(%x), to_apply=%outer", 3),
        (
            "%w = f32[8] while(%t), condition=%c, body=%outer, "
            'backend_config={"known_trip_count":{"n":"5"}}',
            15,
        ),
        ("%w = f32[8] while(%t), condition=%c, body=%body", 1),
        (
            "%b = f32[8] conditional(%p, %x), "
            "branch_computations={%outer, %body}",
            4,
        ),
        (
            "%a = ((f32[8]), f32[1]) async-start(%x), calls=%body",
            1,
        ),
        ("%a = f32[8] add(%x, %y)", 0),
    ],
)
def test_operation_in_a_loop_counts_once_per_iteration(line, calls):
    found = read_collectives(module(line, before=INSIDE))
    assert sum(x.calls for x in found) == calls
    assert moved_bytes(found) == calls * 2 * 7 / 8 * 32


def test_what_is_no_program_is_refused(assert_raises):
    assert_raises(
        lambda: read_collectives("module @jit_f {}"),
        ValueError,
        "HLO: got 'module @jit_f .*', expected .* Pass what .*as_text.*",
    )
