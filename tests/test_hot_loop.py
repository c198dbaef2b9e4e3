"""The hot loop, from small assembly texts."""

import pytest

from tvm_sparsewino.hot_loop import Loop, hot_loop, inner_loops

NEST = """
kernel:
	.cfi_startproc
	xorl	%eax, %eax
.LBB0_1:                                # =>This Loop Header: Depth=1
	vxorps	%xmm0, %xmm0, %xmm0
	jmp	.LBB0_2
	.p2align	4
.LBB0_2:                                #   Parent Loop BB0_1 Depth=1
.Ltmp7:
	.loc	1 0 0
	vbroadcastss	(%rsi,%rax,4), %ymm1    # the value
	vfmadd231ps	(%rdi), %ymm1, %ymm0
	vfmadd231ps	32(%rdi), %ymm1, %ymm2  # ymm2 = (ymm1 * mem) + ymm2
	testq	%rcx, %rcx
	je	.LBB0_3
	addq	$1, %rax
.LBB0_3:
	cmpq	%rax, %rcx
	jne	.LBB0_2
	vmovups	%ymm0, (%rdx)
	vfmadd231ps	64(%rdi), %ymm1, %ymm0
	jb	.LBB0_1
.LBB0_5:
	vfmadd213ps	(%rdi), %ymm1, %ymm0
	vmovups	%ymm0, 32(%rdx)
	jne	.LBB0_5
	retq
"""


def loop(*body):
    return Loop(".L", body)


def test_inner_loops_are_those_without_a_loop_inside():
    first, second = inner_loops(NEST)
    assert (first.label, second.label) == (".LBB0_2", ".LBB0_5")
    assert first.body == (
        "vbroadcastss	(%rsi,%rax,4), %ymm1",
        "vfmadd231ps	(%rdi), %ymm1, %ymm0",
        "vfmadd231ps	32(%rdi), %ymm1, %ymm2",
        "testq	%rcx, %rcx",
        "je	.LBB0_3",
        "addq	$1, %rax",
        "cmpq	%rax, %rcx",
        "jne	.LBB0_2",
    )


def test_a_loop_after_another_one_does_not_enclose_it():
    text = ".A:\n addl $1, %eax\n jne .A\n.B:\n addl $2, %eax\n jne .B\n"
    assert [x.label for x in inner_loops(text)] == [".A", ".B"]


def test_jumps_forward_and_elsewhere_make_no_loop():
    assert inner_loops("f:\n je .L1\n jmp g\n jmp *%rax\n.L1:\n retq\n") == []


def test_the_hot_loop_has_most_multiply_adds():
    assert hot_loop(NEST).label == ".LBB0_2"


def test_of_equal_loops_the_first_is_hot():
    one = ".{0}:\n vfmadd231ps %ymm0, %ymm1, %ymm2\n jne .{0}\n"
    assert hot_loop(one.format("A") + one.format("B")).label == ".A"


def test_without_multiply_adds_nothing_is_hot():
    with pytest.raises(ValueError, match="no loop of multiply-adds"):
        hot_loop(".A:\n vaddps %ymm0, %ymm1, %ymm2\n jne .A\n")


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("vfmadd231ps	%zmm0, %zmm1, %zmm2", True),
        ("vfmadd231ss	%xmm0, %xmm1, %xmm2", True),
        ("vfnmadd213ps	(%rax), %ymm1, %ymm2", True),
        ("vfmsub132ps	%ymm0, %ymm1, %ymm2", True),
        ("vmulps	%ymm0, %ymm1, %ymm2", False),
    ],
)
def test_multiply_adds(line, is_one):
    assert bool(loop(line).multiply_adds) == is_one


def test_accumulators_are_the_last_operands():
    lines = [f"vfmadd231ps	(%rax), %zmm1, %zmm{i}" for i in (2, 3, 2)]
    assert loop(*lines).accumulators == {"%zmm2", "%zmm3"}


def test_loads_and_stores_of_vectors():
    load, operand, store = (
        "vbroadcastss	(%rax), %zmm0",
        "vfmadd231ps	64(%rax,%rcx,4), %zmm0, %zmm1",
        "vmovups	%zmm1, (%rdx)",
    )
    found = loop(load, operand, store, "movslq	(%rax), %rcx", "vaddps	%zmm0, %zmm1, %zmm2")
    assert found.vector_loads == (load, operand)
    assert found.vector_stores == (store,)
    assert found.spills == ()


@pytest.mark.parametrize("address", ["(%rsp)", "64(%rsp)", "-32(%rbp)", "128(%rsp,%rax,4)"])
def test_spills_are_vectors_on_the_stack(address):
    for line in (f"vmovups	%zmm1, {address}", f"vfmadd231ps	{address}, %zmm0, %zmm1"):
        assert loop(line).spills == (line,)
    assert not loop(f"movq	{address}, %rax").spills
    for other in ("(%rax,%rbp,4)", "32(%rbp,%rax,4)", "-32(%rax)"):
        assert not loop(f"vmovups	%zmm1, {other}").spills


def test_a_loop_that_writes_rbp_has_no_frame_there():
    assert loop("movq\t16(%rsp), %rbp", "vbroadcastss\t-20(%rbp,%r11), %ymm13").spills == ()
    kept = loop("movq\t%rbp, %rax", "vmovups\t-64(%rbp), %ymm13")
    assert kept.spills == ("vmovups\t-64(%rbp), %ymm13",)
