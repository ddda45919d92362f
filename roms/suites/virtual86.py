"""Virtual-8086 mode with and without VME, protected-mode virtual interrupts, and the I/O permission bitmap.

The model follows SDM vol. 3, chapter 21 (methods 1 to 6 of software interrupts) and the operation sections of CLI, STI, PUSHF,
POPF, IRET, INT and IN.
"""

from layout import *
from machine import Fault, Machine as Base, gp
from transfers import iret_v86

FRAME_IMAGE = "frame32.frame"
VME, PVI = 1, 2
MAP = 0xE0  # where the I/O bitmap starts in the TSS; the redirection bitmap is before it
V86_CS, V86_SS, V86_DS = CODE >> 4, STACKS[3] - 0x100 >> 4, DATA >> 4
SP = 0x80


class Machine(Base):
    """A virtual interrupt that is pending and enabled is #GP(0) at the next instruction (vol. 3, 21.3.2)."""

    def code_fetched(self, at, size):
        enabled = self.cr4 & VME if self.flags & VM else self.cr4 & PVI and self.cpl == 3
        if enabled and self.flags & IOPL != IOPL and self.flags & VIF and self.flags & VIP:
            raise gp(0)


def start(base, flags, cr4=0, redirected=()):
    """A case in virtual-8086 mode. INT 20h and every vector not in `redirected` goes to the IDT."""
    case = base.copy()
    case.set(CR4, cr4)
    segments = {"es": V86_DS, "ds": V86_DS, "fs": 0x123, "gs": 0xF000}
    flags |= VM
    for n, value in enumerate((0, V86_CS, flags, SP, V86_SS, *segments.values())):
        case.put(FRAME + 4 * n, value)
    case.begin, case.v86_segments = (3, 0, SP, flags, V86_CS, V86_SS), segments
    case.set(ESP, FRAME)
    case.set(SS, DATAS[0])
    for seg in (DS, ES, FS, GS):
        case.set(seg, DATAS[0])
    case.gdt(TSS_A_SEL, descriptor(TSS_A, MAP + 0x20, 0x8B))
    case.put(TSS_A + 0x66, MAP, 2)
    for n in range(32):
        case.put(TSS_A + MAP - 32 + n, 0xFF, 1)
    for vector in redirected:
        at = TSS_A + MAP - 32 + vector // 8
        case.put(at, case.get(at, 1) & ~(1 << vector % 8), 1)
    case.ops[LAND] = (software(0x20), 2)
    return case


