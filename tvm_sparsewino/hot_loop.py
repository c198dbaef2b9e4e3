"""Find the loop in which a kernel spends its time, in its assembly text (x86, AT&T).

An inner loop is what lies between a label and a jump back to it, unless another loop lies inside.
The hot one is the inner loop with most multiply-adds. Pure text; nothing is compiled or run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"([.\w$]+):")
_JUMP = re.compile(r"j\w+\s+([.\w$]+)$")
_MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)\d+[ps]s\s")
_STACK = re.compile(r"\(%rsp[,)]")
_FRAME = re.compile(r"-\d+\(%rbp[,)]")
_NO_FRAME = re.compile(r",\s*%rbp$")  # a loop that writes rbp has no frame there
_VECTOR = re.compile(r"%[xyz]mm\d+")


@dataclass(frozen=True)
class Loop:
    """One inner loop.

    Attributes:
        label: where it jumps back to.
        body: its instructions, the jump back included; no comments, labels or directives.
    """

    label: str
    body: tuple[str, ...]

    @property
    def multiply_adds(self) -> tuple[str, ...]:
        """The fused multiply-adds, of whatever width."""
        return tuple(line for line in self.body if _MULTIPLY_ADD.match(line))

    @property
    def accumulators(self) -> frozenset[str]:
        """Where multiply-adds leave their sums: registers, "%zmm7" for one."""
        return frozenset(line.split(",")[-1].strip() for line in self.multiply_adds)

    @property
    def vector_loads(self) -> tuple[str, ...]:
        """Instructions that read memory into a vector register or a vector operation."""
        return tuple(x for x in self._with_memory() if not x.endswith(")"))

    @property
    def vector_stores(self) -> tuple[str, ...]:
        """Instructions that write a vector register to memory."""
        return tuple(x for x in self._with_memory() if x.endswith(")"))

    @property
    def spills(self) -> tuple[str, ...]:
        """Vector instructions that read or write the stack.

        Where rbp points to a frame, what lies there is below it; elsewhere LLVM uses it as any
        other register.
        """
        is_frame = not any(_NO_FRAME.search(line) for line in self.body)
        return tuple(
            x for x in self._with_memory() if _STACK.search(x) or (is_frame and _FRAME.search(x))
        )

    def _with_memory(self) -> list[str]:
        return [line for line in self.body if "(" in line and _VECTOR.search(line)]


def inner_loops(assembly: str) -> list[Loop]:
    """Every inner loop, in the order of the text."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    labels = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    loops: list[tuple[int, int, str]] = []
    for end, line in enumerate(lines):
        match = _JUMP.match(line)
        start = labels.get(match[1], end) if match else end
        # Loops end in the order of the text: one that lies inside has been found before.
        if start < end and not any(start <= inner for inner, _, _ in loops):
            loops.append((start, end, match[1]))
    return [
        Loop(label, tuple(x for x in lines[start : end + 1] if _is_instruction(x)))
        for start, end, label in loops
    ]


def hot_loop(assembly: str) -> Loop:
    """The inner loop with most multiply-adds; of equals the first.

    Raises:
        ValueError: no inner loop has a multiply-add.
    """
    loops = [loop for loop in inner_loops(assembly) if loop.multiply_adds]
    if not loops:
        raise ValueError("the assembly has no loop of multiply-adds")
    return max(loops, key=lambda loop: len(loop.multiply_adds))


def _is_instruction(line: str) -> bool:
    return bool(line) and not line.startswith(".") and not _LABEL.match(line)
