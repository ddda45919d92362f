"""The reference model of 32-bit protected mode: segments, stacks, delivery of interrupts and exceptions.

Written from the operation sections of the SDM (vol. 2: INT, CALL, RET, IRET, MOV; vol. 3, chapters 5 to 7), one check a
line and in its order, without a look at any emulator. Faults are Python exceptions; nothing is committed before them.
It decodes nothing: a case says what its instructions mean.
"""

from layout import *

CONTRIBUTORY = {0, 10, 11, 12, 13}
WITH_CODE = {8, 10, 11, 12, 13, 14, 17}


class Fault(Exception):
    """An exception of the processor."""

    def __init__(self, vector, code=None):
        self.vector, self.code = vector, code


def gp(code):
    """#GP."""
    return Fault(13, code)


def np(code):
    """#NP."""
    return Fault(11, code)


def ss_fault(code):
    """#SS."""
    return Fault(12, code)


def ts(code):
    """#TS."""
    return Fault(10, code)


class Descriptor:
    """A descriptor in the terms of the manual."""

    def __init__(self, raw):
        self.raw = raw
        access = raw >> 40 & 0xFF
        self.base = descriptor_base(raw)
        limit = raw & 0xFFFF | (raw >> 48 & 15) << 16
        self.limit = limit << 12 | 0xFFF if raw >> 55 & 1 else limit
        self.big = bool(raw >> 54 & 1)
        self.present = bool(access & 0x80)
        self.dpl = access >> 5 & 3
        self.user = bool(access & 0x10)  # the S bit: code or data
        self.type = access & 15
        self.code = self.user and bool(access & 8)
        self.data = self.user and not access & 8
        self.conforming = self.code and bool(access & 4)
        self.expand_down = self.data and bool(access & 4)
        self.writable = self.data and bool(access & 2)
        self.readable = self.data or self.code and bool(access & 2)
        # Gates.
        self.selector = raw >> 16 & 0xFFFF
        self.offset = raw & 0xFFFF | raw >> 48 << 16 if self.type & 8 else raw & 0xFFFF
        self.count = raw >> 32 & 31


class Segment:
    """A segment register: the selector, and what was loaded with it."""

    def __init__(self, selector, desc):
        self.selector, self.desc = selector, desc


def real_segment(selector):
    """As virtual-8086 mode loads it."""
    return Segment(selector, Descriptor(descriptor(selector << 4, 0xFFFF, 0xF3)))


