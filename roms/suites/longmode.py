"""Long mode: interrupts and exceptions × gate × target × CPL × IST × alignment of the stack; IRETQ, IRETD, RETF into 64-bit and
compatibility code; call gates; SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS; canonical addresses; where REX counts.

The model is the 64-bit half of SDM vol. 2's operation sections and vol. 3, 6.14 (one file, as its cases are: it shares the
layout of the arena, not the 32-bit model).
"""

from layout import *
from machine import CONTRIBUTORY, WITH_CODE, Descriptor, Fault, fault_rf, gp, np, ss_fault, ts

FRAME_IMAGE = "frame64.frame"
MORE = 32  # the state's dwords after the sixteen registers
REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
EFER64, FSBASE, GSBASE, KGSBASE, STAR, LSTAR, CSTAR, SFMASK, SYS_CS, SYS_SP, SYS_IP = range(MORE + 20, MORE + 42, 2)
SCE = 1
# Selectors; the order is what SYSCALL and SYSENTER want. Ring 0: 64-bit code, data. Ring 3: 32-bit code, data, 64-bit code.
CODE0, DATA0, CODE32, DATA3, CODE64, TSS64, CODE0_32 = 0x08, 0x10, 0x1B, 0x23, 0x2B, 0x38, 0x30
GATE, SLOT, STACK = 0x80, 0x90, 0xA0
LONG_IDT = 0x1000
IST = (0xA80, 0xA90)
HIGH = 0xFFFF800000000000
MASK64 = (1 << 64) - 1


def canonical(at):
    """Whether bits 63 to 47 are equal."""
    return at + (1 << 47) & MASK64 < 1 << 48


