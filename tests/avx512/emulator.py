"""Functions of this process, run by an emulated CPU that has AVX-512 (Bochs, as a library).

Guest addresses are host addresses: the guest's page tables map each GiB of the process's address
space that holds anything, and single pages are attached when the guest first touches them. So
pointers mean the same on both sides, and nothing has to be copied. One thread, no system calls.
"""

import ctypes
import mmap
import os
from pathlib import Path

import bochscpu
from bochscpu import memory
from bochscpu.cpu import set_long_mode

PAGE, GIB = 1 << 12, 1 << 30
STACK_BYTES = 8 << 20
HALT = b"\xf4"  # the instruction hlt
PAGE_FAULT = 14  # vector of the CPU exception
UNMAPPED = 99  # exit code after an access to memory that the process does not have

# Guest-physical addresses. The emulated bus is narrower than host addresses are, so windows of
# 1 GiB are handed out in the order of need.
FIRST_TABLE = 256 << 20
FIRST_WINDOW = 4

# Bits of page table entries and control registers, named as in Intel's manual, volume 3, 2.5-4.5.
PRESENT_WRITABLE_USER, LARGE = 0b111, 1 << 7
CR0_PAGING_AND_PROTECTION = 0x8005_0033  # PG AM WP NE ET MP PE
CR4_PAE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE = 1 << 5, 1 << 9, 1 << 10, 1 << 18
EFER_LONG_MODE = 0xD01  # NXE LMA LME SCE
XCR0_X87_TO_ZMM = 0b1110_0111
CODE_64_BIT, DATA = 0xA09B, 0xC093  # attributes of segments
MXCSR_DEFAULT = 0x1F80  # round to nearest, exceptions masked, denormals kept

SYS_ARCH_PRCTL, ARCH_GET_FS = 158, 0x1003
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")  # System V calling convention


class GuestFault(RuntimeError):
    """The function raised a CPU exception, an unknown instruction for one."""


class Emulator:
    """An emulated CPU that sees the memory of this process.

    The library crashes when the interpreter ends; leave with ``os._exit``.
    """

    def __init__(self):
        self._session = bochscpu.Session()
        self._session.missing_page_handler = self._attach_page
        self._hook = bochscpu.Hook()
        self._hook.hlt = lambda session, cpu: session.stop()
        self._hook.exception = self._note_fault
        self._fault = None
        self._windows = []  # GiB of the process by guest-physical GiB, from FIRST_WINDOW on
        self._readable = []
        self._tables = {}  # guest-physical address -> the table's entries
        self._root = self._new_table()
        self._stack = mmap.mmap(-1, STACK_BYTES)
        self._stack[-PAGE : 1 - PAGE] = HALT
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._stack))
        self._halt_address = base + STACK_BYTES - PAGE

    def call(self, function, *arguments):
        """Call a ctypes function with up to six integers or addresses; returns rax.

        Raises:
            GuestFault: the function raised a CPU exception. An access to memory that the process
                does not have ends the process with code ``UNMAPPED`` instead, because an error
                cannot pass through the library at that point.
        """
        self._map_process()
        state = self._initial_state()
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            setattr(state, register, value)
        state.rip = ctypes.cast(function, ctypes.c_void_p).value
        state.rsp = self._halt_address - 8  # 8 modulo 16, as right after a call
        ctypes.c_uint64.from_address(state.rsp).value = self._halt_address
        self._fault = None
        self._session.cpu.state = state
        self._session.run([self._hook])
        if self._fault:
            raise GuestFault(self._fault)
        return self._session.cpu.state.rax

    def _initial_state(self):
        """A user program's state in 64-bit mode; fs as on the host, for thread-local variables."""
        state = bochscpu.State()
        set_long_mode(state)
        state.cr3 = self._root
        state.cr0 = CR0_PAGING_AND_PROTECTION
        state.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE
        state.efer = EFER_LONG_MODE
        state.xcr0 = XCR0_X87_TO_ZMM
        state.mxcsr, state.mxcsr_mask = MXCSR_DEFAULT, 0xFFFF
        state.fpcw, state.fptw = 0x37F, 0xFFFF
        state.rflags = 2
        state.cs = _segment(CODE_64_BIT)
        state.ds = state.es = state.ss = state.gs = _segment(DATA)
        state.fs = _segment(DATA, _thread_pointer())
        return state

    def _map_process(self):
        """Page tables for what the process has mapped by now."""
        self._readable = list(_readable_ranges())
        for start, end in self._readable:
            for gib in range(start // GIB, (end - 1) // GIB + 1):
                if gib not in self._windows:
                    self._windows.append(gib)
                    self._map_window(gib, FIRST_WINDOW + len(self._windows) - 1)

    def _map_window(self, gib, window):
        """One entry of a page-directory-pointer table maps a whole GiB."""
        root = self._tables[self._root]
        if not root[gib >> 9]:
            root[gib >> 9] = self._new_table() | PRESENT_WRITABLE_USER
        table = self._tables[root[gib >> 9] & -PAGE]
        table[gib & 511] = window * GIB | LARGE | PRESENT_WRITABLE_USER

    def _new_table(self):
        """An empty page table; returns its guest-physical address."""
        address = FIRST_TABLE + len(self._tables) * PAGE
        page = memory.allocate_host_page()
        memory.page_insert(address, page)
        self._tables[address] = (ctypes.c_uint64 * 512).from_address(page)
        return address

    def _attach_page(self, physical):
        window = physical // GIB - FIRST_WINDOW
        if 0 <= window < len(self._windows):
            page = (self._windows[window] * GIB + physical % GIB) & -PAGE
            if any(start <= page < end for start, end in self._readable):
                memory.page_insert(physical & -PAGE, page)
                return
        self._end(f"access to unmapped memory at rip={self._session.cpu.rip:#x}")

    def _note_fault(self, session, cpu, vector, code):
        if vector == PAGE_FAULT:  # in a GiB without anything; other accesses get to _attach_page
            self._end(f"access to unmapped memory at rip={session.cpu.rip:#x}")
        self._fault = f"CPU exception {vector}, code {code:#x}, at rip={session.cpu.rip:#x}"
        session.stop()

    def _end(self, message):
        os.write(2, f"{message}\n".encode())
        os._exit(UNMAPPED)


def _segment(attributes, base=0):
    segment = bochscpu.Segment()
    segment.present, segment.selector, segment.attr = True, 0x10, attributes
    segment.base, segment.limit = base, 0xFFFF_FFFF
    return segment


def _thread_pointer():
    value = ctypes.c_uint64()
    ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_GET_FS, ctypes.byref(value))
    return value.value


def _readable_ranges():
    """Start and end of the process's readable memory, the kernel's own pages left out."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        start, end = (int(address, 16) for address in span.split("-"))
        if permissions.startswith("r") and "[v" not in line:
            yield start, end