class Machine:
    """The processor and its memory."""

    def __init__(self, case):
        self.mem = bytearray(case.mem)
        self.case = case
        self.ops = case.ops
        state = lambda n: case.reg(n)
        self.r = dict(zip(("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"), (state(n) for n in range(7))))
        cpl, self.eip, self.r["esp"], self.flags, cs, ss = case.begin
        self.cpl = cpl
        self.gdtr, self.idtr = ((state(n + 1), state(n) >> 16) for n in (GDTR, IDTR))
        self.ldtr = Segment(0, None)
        self.ldtr = self.raw_load(state(LDTR)) if state(LDTR) else self.ldtr
        self.tr = self.raw_load(state(TR)) if state(TR) else Segment(0, None)
        self.cr0, self.cr2, self.cr3, self.cr4 = state(CR0), state(CR2), state(CR3), state(CR4)
        self.dr = [state(DR0 + n) for n in range(4)]
        self.dr6, self.dr7 = state(DR6), state(DR7)
        self.seg = {}
        if self.flags & VM:
            self.seg = {name: real_segment(selector) for name, selector in case.v86_segments.items()}
            self.seg["cs"], self.seg["ss"] = real_segment(cs), real_segment(ss)
        else:
            for name, n in (("ds", DS), ("es", ES), ("fs", FS), ("gs", GS)):
                self.seg[name] = self.raw_load(state(n)) if state(n) & 0xFFFC else Segment(state(n), None)
            self.seg["cs"], self.seg["ss"] = self.raw_load(cs), self.raw_load(ss)
        self.ext = 0
        self.end = None
        self.trap = False  # a trap is due after this instruction

    # Memory by linear address.

    def read(self, at, size):
        """Reads without checks."""
        at &= 0xFFFFFFFF
        return int.from_bytes(self.mem[at : at + size], "little")

    def write(self, at, value, size):
        """Writes without checks."""
        at &= 0xFFFFFFFF
        assert at + size <= len(self.mem), f"{self.case.name}: a write to {at:x}"
        self.mem[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    # Descriptors.

    def slot(self, selector):
        """Where a selector's descriptor lies, or None beyond its table's limit."""
        if selector & 4:
            if self.ldtr.desc is None:
                return None
            base, limit = self.ldtr.desc.base, self.ldtr.desc.limit
        else:
            base, limit = self.gdtr
        index = selector & 0xFFF8
        return base + index if index + 7 <= limit else None

    def fetch(self, selector, fault):
        """The descriptor of a selector that is not null; `fault` if it is beyond the limit."""
        at = self.slot(selector)
        if at is None:
            raise fault(selector & 0xFFFC | self.ext)
        return Descriptor(self.read(at, 8))

    def raw_load(self, selector):
        """A segment that the frame loaded before the case."""
        return Segment(selector, Descriptor(self.read(self.slot(selector), 8)))

    def accessed(self, selector):
        """Sets the accessed bit."""
        at = self.slot(selector) + 5
        if not self.read(at, 1) & 1:
            self.write(at, self.read(at, 1) | 1, 1)

    def load(self, name, selector, desc):
        """Loads a segment register after all checks."""
        if desc is not None:
            self.accessed(selector)
        self.seg[name] = Segment(selector, desc)

    def load_cs(self, selector, desc, cpl):
        """Loads CS; its RPL becomes the CPL."""
        self.load("cs", selector & 0xFFFC | cpl, desc)
        self.cpl = cpl

    # Accesses through segments.

    def check(self, name, offset, size, write=False):
        """Rights and limits of an access (vol. 3, 5.3 to 5.5); the linear address."""
        segment = self.seg[name]
        fault = ss_fault if name == "ss" else gp
        desc = segment.desc
        if desc is None:
            raise gp(0)
        if write and not desc.writable or not write and not desc.readable:
            raise gp(0)
        if not inside(desc, offset, size):
            raise fault(0)
        return desc.base + offset & 0xFFFFFFFF

    # Stacks.

    def mask(self, desc=None):
        """The width of the stack pointer."""
        desc = desc or self.seg["ss"].desc
        return 0xFFFFFFFF if desc.big else 0xFFFF

    def top(self, offset, size, code=0):
        """A linear address at (E)SP + offset; #SS if it is beyond the limit."""
        at = self.r["esp"] + offset & self.mask()
        if not inside(self.seg["ss"].desc, at, size):
            raise ss_fault(code)
        return self.seg["ss"].desc.base + at & 0xFFFFFFFF

    def set_sp(self, value):
        """Changes ESP or SP, as SS.B says."""
        mask = self.mask()
        self.r["esp"] = self.r["esp"] & ~mask | value & mask

    def push_all(self, values, size, code=0):
        """Pushes onto the current stack, all or nothing."""
        places = [self.top(-size * (n + 1), size, code) for n in range(len(values))]
        for at, value in zip(places, values):
            self.write(at, value, size)
        self.set_sp(self.r["esp"] - size * len(values))

    def inner_stack(self, dpl):
        """SS and ESP of an inner ring, from the TSS, with all checks: selector, descriptor, ESP."""
        wide = self.tr.desc.type & 8
        at = dpl * 8 + 4 if wide else dpl * 4 + 2
        size = 4 if wide else 2
        if at + size + 1 > self.tr.desc.limit:
            raise ts(self.tr.selector & 0xFFFC | self.ext)
        esp = self.read(self.tr.desc.base + at, size)
        selector = self.read(self.tr.desc.base + at + size, 2)
        code = selector & 0xFFFC | self.ext
        if not selector & 0xFFFC:
            raise ts(self.ext)
        desc = self.fetch(selector, ts)
        if selector & 3 != dpl or desc.dpl != dpl or not desc.writable:
            raise ts(code)
        if not desc.present:
            raise ss_fault(code)
        return selector, desc, esp

    def to_inner(self, cs, cs_desc, eip, values, size):
        """Switches to the stack of the new CS's ring and pushes SS, ESP and `values`; then CS:EIP."""
        dpl = cs_desc.dpl
        selector, desc, esp = self.inner_stack(dpl)
        values = [self.seg["ss"].selector, self.r["esp"], *values]
        mask = self.mask(desc)
        places = []
        for n in range(len(values)):
            at = esp - size * (n + 1) & mask
            if not inside(desc, at, size):
                raise ss_fault(selector & 0xFFFC | self.ext)
            places.append(desc.base + at)
        if eip > cs_desc.limit:
            raise gp(self.ext)
        self.load("ss", selector, desc)
        for at, value in zip(places, values):
            self.write(at, value, size)
        self.r["esp"] = esp if self.mask() == 0xFFFFFFFF else self.r["esp"] & 0xFFFF0000 | esp & 0xFFFF
        self.set_sp(esp - size * len(values))
        self.load_cs(cs, cs_desc, dpl)
        self.eip = eip

    # Interrupts and exceptions.

    def int_n(self, vector):
        """INT n (also INT3, INTO: the same checks)."""
        self.interrupt(vector, self.next, soft=True)

    def interrupt(self, vector, back, soft, code=None, rf=0):
        """Delivers through the IDT (INT n's operation section)."""
        self.ext = 0 if soft else 1
        try:
            base, limit = self.idtr
            error = vector * 8 + 2 + self.ext
            if vector * 8 + 7 > limit:
                raise gp(error)
            entry = Descriptor(self.read(base + vector * 8, 8))
            if entry.user or entry.type not in (5, 6, 7, 14, 15):
                raise gp(error)
            if soft and entry.dpl < self.cpl:
                raise gp(error)
            if not entry.present:
                raise np(error)
            if entry.type == 5:
                import tasks

                tasks.by_interrupt(self, entry, code, back, rf)
            else:
                self.trap_or_interrupt_gate(vector, entry, back, code, rf)
        finally:
            self.ext = 0

    def trap_or_interrupt_gate(self, vector, entry, back, code, rf):
        """The second half, for gates that lead to code."""
        selector, size = entry.selector, 4 if entry.type & 8 else 2
        if not selector & 0xFFFC:
            raise gp(self.ext)
        desc = self.fetch(selector, gp)
        error = selector & 0xFFFC | self.ext
        if not desc.code or desc.dpl > self.cpl:
            raise gp(error)
        if not desc.present:
            raise np(error)
        v86 = self.flags & VM
        pushed = [self.flags | rf, self.seg["cs"].selector, back]
        if code is not None:
            pushed.append(code)
        inner = not desc.conforming and desc.dpl < self.cpl
        if v86 and (not inner or desc.dpl != 0):
            raise gp(error)
        if v86:
            self.from_v86(selector, desc, entry.offset, pushed, size)
        elif inner:
            self.to_inner(selector, desc, entry.offset, pushed, size)
        else:
            places = [self.top(-size * (n + 1), size, self.ext) for n in range(len(pushed))]
            if entry.offset > desc.limit:
                raise gp(self.ext)
            for at, value in zip(places, pushed):
                self.write(at, value, size)
            self.set_sp(self.r["esp"] - size * len(pushed))
            self.load_cs(selector, desc, self.cpl)
            self.eip = entry.offset
        self.flags &= ~(TF | NT | VM | RF)
        if not entry.type & 1:
            self.flags &= ~IF
        if self.seg["cs"].selector & 0xFFFC == OWN_CODE and self.eip >= STUBS:
            self.end = (self.eip - STUBS) // 16

    def from_v86(self, cs, cs_desc, eip, pushed, size):
        """To ring 0 from virtual-8086 mode: the data segments are pushed and become null."""
        old = self.seg
        values = [old[name].selector for name in ("gs", "fs", "ds", "es")]
        selector, desc, esp = self.inner_stack(0)
        values += [old["ss"].selector, self.r["esp"], *pushed]
        mask = self.mask(desc)
        places = []
        for n in range(len(values)):
            at = esp - size * (n + 1) & mask
            if not inside(desc, at, size):
                raise ss_fault(selector & 0xFFFC | self.ext)
            places.append(desc.base + at)
        if eip > cs_desc.limit:
            raise gp(self.ext)
        self.load("ss", selector, desc)
        for at, value in zip(places, values):
            self.write(at, value, size)
        self.r["esp"] = esp if self.mask() == 0xFFFFFFFF else self.r["esp"] & 0xFFFF0000 | esp & 0xFFFF
        self.set_sp(esp - size * len(values))
        for name in ("gs", "fs", "ds", "es"):
            self.seg[name] = Segment(0, None)
        self.load_cs(cs, cs_desc, 0)
        self.eip = eip

    def deliver(self, fault):
        """An exception, and those that its delivery meets (vol. 3, table 6-5); at last the shutdown."""
        back = self.eip
        while True:
            if fault.vector == 14:
                self.cr2 = fault.linear
            code = fault.code if fault.vector in WITH_CODE else None
            try:
                self.interrupt(fault.vector, back, False, code, fault_rf(fault))
                return
            except Fault as second:
                first, back = fault.vector, self.eip
                if first == 8:
                    self.end = SHUTDOWN
                    return
                double = first in CONTRIBUTORY and second.vector in CONTRIBUTORY
                double |= first == 14 and second.vector in CONTRIBUTORY | {14}
                fault = Fault(8, 0) if double else second

    def code_fetched(self, at, size):
        """What fetching an instruction may meet; paging.py has something to say."""

    def run(self):
        """Until the frame has control; the record."""
        for _ in range(200):
            if self.end is not None:
                break
            op, length = self.ops[self.seg["cs"].desc.base + self.eip]
            self.next = self.eip + length
            try:
                self.code_fetched(self.seg["cs"].desc.base + self.eip, length)
                op(self)
                fault = Fault(1) if self.trap else None
            except Fault as met:
                fault = met
            while fault is not None and self.end is None:
                self.trap = False
                self.deliver(fault)
                fault = Fault(1) if self.trap else None
        assert self.end is not None, f"{self.case.name}: does not end"
        return self.record()

    def record(self):
        """What the frame notes, then what changed in the arena."""
        if self.end == SHUTDOWN:
            out = [SHUTDOWN]
        else:
            r, sel = self.r, {name: segment.selector for name, segment in self.seg.items()}
            out = [self.end, r["eax"], r["ecx"], r["edx"], r["ebx"], r["esp"], r["ebp"], r["esi"], r["edi"]]
            out += [self.flags & self.case.reg(MASK), sel["ss"] | sel["ds"] << 16, sel["es"] | sel["fs"] << 16]
            out += [sel["gs"] | self.ldtr.selector << 16, self.tr.selector | (self.dr7 & 0xFFFF) << 16, self.cr0, self.cr2, self.dr6 & 0xE00F]
        for at in differing(self.case.mem, self.mem):
            out += [at, int.from_bytes(self.mem[at : at + 4], "little")]
        return out


def fault_rf(fault):
    """RF in the image of EFLAGS: set by faults, except the one of an instruction breakpoint (vol. 3, 18.3.1.1).

    Of the double fault, an abort, the manual says nothing: RF is left as the fault behind it has set it."""
    return 0 if fault.vector in (1, 3, 4, 18) else RF


def inside(desc, offset, size):
    """Whether all bytes lie within a segment's limits."""
    last = offset + size - 1
    if desc.expand_down:
        return offset > desc.limit and last <= (0xFFFFFFFF if desc.big else 0xFFFF)
    return last <= desc.limit