class Machine:
    """A processor in long mode."""

    def __init__(self, case):
        self.case, self.ops = case, case.ops
        self.mem = bytearray(case.mem)
        self.r = {name: case.q(2 * n) for n, name in enumerate(REGISTERS)}
        self.rip, cs, self.flags, self.r["rsp"], ss = case.begin
        self.cpl = cs & 3
        self.sel = {"cs": cs, "ss": ss, "ds": case.reg(MORE + 1), "es": case.reg(MORE + 2), "fs": 0, "gs": 0}
        self.code = self.raw(cs)
        self.stack = self.raw(ss) if ss & 0xFFFC else None
        # IRETQ to an outer ring drops data segments of inner ones.
        for name in ("ds", "es"):
            desc = self.raw(self.sel[name]) if self.sel[name] & 0xFFFC else None
            if desc is None or self.cpl > desc.dpl and not desc.conforming:
                self.sel[name] = 0 if desc is not None and self.cpl else self.sel[name]
        self.msr = {n: case.q(n) for n in (FSBASE, GSBASE, KGSBASE, STAR, LSTAR, CSTAR, SFMASK, SYS_CS, SYS_SP, SYS_IP)}
        self.cr2, self.ext, self.end = 0, 0, None

    def read(self, at, size):
        return int.from_bytes(self.mem[at : at + size], "little")

    def write(self, at, value, size):
        assert 0 <= at and at + size <= len(self.mem), f"{self.case.name}: a write to {at:x}"
        self.mem[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def raw(self, selector):
        return Descriptor(self.read(GDT + (selector & 0xFFF8), 8))

    def fetch(self, selector, fault):
        if selector & 4 or (selector & 0xFFF8) + 7 > GDT_LIMIT:
            raise fault(selector & 0xFFFC | self.ext)
        return self.raw(selector)

    def long(self):
        """In 64-bit code."""
        return bool(self.code.raw >> 53 & 1)

    # Interrupts.

    def int_n(self, vector):
        self.interrupt(vector, self.next, True)

    def interrupt(self, vector, back, soft, code=None, rf=0):
        self.ext = 0 if soft else 1
        try:
            error = vector * 8 + 2 + self.ext
            at = LONG_IDT + 16 * vector
            if vector * 16 + 15 > self.case.idt_limit:
                raise gp(error)
            entry = Descriptor(self.read(at, 8))
            if entry.user or entry.type not in (14, 15):
                raise gp(error)
            if soft and entry.dpl < self.cpl:
                raise gp(error)
            if not entry.present:
                raise np(error)
            target = entry.offset | self.read(at + 8, 4) << 32
            selector = entry.selector
            if not selector & 0xFFFC:
                raise gp(self.ext)
            desc = self.fetch(selector, gp)
            error = selector & 0xFFFC | self.ext
            if not desc.code or desc.dpl > self.cpl:
                raise gp(error)
            if not desc.raw >> 53 & 1 or desc.big:
                raise gp(error)
            if not desc.present:
                raise np(error)
            new_cpl = self.cpl if desc.conforming else desc.dpl
            inner = new_cpl < self.cpl
            ist = entry.count & 7
            if ist:
                rsp = self.read(TSS_A + 0x1C + 8 * ist, 8)
            elif inner:
                rsp = self.read(TSS_A + 4 + 8 * new_cpl, 8)
            else:
                rsp = self.r["rsp"] if self.long() else self.r["rsp"] & 0xFFFFFFFF
            pushed = [self.sel["ss"], self.r["rsp"], self.flags | rf, self.sel["cs"], back]
            if code is not None:
                pushed.append(code)
            rsp &= ~15
            if not canonical(rsp) or not canonical(rsp - 8 * len(pushed)):
                raise ss_fault(self.ext)
            if not canonical(target):
                raise gp(self.ext)
            for value in pushed:
                rsp -= 8
                self.write(rsp, value, 8)
            if inner:
                self.sel["ss"], self.stack = new_cpl, None
            self.r["rsp"] = rsp
            self.enter(selector & 0xFFFC | new_cpl, desc, target)
            self.flags &= ~(TF | NT | RF) & ~(0 if entry.type & 1 else IF)
            if selector & 0xFFFC == OWN_CODE and target >= STUBS:
                self.end = (target - STUBS) // 16
        finally:
            self.ext = 0

    def enter(self, selector, desc, rip):
        """Loads CS:RIP, sets the accessed bit."""
        at = GDT + (selector & 0xFFF8) + 5
        self.write(at, self.mem[at] | 1, 1)
        self.sel["cs"], self.code, self.cpl, self.rip = selector, desc, selector & 3, rip

    def deliver(self, fault):
        back = self.rip
        while True:
            code = fault.code if fault.vector in WITH_CODE else None
            try:
                self.interrupt(fault.vector, back, False, code, fault_rf(fault))
                return
            except Fault as second:
                first = fault.vector
                if first == 8:
                    self.end = SHUTDOWN
                    return
                double = first in CONTRIBUTORY and second.vector in CONTRIBUTORY
                fault = Fault(8, 0) if double else second

    def run(self):
        for _ in range(50):
            if self.end is not None:
                return self.record()
            op, length = self.ops[self.rip]
            self.next = self.rip + length
            try:
                op(self)
            except Fault as fault:
                self.deliver(fault)
        raise AssertionError(f"{self.case.name}: does not end")

    def record(self):
        if self.end == SHUTDOWN:
            out = [SHUTDOWN]
        else:
            wide = [self.r[name] for name in REGISTERS]
            out = [self.end, *(half for value in wide for half in (value & 0xFFFFFFFF, value >> 32))]
            s = self.sel
            out += [self.flags & self.case.reg(MORE + 7), s["ss"] | s["ds"] << 16, s["es"] | s["fs"] << 16, s["gs"], TSS64]
            for value in (self.msr[FSBASE], self.msr[GSBASE], self.msr[KGSBASE], self.cr2):
                out += [value & 0xFFFFFFFF, value >> 32]
        for at in differing(self.case.mem, self.mem):
            out += [at, self.read(at, 4)]
        return out


NAMES = ["id", *(name + half for name in REGISTERS for half in ("", "h"))]
NAMES += "flags ds:ss fs:es ldt:gs tr fsbase fsbaseh gsbase gsbaseh kgs kgsh cr2 cr2h".split()


class LongCase(Case):
    """A case with 64-bit registers."""

    idt_limit = 0x28 * 16 - 1

    def copy(self):
        other = LongCase(self.size)
        other.mem, other.state, other.ops = bytearray(self.mem), bytearray(self.state), dict(self.ops)
        other.idt_limit = self.idt_limit
        return other

    def q(self, index):
        """Reads two dwords of the state."""
        return self.reg(index) | self.reg(index + 1) << 32

    def setq(self, index, value):
        """Sets two."""
        self.set(index, value & 0xFFFFFFFF)
        self.set(index + 1, value >> 32 & 0xFFFFFFFF)

    def idt(self, vector, raw, high=0):
        self.put(LONG_IDT + 16 * vector, raw, 8)
        self.put(LONG_IDT + 16 * vector + 8, high, 8)

    def start(self, cs, ss=None, rsp=None, flags=2, rip=CODE):
        """By IRETQ."""
        ring = cs & 3
        rsp = STACKS[ring] if rsp is None else rsp
        ss = (DATA0, 0x51, 0x5A, DATA3)[ring] if ss is None else ss
        for n, value in enumerate((rip, cs, flags, rsp, ss)):
            self.put(FRAME + 8 * n, value, 8)
        self.setq(2 * 4, FRAME)
        self.begin = (rip, cs, flags, rsp, ss)


RING_CODE = (CODE0, 0x61, 0x6A, CODE64)


def usual64():
    """Segments of each ring, a TSS with stacks and ISTs, an IDT that leads to the frame."""
    c = LongCase(0x1280)
    for selector, access, flags in (
        (CODE0, 0x9B, 0xA), (DATA0, 0x93, 0xC), (CODE32, 0xFB, 0xC), (DATA3, 0xF3, 0xC), (CODE64, 0xFB, 0xA), (CODE0_32, 0x9B, 0xC),
        (0x50, 0xB3, 0xC), (0x58, 0xD3, 0xC), (0x60, 0xBB, 0xA), (0x68, 0xDB, 0xA), (OWN_CODE, 0x9B, 0xA), (OWN_DATA, 0x93, 0xC),
    ):  # fmt: skip
        c.gdt(selector & 0xFFF8, descriptor(0, 0xFFFFF, access, flags))
    c.put(GDT + TSS64, descriptor(TSS_A, 0x67, 0x8B), 8)
    for ring in range(3):
        c.put(TSS_A + 4 + 8 * ring, STACKS[ring], 8)
    for n, at in enumerate(IST):
        c.put(TSS_A + 0x24 + 8 * n, at, 8)
    for vector in range(0x28):
        c.idt(vector, gate(OWN_CODE, STUBS + 16 * vector, 0xEE if vector >= 0x20 else 0x8E))
    c.land()
    for n in range(16):
        c.setq(2 * n, 0x0101010101010101 * (n + 1))
    for n, value in ((MORE, DATA0), (MORE + 1, DATA3), (MORE + 2, DATA3), (MORE + 6, TSS64), (MORE + 7, ALL_FLAGS)):
        c.set(n, value)
    c.set(MORE + 8, 0x80000011)
    c.set(MORE + 9, 0x40000)
    c.set(MORE + 10, 0x220)
    c.table(MORE + 12, GDT, GDT_LIMIT)
    c.table(MORE + 16, LONG_IDT, LongCase.idt_limit)
    c.setq(EFER64, 0xD00 | SCE)
    c.setq(FSBASE, 0x1111111111)
    c.setq(GSBASE, 0x2222222222)
    c.setq(KGSBASE, 0x3333333333)
    return c


def ud(_m):
    """UD2."""
    raise Fault(6)


def bad_ds(_m):
    """MOV DS, AX with AX beyond the table."""
    raise gp(0xFFF8)


SOURCES = ((0x21, b"\xcd\x21", lambda m: m.int_n(0x21)), (6, b"\x0f\x0b", ud), (13, b"\x8e\xd8", bad_ds))


def source(case, n):
    """Places one of the sources of an interrupt."""
    vector, code, op = SOURCES[n]
    case.setq(0, 0xFFF8)
    case.code(CODE, code, op)
    return vector


def gates(base):
    """INT n, a fault, a fault with an error code: the gate's access byte × CPL × the source's width."""
    for n in range(3):
        for cs in (CODE0, 0x61, CODE64, CODE32):
            for access in range(0x100):
                case = base.copy()
                case.start(cs, flags=2 | IF | IOPL)
                vector = source(case, n)
                if vector == 13 and not (access & 0x9F) in (0x8E, 0x8F):
                    continue  # its own fault would find the same gate; `double` has those
                case.idt(vector, gate(CODE0, LAND, access))
                yield case


def targets(base):
    """Where gates lead: every code and data type × DPL × L and D × CPL; null, beyond the table, not canonical."""
    for n in (0, 1):
        for cs in (CODE0, 0x61, CODE64, CODE32):
            for access in (*range(0x80, 0x100), 0x1B, 0x7F):
                for flags in (0xA, 0xC, 0xE, 0x8) if access & 0x1A == 0x1A else (0xA,):
                    case = base.copy()
                    case.start(cs)
                    case.gdt(SLOT, descriptor(0, 0xFFFFF, access, flags))
                    case.idt(source(case, n), gate(SLOT, LAND, 0xEE))
                    yield case
            for selector in (0, 3, 0x200, 0x7C, TSS64):
                case = base.copy()
                case.start(cs)
                case.idt(source(case, n), gate(selector, LAND, 0xEE))
                yield case
            for high in (0x8000, 0xFFFF7FFF, 0x10000, 0xFFFF0000):
                case = base.copy()
                case.start(cs)
                case.idt(source(case, n), gate(CODE0, LAND, 0xEE), high)
                yield case


def stacks(base):
    """IST × CPL × alignment of RSP; stack pointers that are not canonical."""
    for n in range(3):
        for cs in (CODE0, CODE64, CODE32):
            for ist in range(3):
                for low in range(0, 16):
                    case = base.copy()
                    ring = cs & 3
                    case.start(cs, rsp=STACKS[ring] - 0x40 + low)
                    case.put(TSS_A + 4, STACKS[0] - low, 8)
                    case.put(TSS_A + 0x24, IST[0] + low, 8)
                    case.idt(source(case, n), gate(CODE0, LAND, 0xEE, ist))
                    yield case
    for n in (0, 1):
        for at in (1 << 47, HIGH - 8, (1 << 47) + 0x20, 1 << 63):
            case = base.copy()
            case.start(CODE64)
            case.put(TSS_A + 0xC, at, 8)  # ring 1, so that the fault has a stack
            case.idt(source(case, n), gate(0x61, LAND, 0xEE))
            yield case
            case = base.copy()
            case.start(CODE64)
            case.put(TSS_A + 0x24, at, 8)
            case.idt(source(case, n), gate(CODE0, LAND, 0xEE, 1))
            yield case


def double(base):
    """Faults in the delivery of faults, up to the shutdown."""
    entries = (gate(OWN_CODE, 0, 0x0E), gate(0, 0, 0x8E), gate(CODE0_32, 0, 0x8E), gate(CODE0, 0, 0x86), gate(CODE0, 0, 0x85))
    for n in (1, 2):
        for cs in (CODE0, CODE64, CODE32):
            for first in entries:
                for second in (None, *entries):
                    for eighth in (None, entries[0], entries[3]):
                        case = base.copy()
                        case.start(cs)
                        case.idt(source(case, n), first)
                        for vector in (11, 13):
                            if second is not None and vector != SOURCES[n][0]:
                                case.idt(vector, second)
                        if eighth is not None:
                            case.idt(8, eighth)
                        yield case


def iret(size):
    """IRETQ (8), IRETD (4)."""

    def op(m):
        if m.flags & NT:
            raise gp(0)
        at = m.r["rsp"]
        rip, cs, flags = (m.read(at + size * n, size) for n in range(3))
        cs &= 0xFFFF
        desc = return_code(m, cs)
        rpl = cs & 3
        esp, ss = m.read(at + 3 * size, size), m.read(at + 4 * size, 2)
        mask = CF | PF | AF | ZF | SF | TF | DF | OF | NT | RF | AC | ID
        mask |= IF if m.cpl <= m.flags >> 12 & 3 else 0
        mask |= IOPL | VIF | VIP if m.cpl == 0 else 0
        if m.long() or rpl > m.cpl:
            load_outer(m, rpl, desc, ss)
            check_rip(desc, rip)
            m.enter(cs, desc, rip)
            m.r["rsp"] = esp
            m.sel["ss"] = ss
            drop(m)
        else:
            check_rip(desc, rip)
            m.enter(cs, desc, rip)
            m.r["rsp"] = m.r["rsp"] + 3 * size
        m.flags = m.flags & ~mask | flags & mask

    return op


def check_rip(desc, rip):
    """Within the limit, or canonical."""
    if desc.raw >> 53 & 1:
        if not canonical(rip):
            raise gp(0)
    elif rip > desc.limit:
        raise gp(0)


def return_code(m, cs):
    """The code segment that is returned to."""
    if not cs & 0xFFFC:
        raise gp(0)
    desc = m.fetch(cs, gp)
    rpl = cs & 3
    if not desc.code or rpl < m.cpl or desc.raw >> 53 & 1 and desc.big:
        raise gp(cs & 0xFFFC)
    if desc.dpl > rpl if desc.conforming else desc.dpl != rpl:
        raise gp(cs & 0xFFFC)
    if not desc.present:
        raise np(cs & 0xFFFC)
    return desc


def load_outer(m, rpl, desc, ss):
    """SS of an outer return: null only for 64-bit code in rings 0 to 2."""
    if not ss & 0xFFFC:
        if not desc.raw >> 53 & 1 or rpl == 3 or ss & 3 != rpl:
            raise gp(0 if not desc.raw >> 53 & 1 or rpl == 3 else ss & 0xFFFC)
        return
    ss_desc = m.fetch(ss, gp)
    if ss & 3 != rpl or not ss_desc.writable or ss_desc.dpl != rpl:
        raise gp(ss & 0xFFFC)
    if not ss_desc.present:
        raise ss_fault(ss & 0xFFFC)
    at = GDT + (ss & 0xFFF8) + 5
    m.write(at, m.mem[at] | 1, 1)


def drop(m):
    """Data segments of inner rings become null."""
    for name in ("ds", "es"):
        selector = m.sel[name]
        if selector & 0xFFFC:
            desc = m.raw(selector)
            if not desc.conforming and desc.dpl < m.cpl:
                m.sel[name] = 0


def place_return(case, cs_from, size, values, code):
    """Puts the words on the stack, and the instruction."""
    at = STACKS[cs_from & 3] - 0x40
    case.start(cs_from, rsp=at, flags=case_flags(case))
    for n, value in enumerate(values):
        case.put(at + size * n, value, size)
    case.code(CODE, code, iret(size))


def case_flags(_case):
    """Flags before a return."""
    return 2


def returns(base):
    """IRETQ and IRETD from 64-bit code: the code's access × L and D × RPL × CPL; the stack's selector."""
    for size, code in ((8, b"\x48\xcf"), (4, b"\xcf")):
        for ring in range(4):
            source_cs = RING_CODE[ring]
            for access in (*range(0x80, 0x100), 0x1B, 0x7B):
                for rpl in range(ring, 4) if access & 0x18 == 0x18 else (ring,):
                    for flags in (0xA, 0xC, 0xE) if access & 0x18 == 0x18 and access >> 5 & 3 == rpl else (0xA,):
                        case = base.copy()
                        case.gdt(SLOT, descriptor(0, 0xFFFFF, access, flags))
                        ss = (DATA0, 0x51, 0x5A, DATA3)[rpl]
                        place_return(case, source_cs, size, (LAND, SLOT | rpl, 2 | CF, STACKS[rpl] - 0x20, ss), code)
                        yield case
            for rpl in range(ring, 4):
                for wide in (0xA, 0xC):
                    for ss in (*range(4), 0x200 | rpl, 0x84 | rpl, *(STACK | n for n in range(4)), CODE0):
                        if not ss & 0xFFFC and ss != rpl and rpl < 3:
                            continue  # whether the RPL of a null selector counts, the manual does not say
                        for access in (0x93, 0x91, 0x13, 0x97, 0x9B) if ss & 0xFFFC == STACK else (0x93,):
                            case = base.copy()
                            case.gdt(SLOT, descriptor(0, 0xFFFFF, 0x9B | rpl << 5, wide))
                            case.gdt(STACK, descriptor(0, 0xFFFFF, access | rpl << 5, 0xC))
                            place_return(case, source_cs, size, (LAND, SLOT | rpl, 2, STACKS[rpl] - 0x20, ss), code)
                            if access == 0x97 and wide == 0xC:
                                continue
                            yield case
            for cs in (*range(4), 0x200 | ring, 0x84 | ring, DATA3, TSS64 | ring):
                case = base.copy()
                place_return(case, source_cs, size, (LAND, cs, 2, STACKS[ring], (DATA0, 0x51, 0x5A, DATA3)[ring]), code)
                yield case
        for rip in (1 << 47, HIGH - 1, 1 << 63, 0x1_0000_0F80):
            for wide in (0xA,):
                for ring in (0, 3):
                    if size == 4:
                        continue
                    case = base.copy()
                    case.gdt(SLOT, descriptor(0, 0xFFFFF, 0x9B | ring << 5, wide))
                    place_return(case, RING_CODE[ring], size, (rip, SLOT | ring, 2, STACKS[ring], (DATA0, 0, 0, DATA3)[ring]), code)
                    if not canonical(rip):
                        yield case
    for ring in (0, 3):
        for bit in range(22):
            if bit in (1, 3, 5, 8, 15, 16, 17):
                continue
            for iopl in (0, 3):
                case = base.copy()
                place_return(case, RING_CODE[ring], 8, (LAND, RING_CODE[ring], 2 | 1 << bit, STACKS[ring], (DATA0, 0, 0, DATA3)[ring]), b"\x48\xcf")
                at = STACKS[ring] - 0x40
                case.start(RING_CODE[ring], rsp=at, flags=2 | iopl << 12)
                yield case


def syscall(m):
    """SYSCALL."""
    efer = m.case.reg(EFER64)
    if not efer & SCE:
        raise Fault(6)
    star = m.msr[STAR] >> 32
    m.r["rcx"], m.r["r11"] = m.next, m.flags & ~RF
    if not m.long():
        m.r["rcx"] &= 0xFFFFFFFF
    target = m.msr[LSTAR] if m.long() else m.msr[CSTAR]
    m.flags &= ~m.msr[SFMASK] & ~RF
    m.flags |= 2
    m.sel["cs"], m.sel["ss"] = star & 0xFFFC, (star & 0xFFFC) + 8
    m.code = Descriptor(descriptor(0, 0xFFFFF, 0x9B, 0xA))
    m.cpl, m.rip = 0, target


def sysret(size):
    """SYSRET with and without REX.W."""

    def op(m):
        if not m.case.reg(EFER64) & SCE:
            raise Fault(6)
        if m.cpl:
            raise gp(0)
        if size == 8 and not canonical(m.r["rcx"]):
            raise gp(0)
        star = m.msr[STAR] >> 48
        m.flags = m.r["r11"] & 0x3C7FD7 | 2
        m.rip = m.r["rcx"] if size == 8 else m.r["rcx"] & 0xFFFFFFFF
        m.sel["cs"] = (star + 16 if size == 8 else star) & 0xFFFF | 3
        m.sel["ss"] = star + 8 & 0xFFFF | 3
        m.code = Descriptor(descriptor(0, 0xFFFFF, 0xFB, 0xA if size == 8 else 0xC))
        m.cpl = 3

    return op


def fast_calls(base):
    """SYSCALL and SYSRET: SCE × CPL × width × STAR × SFMASK × flags; SYSRET to an address that is not canonical."""
    for sce in (0, SCE):
        for cs in (CODE0, 0x61, 0x6A, CODE64):
            for mask in (0, 0x47700, 0xFFFFFFFF & ~0x20000, IF, CF | DF):
                for flags in (2, 2 | CF | DF | IF, 2 | IOPL | AC | ID | OF):
                    for star in (CODE0, CODE0 | 3, SLOT):
                        case = base.copy()
                        case.start(cs, flags=flags)
                        case.gdt(SLOT, descriptor(0, 0xFFFFF, 0x9B, 0xA))
                        case.gdt(SLOT + 8, descriptor(0, 0xFFFFF, 0x93, 0xC))
                        case.setq(EFER64, 0xD00 | sce)
                        case.setq(STAR, star << 32)
                        case.setq(LSTAR, LAND)
                        case.setq(SFMASK, mask)
                        case.code(CODE, b"\x0f\x05", syscall)
                        yield case
        for size, code in ((8, b"\x48\x0f\x07"), (4, b"\x0f\x07")):
            for cs in (CODE0, 0x61, CODE64):
                for rcx in (LAND, LAND | 1 << 32, 1 << 47, HIGH - 1, 1 << 63) if size == 8 else (LAND, LAND | 1 << 32):
                    for r11 in (2, 0, 2 | CF | DF | IF, 2 | IOPL | AC | ID, 0xFFFFFFFF & ~(TF | NT | 0x30000 | VIF | VIP)):
                        for star in (CODE32 & ~3, CODE32):
                            case = base.copy()
                            case.start(cs)
                            case.setq(EFER64, 0xD00 | sce)
                            case.setq(STAR, star << 48)
                            case.setq(2, rcx)
                            case.setq(2 * 11, r11)
                            case.code(CODE, code, sysret(size))
                            if size == 8 and rcx == LAND | 1 << 32 and sce and cs == CODE0:
                                continue  # nothing is mapped there
                            yield case


def swapgs(m):
    """SWAPGS."""
    if m.cpl:
        raise gp(0)
    m.msr[GSBASE], m.msr[KGSBASE] = m.msr[KGSBASE], m.msr[GSBASE]
    m.rip = m.next


def swaps(base):
    """SWAPGS: CPL × bases."""
    for cs in (CODE0, 0x61, 0x6A, CODE64):
        for first in (0, 0x1234, HIGH, (1 << 47) - 1, MASK64):
            for second in (0, 0x5678, HIGH + 5):
                case = base.copy()
                case.start(cs)
                case.setq(GSBASE, first)
                case.setq(KGSBASE, second)
                case.code(CODE, b"\x0f\x01\xf8", swapgs)
                case.land(CODE + 3)
                yield case


def addresses(base):
    """Loads and stores at the edges of the canonical halves, by each base register and segment; sizes across the edge."""
    kinds = (
        (1, False, b"\x8a"), (2, False, b"\x66\x8b"), (4, False, b"\x8b"), (8, False, b"\x48\x8b"),
        (1, True, b"\x88"), (4, True, b"\x89"), (8, True, b"\x48\x89"),
    )  # fmt: skip
    # Base registers in ModRM: RAX, RCX, RDX, RBX, (SIB: RSP), RBP, RSI, RDI.
    for size, write, code in kinds:
        for base_register in (0, 1, 3, 5, 6, 7):
            for segment in (b"", b"\x64", b"\x36", b"\x2e", b"\x65"):
                for at in (1 << 47, (1 << 47) + 8, HIGH - 1, HIGH - size, 1 << 63, (1 << 47) - size + 1 if size > 1 else 1 << 47, 1 << 62):
                    for cs in (CODE0, CODE64):
                        case = base.copy()
                        case.start(cs)
                        where = at
                        for prefix, index in ((b"\x64", FSBASE), (b"\x65", GSBASE)):
                            if segment == prefix:
                                case.setq(index, 0x1000)
                                where = at - 0x1000 & MASK64
                        case.setq(2 * base_register, where)
                        prefix = segment
                        body = code[1:] if code[:1] == b"\x66" else code
                        full = (b"\x66" if code[:1] == b"\x66" else b"") + prefix + body + bytes((0x80 | 2 << 3 | base_register,)) + bytes(4)
                        stack = base_register == 5 and segment not in (b"\x64", b"\x65")

                        def op(_m, stack=stack):
                            raise ss_fault(0) if stack else gp(0)

                        case.code(CODE, full, op)
                        yield case


def encodings(base):
    """Opcodes that 64-bit mode does not have; REX counts only directly before the opcode; LOCK; 15 bytes."""
    for opcode in (
        0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x82, 0x9A, 0xCE, 0xD4, 0xD5, 0xD6, 0xEA,
    ):  # fmt: skip
        for rex in (b"", b"\x40", b"\x48", b"\x4f"):
            for prefix in (b"", b"\x66", b"\x2e", b"\xf2"):
                for cs in (CODE0, CODE64):
                    case = base.copy()
                    case.start(cs)
                    case.code(CODE, prefix + rex + bytes((opcode,)) + bytes(8), ud)
                    yield case

    def move(register, source, size):
        def op(m):
            value = m.r[source]
            if size == 8:
                m.r[register] = value
            elif size == 4:
                m.r[register] = value & 0xFFFFFFFF
            else:
                m.r[register] = m.r[register] & ~0xFFFF | value & 0xFFFF
            m.rip = m.next

        return op

    # MOV r, r with REX before or behind legacy prefixes: only the last byte before the opcode is a REX.
    for rex in range(0x40, 0x50):
        for legacy in (b"", b"\x66", b"\x2e", b"\x3e", b"\x64", b"\x67", b"\x26"):
            for order in ("legacy rex", "rex legacy", "rex rex"):
                if order == "rex legacy" and not legacy:
                    continue
                for modrm in (0xC8, 0xD3, 0xFE):
                    wide, r, b = rex >> 3 & 1, rex >> 2 & 1, rex & 1
                    front = {"legacy rex": legacy + bytes((rex,)), "rex legacy": bytes((rex,)) + legacy, "rex rex": legacy + bytes((0x4F ^ rex | 0x40, rex))}[order]
                    if order == "rex legacy":
                        wide = r = b = 0
                    size = 8 if wide else 2 if legacy == b"\x66" else 4
                    source_register = REGISTERS[(modrm >> 3 & 7) + 8 * r]
                    register = REGISTERS[(modrm & 7) + 8 * b]
                    if "rsp" in (register, source_register):
                        continue
                    case = base.copy()
                    case.start(CODE64)
                    code = front + bytes((0x89, modrm))
                    case.code(CODE, code, move(register, source_register, size))
                    case.land(CODE + len(code))
                    yield case
    # VEX with REX, 66, F2, F3 or LOCK before it.
    for front in (b"\x40", b"\x48", b"\x66", b"\xf2", b"\xf3", b"\xf0"):
        for vex in (b"\xc5\xf8\x57\xc0", b"\xc4\xe1\x78\x57\xc0", b"\xc5\xfc\x77", b"\xc4\xe2\x78\xf2\xc1"):
            case = base.copy()
            case.start(CODE64)
            case.set(MORE + 10, 0x40220)
            case.code(CODE, front + vex, ud)
            yield case
    for total in range(10, 19):
        for rex in (b"", b"\x48"):
            case = base.copy()
            case.start(CODE64)
            case.land()
            body = rex + b"\xb8" + (bytes(range(1, 9)) if rex else bytes(range(1, 5)))

            def op(m, rex=rex):
                m.r["rax"] = 0x0807060504030201 if rex else 0x04030201
                m.rip = m.next

            def long_one(_m):
                raise gp(0)

            if total < len(body):
                continue
            case.code(CODE, b"\x2e" * (total - len(body)) + body, op if total <= 15 else long_one)
            if total <= 15:
                case.land(CODE + total)
            yield case


FAMILIES = (gates, targets, stacks, double, returns, fast_calls, swaps, addresses, encodings)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual64()):
            case.name = family.__name__
            yield case
