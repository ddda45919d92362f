"""Cases as bytes: the arena, the state, the image of a suite. The numbers are those of layout.inc and frame32.asm.

A case is a whole picture of memory and registers before one instruction (or a few); the image keeps only what is new against
the case before, and a hash of what the reference model says must come out.
"""

import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATE, STATE_DWORDS = 0x8000, 96
SHUTDOWN = 0x100
STUBS = 0xF0000

# The arena.
GDT, LDT, IDT, FRAME = 0x400, 0x600, 0x680, 0x7C0
GDT_LIMIT, LDT_LIMIT, IDT_LIMIT = 0x1FF, 0x7F, 0x13F
TSS_A, TSS_B, TSS_C = 0x800, 0x880, 0x900
STACKS = (0xB00, 0xC00, 0xD00, 0xE00)
DATA, CODE, LAND = 0xE80, 0xF00, 0xF80

# Selectors that every case has; those of a ring by its number.
CODES = (0x08, 0x19, 0x2A, 0x3B)
DATAS = (0x10, 0x21, 0x32, 0x43)
TSS_A_SEL, LDT_SEL, TSS_B_SEL, TSS_C_SEL = 0x48, 0x50, 0x58, 0x60
FREE = 0x80  # from here to 1EFh the family's own
OWN_CODE, OWN_DATA = 0x1F0, 0x1F8

# Dwords of the state.
EAX, ECX, EDX, EBX, EBP, ESI, EDI, ESP, SS, DS, ES, FS, GS, LDTR, TR = range(15)
CR0, CR3, CR4, GDTR, IDTR, DR0, DR6, DR7, CR2, MASK, EFER = 16, 17, 18, 19, 21, 23, 27, 28, 29, 30, 32

# Status flags that are undefined after some instructions are left out by a case's mask.
ALL_FLAGS = 0x3F7FD7

CF, PF, AF, ZF, SF, TF, IF, DF, OF = (1 << n for n in (0, 2, 4, 6, 7, 8, 9, 10, 11))
NT, RF, VM, AC, VIF, VIP, ID = (1 << n for n in (14, 16, 17, 18, 19, 20, 21))
IOPL = 3 << 12


def descriptor(base, limit, access, flags=0):
    """A descriptor; `flags` are G, D/B, L, AVL from the top."""
    return (
        limit & 0xFFFF | (base & 0xFFFFFF) << 16 | access << 40 | (limit >> 16 & 15) << 48 | flags << 52 | (base >> 24) << 56
    )


def gate(selector, offset, access, count=0):
    """A call, interrupt, trap or task gate."""
    return offset & 0xFFFF | selector << 16 | count << 32 | access << 40 | (offset >> 16 & 0xFFFF) << 48