def software(vector):
    """INT n in either mode."""

    def op(m):
        if not m.flags & VM:
            m.int_n(vector)
            return
        iopl = m.flags >> 12 & 3
        if m.cr4 & VME and not m.read(m.tr.desc.base + m.read(m.tr.desc.base + 0x66, 2) - 32 + vector // 8, 1) >> vector % 8 & 1:
            flags = m.flags
            if iopl < 3:
                flags = flags & ~IF | IOPL | (IF if flags & VIF else 0)
            m.push_all([flags, m.seg["cs"].selector, m.next], 2)
            target = m.read(4 * vector, 4)
            m.eip = target & 0xFFFF
            from machine import real_segment

            m.seg["cs"] = real_segment(target >> 16)
            m.flags &= ~(TF | (VIF if iopl < 3 else IF))
            return
        if iopl < 3:
            raise gp(0)
        m.int_n(vector)

    return op


def cli(m):
    """CLI, with VME and PVI."""
    interrupt_flag(m, False)


def sti(m):
    """STI."""
    interrupt_flag(m, True)


def interrupt_flag(m, on):
    """IF or VIF."""
    iopl = m.flags >> 12 & 3
    flag = IF
    if m.flags & VM and iopl < 3 or not m.flags & VM and m.cpl > iopl:
        if not (m.cr4 & VME if m.flags & VM else m.cpl == 3 and m.cr4 & PVI):
            raise gp(0)
        if on and m.flags & VIP:
            raise gp(0)
        flag = VIF
    m.flags = m.flags | flag if on else m.flags & ~flag
    m.eip = m.next


def pushf(size):
    """PUSHF and PUSHFD."""

    def op(m):
        flags = m.flags & ~(VM | RF)
        if m.flags & VM and m.flags & IOPL != IOPL:
            if size == 4 or not m.cr4 & VME:
                raise gp(0)
            flags = flags & ~IF | IOPL | (IF if m.flags & VIF else 0)
        m.push_all([flags], size)
        m.eip = m.next

    return op


USUAL = CF | PF | AF | ZF | SF | DF | OF | NT


def popf(size):
    """POPF and POPFD in virtual-8086 mode."""

    def op(m):
        value = m.read(m.top(0, size), size)
        mask = USUAL | TF | (AC | ID if size == 4 else 0)
        if m.flags & IOPL == IOPL:
            new = m.flags & ~(mask | IF | RF) | value & (mask | IF)
        else:
            if size == 4 or not m.cr4 & VME or value & TF or value & IF and m.flags & VIP:
                raise gp(0)
            new = m.flags & ~(mask | VIF) | value & mask | (VIF if value & IF else 0)
        m.set_sp(m.r["esp"] + size)
        m.flags, m.eip = new, m.next

    return op


def iret(size):
    """IRET in virtual-8086 mode, with VME."""

    def op(m):
        if m.flags & IOPL == IOPL:
            iret_v86(m, size)
            return
        if size == 4 or not m.cr4 & VME:
            raise gp(0)
        ip, cs, value = (m.read(m.top(2 * n, 2), 2) for n in range(3))
        if value & TF or value & IF and m.flags & VIP:
            raise gp(0)
        from machine import real_segment

        mask = USUAL | TF
        m.set_sp(m.r["esp"] + 6)
        m.seg["cs"], m.eip = real_segment(cs), ip
        m.flags = m.flags & ~(mask | VIF) | value & mask | (VIF if value & IF else 0)

    return op


SENSITIVE = (
    (b"\xfa", cli), (b"\xfb", sti), (b"\x9c", pushf(2)), (b"\x66\x9c", pushf(4)), (b"\x9d", popf(2)), (b"\x66\x9d", popf(4)),
    (b"\xcf", iret(2)), (b"\x66\xcf", iret(4)),
)  # fmt: skip


def sensitive(base):
    """CLI, STI, PUSHF, POPF, IRET: IOPL × VME × IF × VIF × VIP × what is popped."""
    for cr4 in (0, VME, PVI, VME | PVI):
        for iopl in range(4):
            for bits in range(8):
                flags = 2 | iopl << 12 | (IF if bits & 1 else 0) | (VIF if bits & 2 else 0) | (VIP if bits & 4 else 0) | CF
                if iopl == 3 and bits >= 6:
                    continue  # VIF and VIP are not in use then, the manual says, but not whether the check is
                for code, op in SENSITIVE:
                    values = (2,)
                    if code[-1] in (0x9D, 0xCF):
                        values = (2, 2 | IF, 2 | NT | ZF, 2 | IOPL | IF | DF, 2 | AC | ID | VIF | VIP | OF)
                    for value in values:
                        case = start(base, flags, cr4)
                        size = 4 if code[0] == 0x66 else 2
                        at = V86_SS * 16 + SP
                        if code[-1] == 0x9D:
                            case.put(at, value, size)
                        elif code[-1] == 0xCF:
                            for n, word in enumerate((0x80, V86_CS, value)):
                                case.put(at + size * n, word, size)
                        case.code(CODE, code, op)
                        case.code(CODE + len(code), b"\xcd\x20", software(0x20))
                        yield case


def software_interrupts(base):
    """INT n: IOPL × VME × the redirection bitmap × IF × VIF × VIP × vectors at the bitmap's edges; INT3, INTO, INT1 are other."""
    for cr4 in (0, VME):
        for iopl in range(4):
            for bits in range(8):
                flags = 2 | iopl << 12 | (IF if bits & 1 else 0) | (VIF if bits & 2 else 0) | (VIP if bits & 4 else 0) | CF | AC
                if iopl == 3 and bits >= 6:
                    continue
                for vector in (0x00, 0x07, 0x08, 0x21, 0x27):
                    for redirected in ((), (vector,), (vector + 1, vector - 1 & 0xFF)):
                        case = start(base, flags, cr4, redirected)
                        case.put(4 * vector, V86_CS << 16 | 0x80)
                        case.idt(vector, gate(OWN_CODE, STUBS + 16 * vector, 0xEE))
                        case.code(CODE, bytes((0xCD, vector)), software(vector))
                        yield case
                for code, vector in ((b"\xcc", 3), (b"\xce", 4)):
                    for dpl in (0, 3):
                        for redirected in ((), (vector,)):
                            case = start(base, flags | OF, cr4, redirected)
                            case.idt(vector, gate(OWN_CODE, STUBS + 16 * vector, 0x8E | dpl << 5))
                            case.code(CODE, code, lambda m, vector=vector: m.int_n(vector))
                            yield case


def handlers(base):
    """Through which gates virtual-8086 mode may be left: kind × the target's DPL × conforming × presence, for INT n and a fault."""
    for kind in (6, 7, 14, 15):
        for access in (0x9B, 0xBB, 0xDB, 0xFB, 0x9F, 0xBF, 0xFF, 0x1B, 0x93):
            for source in (0, 1):
                case = start(base, 2 | IOPL | CF | IF)
                vector = (0x21, 6)[source]
                case.gdt(FREE, descriptor(0, 0xFFFFF, access, 0xC))
                case.idt(vector, gate(FREE, LAND, 0xE0 | kind))
                case.land()
                case.ops[LAND] = (software(0x20), 2)

                def ud(_):
                    raise Fault(6)

                case.code(CODE, (b"\xcd\x21", b"\x0f\x0b")[source], (software(0x21), ud)[source])
                yield case


PRIVILEGED = (
    b"\xf4", b"\x0f\x06", b"\x0f\x20\xc0", b"\x0f\x22\xc0", b"\x0f\x21\xc0", b"\x0f\x23\xc0", b"\x0f\x01\x16\0\0",
    b"\x0f\x01\x1e\0\0", b"\x0f\x01\xf0", b"\x0f\x09", b"\x0f\x01\x3e\0\0", b"\x0f\x30", b"\x0f\x32",
)  # fmt: skip
PROTECTED_ONLY = (
    b"\x0f\x00\xc0", b"\x0f\x00\xc8", b"\x0f\x00\xd0", b"\x0f\x00\xd8", b"\x0f\x00\xe0", b"\x0f\x00\xe8", b"\x0f\x02\xc0",
    b"\x0f\x03\xc0", b"\x63\xc0",
)  # fmt: skip


def forbidden(base):
    """Privileged instructions are #GP(0), those of protected mode only #UD."""

    def fault(vector, code):
        def op(_):
            raise Fault(vector, code)

        return op

    for cr4 in (0, VME):
        for iopl in (0, 3):
            for codes, op in ((PRIVILEGED, fault(13, 0)), (PROTECTED_ONLY, fault(6, None))):
                for code in codes:
                    case = start(base, 2 | iopl << 12, cr4)
                    case.code(CODE, code, op)
                    yield case


def virtual_interrupts(base):
    """PVI: CLI and STI in ring 3 of protected mode."""
    for cr4 in (0, PVI, VME, PVI | VME):
        for cpl in range(4):
            for iopl in range(4):
                for bits in range(8):
                    flags = 2 | iopl << 12 | (IF if bits & 1 else 0) | (VIF if bits & 2 else 0) | (VIP if bits & 4 else 0)
                    if iopl == 3 and bits >= 6:
                        continue
                    for code, op in ((b"\xfa", cli), (b"\xfb", sti)):
                        case = base.copy()
                        case.set(CR4, cr4)
                        case.start(cpl, eflags=flags)
                        case.code(CODE, code, op)
                        case.land(CODE + 1)
                        yield case


PORT = 0x340  # nobody's


def ports(base):
    """The I/O permission bitmap: each bit of a byte × width × where the TSS ends × IOPL × CPL, in protected and V86 mode."""

    def out(size):
        def op(m):
            if m.flags & VM or m.cpl > m.flags >> 12 & 3:
                tss = m.tr.desc
                if not tss.type & 8 or tss.limit < 0x67:
                    raise gp(0)
                at = m.read(tss.base + 0x66, 2) + port_of(m) // 8
                if at + 1 > tss.limit:
                    raise gp(0)
                bits = m.read(tss.base + at, 2) >> port_of(m) % 8
                if bits & (1 << size) - 1:
                    raise gp(0)
            m.eip = m.next

        return op

    def port_of(m):
        return m.r["edx"] & 0xFFFF

    for v86 in (False, True):
        for iopl in (0, 3):
            for size, code in ((1, b"\xee"), (2, b"\x66\xef"), (4, b"\xef")):
                if v86:
                    code = {1: b"\xee", 2: b"\xef", 4: b"\x66\xef"}[size]
                for low in range(8):
                    for shut in (None, *range(0, 12)):
                        for limit in (0xFF,) if shut is not None else (0x67, 0x68, 0xDF, 0xE0, 0xE1, 0xE2, 0xFF):
                            case = start(base, 2 | iopl << 12) if v86 else base.copy()
                            if not v86:
                                case.start(3, eflags=2 | iopl << 12)
                            case.set(EDX, PORT + low)
                            case.put(TSS_A + 0x66, 0xE0 - PORT // 8, 2)
                            case.gdt(TSS_A_SEL, descriptor(TSS_A, limit, 0x8B))
                            for n in range(4):
                                case.put(TSS_A + 0xE0 + n, 0, 1)
                            if shut is not None:
                                case.put(TSS_A + 0xE0, 1 << shut, 2)
                            case.code(CODE, code, out(size))
                            case.code(CODE + len(code), b"\xcd\x20", software(0x20))
                            yield case
    for access in (0x8B, 0x83):
        for limit in (0x2B, 0x66, 0x67, 0xFF):
            for iopl in (0, 3):
                case = base.copy()
                case.start(3, eflags=2 | iopl << 12)
                case.set(EDX, PORT)
                for ring in range(3) if access == 0x83 else ():
                    case.put(TSS_A + 2 + 4 * ring, STACKS[ring] | DATAS[ring] << 16)
                case.put(TSS_A + 0x66, 0xE0 - PORT // 8, 2)
                case.gdt(TSS_A_SEL, descriptor(TSS_A, limit, access))
                case.code(CODE, b"\xee", out(1))
                case.land(CODE + 1)
                yield case


FAMILIES = (sensitive, software_interrupts, handlers, forbidden, virtual_interrupts, ports)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual()):
            case.name = family.__name__
            yield case