class Case:
    """Memory and registers before, and what the code means to the model."""

    def __init__(self, size=0x1000):
        self.size = size
        self.mem = bytearray(size)
        self.state = bytearray(4 * STATE_DWORDS)
        self.ops = {}
        self.name = ""

    def copy(self):
        """Another one, to be changed."""
        other = Case(self.size)
        other.mem = bytearray(self.mem)
        other.state = bytearray(self.state)
        other.ops = dict(self.ops)
        return other

    def put(self, at, value, size=4):
        """Stores a number in the arena."""
        self.mem[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def get(self, at, size=4):
        """Reads one."""
        return int.from_bytes(self.mem[at : at + size], "little")

    def set(self, index, value):
        """Sets a dword of the state."""
        self.state[4 * index : 4 * index + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def reg(self, index):
        """Reads one."""
        return int.from_bytes(self.state[4 * index : 4 * index + 4], "little")

    def table(self, index, base, limit):
        """Sets GDTR or IDTR."""
        self.state[4 * index + 2 : 4 * index + 8] = struct.pack("<HI", limit, base)

    def gdt(self, selector, raw):
        """Sets a descriptor, of the LDT if the selector says so."""
        self.put((LDT if selector & 4 else GDT) + (selector & 0xFFF8), raw, 8)

    def idt(self, vector, raw):
        """Sets a gate of the IDT."""
        self.put(IDT + 8 * vector, raw, 8)

    def code(self, at, data, op=None):
        """Places an instruction: its bytes, and its meaning as a function of the model."""
        self.mem[at : at + len(data)] = data
        if op is not None:
            self.ops[at] = (op, len(data))

    def land(self, at=LAND):
        """Places INT 20h, by which code in any ring reports."""
        self.code(at, b"\xcd\x20", lambda m: m.int_n(0x20))

    def start(self, cpl, eip=CODE, esp=None, eflags=2, cs=None, ss=None):
        """How the case begins: by IRETD to this CS:EIP, with this stack."""
        cs = CODES[cpl] if cs is None else cs
        ss = DATAS[cpl] if ss is None else ss
        esp = STACKS[cpl] if esp is None else esp
        if cpl == 0:
            base = descriptor_base(self.get((LDT if ss & 4 else GDT) + (ss & 0xFFF8), 8))
            frame, at = [eip, cs, eflags], base + esp - 12
            self.set(ESP, esp - 12)
            self.set(SS, ss)
        else:
            frame, at = [eip, cs, eflags, esp, ss], FRAME
            self.set(ESP, FRAME)
            self.set(SS, DATAS[0])
        for n, value in enumerate(frame):
            self.put(at + 4 * n, value)
        self.begin = (cpl, eip, esp, eflags, cs, ss)
        for seg in (DS, ES, FS, GS):
            self.set(seg, DATAS[cpl])


def descriptor_base(raw):
    """The base of a descriptor."""
    return raw >> 16 & 0xFFFFFF | raw >> 56 << 24


def usual(size=0x1000):
    """What all cases of the 32-bit suites have: flat segments of each ring, a TSS with stacks, an IDT that leads to the frame."""
    c = Case(size)
    for ring in range(4):
        c.gdt(CODES[ring], descriptor(0, 0xFFFFF, 0x9B | ring << 5, 0xC))
        c.gdt(DATAS[ring], descriptor(0, 0xFFFFF, 0x93 | ring << 5, 0xC))
        if ring < 3:
            c.put(TSS_A + 4 + 8 * ring, STACKS[ring])
            c.put(TSS_A + 8 + 8 * ring, DATAS[ring])
    c.put(TSS_A + 0x66, 0x68, 2)
    c.gdt(TSS_A_SEL, descriptor(TSS_A, 0x67, 0x8B))
    c.gdt(LDT_SEL, descriptor(LDT, LDT_LIMIT, 0x82))
    c.gdt(OWN_CODE, descriptor(0, 0xFFFFF, 0x9B, 0xC))
    c.gdt(OWN_DATA, descriptor(0, 0xFFFFF, 0x93, 0xC))
    for vector in range(0x28):
        c.idt(vector, gate(OWN_CODE, STUBS + 16 * vector, 0xEE if vector >= 0x20 else 0x8E))
    c.land()
    for n, value in ((EAX, 0x11111111), (ECX, 0x22222222), (EDX, 0x33333333), (EBX, 0x44444444)):
        c.set(n, value)
    for n, value in ((EBP, 0x55555555), (ESI, 0x66666666), (EDI, 0x77777777)):
        c.set(n, value)
    c.set(LDTR, LDT_SEL)
    c.set(TR, TSS_A_SEL)
    c.set(CR0, 0x11)
    c.table(GDTR, GDT, GDT_LIMIT)
    c.table(IDTR, IDT, IDT_LIMIT)
    c.set(DR6, 0xFFFF0FF0)
    c.set(DR7, 0x400)
    c.set(MASK, ALL_FLAGS)
    return c


def differing(old, new):
    """The offsets of all dwords that differ; a test suite's hottest loop."""
    if old == new:
        return
    for chunk in range(0, len(old), 128):
        if old[chunk : chunk + 128] != new[chunk : chunk + 128]:
            for n in range(chunk, min(chunk + 128, len(old)), 4):
                if old[n : n + 4] != new[n : n + 4]:
                    yield n


def record_hash(record):
    """FNV-1a over dwords."""
    value = 0x811C9DC5
    for dword in record:
        value = (value ^ dword) * 0x01000193 & 0xFFFFFFFF
    return value


def image(frame, cases, expected):
    """The ROM: the cases, then the frame in the last 64 KiB."""
    size = cases[0].size
    out = bytearray(struct.pack("<III", 0x54495553, size, len(cases)))
    before = (bytes(size), bytes(4 * STATE_DWORDS))
    for case, record in zip(cases, expected):
        changes = []
        for old, new, base in ((before[0], case.mem, 0), (before[1], case.state, STATE)):
            for n in differing(old, new):
                changes.append(struct.pack("<H4s", (base + n) // 4, bytes(new[n : n + 4])))
        out += struct.pack("<H", len(changes)) + b"".join(changes) + struct.pack("<I", record_hash(record))
        before = (case.mem, case.state)
    out += bytes(-len(out) % 0x10000)
    kernel = bytearray((HERE / frame).read_bytes())
    struct.pack_into("<I", kernel, 0xFFE0, (1 << 32) - len(out) - len(kernel))
    return bytes(out + kernel)
