"""Segments: loads by descriptor × RPL × CPL × register × instruction; what LAR, LSL, VERR, VERW, ARPL, LLDT and LTR say of
every descriptor; limits at their edges for every kind of access."""

from layout import *
from machine import Descriptor, gp, inside, np, Fault
from transfers import load_segment

FRAME_IMAGE = "frame32.frame"
SLOT = FREE
STATUS = CF | PF | AF | ZF | SF | OF
REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs")
STATE_OF = {"es": ES, "ds": DS, "fs": FS, "gs": GS}


def mov(case, name):
    """MOV Sreg, AX."""

    def op(m):
        load_segment(m, name, m.r["eax"] & 0xFFFF)
        m.eip = m.next

    case.code(CODE, bytes((0x8E, 0xC0 | REGISTERS.index(name) << 3)), op)
    case.land(CODE + 2)


POPS = {"es": b"\x07", "ss": b"\x17", "ds": b"\x1f", "fs": b"\x0f\xa1", "gs": b"\x0f\xa9"}


def pop(case, name, selector, cpl):
    """POP Sreg; for SS, the stack that it leaves is the one that is popped from."""
    case.start(cpl, esp=STACKS[cpl] - 8)
    case.put(STACKS[cpl] - 8, selector | 0xABCD0000)

    def op(m):
        value = m.read(m.top(0, 4), 2)
        load_segment(m, name, value)
        m.r["esp"] += 4
        m.eip = m.next

    case.code(CODE, POPS[name], op)
    case.land(CODE + len(POPS[name]))


LOADS = {"es": b"\xc4", "ds": b"\xc5", "ss": b"\x0f\xb2", "fs": b"\x0f\xb4", "gs": b"\x0f\xb5"}


def lxs(case, name, selector, offset):
    """LxS EBX, [DATA]."""
    case.put(DATA, offset)
    case.put(DATA + 4, selector, 2)

    def op(m):
        at = m.check("ds", DATA, 6)
        value, chosen = m.read(at, 4), m.read(at + 4, 2)
        load_segment(m, name, chosen)
        m.r["ebx"] = value
        m.eip = m.next

    code = LOADS[name] + b"\x1d" + DATA.to_bytes(4, "little")
    case.code(CODE, code, op)
    case.land(CODE + len(code))


def loads(base):
    """MOV into each register: the access byte × CPL × RPL."""
    for name in ("ds", "ss", "es", "fs", "gs"):
        for cpl in range(4):
            for access in range(0x100):
                for rpl in range(4) if name in ("ds", "ss") else {cpl, 3}:
                    case = base.copy()
                    case.start(cpl)
                    case.gdt(SLOT, descriptor(0, 0xFFFFF, access, 0xC))
                    case.set(EAX, SLOT | rpl | 0x12340000)
                    if name == "ss" and access & 0x16 == 0x16:
                        case.gdt(SLOT, descriptor(0, 0, access, 0xC))
                    mov(case, name)
                    yield case


def load_edges(base):
    """Null and bad selectors, both tables, all instructions."""
    for name in ("ds", "ss", "es", "fs", "gs"):
        for cpl in range(4):
            for selector in (*range(4), 0x200 | cpl, 0x1F8 | cpl, 0x7C | cpl, 0x84 | cpl, 0x5C | cpl, SLOT | cpl, SLOT | 3):
                for access in (0x93, 0x13) if selector & ~3 == SLOT else (0x93,):
                    for how in ("mov", "pop", "lxs"):
                        case = base.copy()
                        case.start(cpl)
                        for at in (SLOT, 0x7C, 0x5C):
                            case.gdt(at, descriptor(0, 0xFFFFF, access | cpl << 5, 0xC))
                        case.set(EAX, selector)
                        if how == "mov":
                            mov(case, name)
                        elif how == "pop":
                            pop(case, name, selector, cpl)
                        else:
                            lxs(case, name, selector, 0x89ABCDEF)
                        yield case
            # The LDT's own limit, and no LDT.
            for limit in (0x5E, 0x5F, 0x67):
                for ldtr in (0, LDT_SEL):
                    case = base.copy()
                    case.start(cpl)
                    case.gdt(0x5C, descriptor(0, 0xFFFFF, 0x93 | cpl << 5, 0xC))
                    case.gdt(LDT_SEL, descriptor(LDT, limit, 0x82))
                    case.set(LDTR, ldtr)
                    case.set(EAX, 0x5C | cpl)
                    mov(case, name)
                    yield case


QUESTIONS = (
    ("lar", b"\x0f\x02\xd8"), ("lsl", b"\x0f\x03\xd8"), ("lar16", b"\x66\x0f\x02\xd8"), ("lsl16", b"\x66\x0f\x03\xd8"),
    ("verr", b"\x0f\x00\xe0"), ("verw", b"\x0f\x00\xe8"),
)  # fmt: skip


def question(m, name):
    """LAR, LSL, VERR, VERW with the selector in AX and the answer in EBX and ZF."""
    selector = m.r["eax"] & 0xFFFF
    m.flags &= ~ZF
    m.eip = m.next
    at = m.slot(selector) if selector & 0xFFFC else None
    if at is None:
        return
    desc = Descriptor(m.read(at, 8))
    if not desc.conforming and (m.cpl > desc.dpl or selector & 3 > desc.dpl):
        return
    kind = name[:3]
    if kind == "ver":
        if desc.readable if name == "verr" else desc.writable:
            m.flags |= ZF
        return
    types = (1, 2, 3, 4, 5, 9, 11, 12) if kind == "lar" else (1, 2, 3, 9, 11)
    if not desc.user and desc.type not in types:
        return
    value = desc.raw >> 32 & 0x00FFFF00 if kind == "lar" else desc.limit
    m.flags |= ZF
    m.r["ebx"] = m.r["ebx"] & 0xFFFF0000 | value & 0xFFFF if name.endswith("16") else value


def questions(base):
    """What a program may ask about a descriptor: instruction × access byte × CPL × RPL × granularity."""
    for name, code in QUESTIONS:
        for cpl in (0, 1, 3):
            for access in range(0x100):
                for rpl in (0, 3) if access & 3 == 3 else (cpl,):
                    case = base.copy()
                    case.start(cpl, eflags=2 | (ZF if access & 1 else 0) | CF)
                    case.gdt(SLOT, descriptor(0x123456, 0xFFF, access, 0xD if access & 2 else 5))
                    case.set(EAX, SLOT | rpl)
                    case.code(CODE, code, lambda m, name=name: question(m, name))
                    case.land(CODE + len(code))
                    yield case
        for selector in (*range(4), 0x200, 0x1FB, 0x7C, 0x84, 0xFFFF):
            case = base.copy()
            case.start(3, eflags=2 | ZF)
            case.set(EAX, selector)
            case.code(CODE, code, lambda m, name=name: question(m, name))
            case.land(CODE + len(code))
            yield case


def arpl(base):
    """ARPL AX, BX: all pairs."""

    def op(m):
        low, high = m.r["eax"] & 3, m.r["ebx"] & 3
        m.flags &= ~ZF
        if low < high:
            m.flags |= ZF
            m.r["eax"] = m.r["eax"] & ~3 | high
        m.eip = m.next

    for cpl in (0, 3):
        for low in range(4):
            for high in range(4):
                for flags in (2, 2 | ZF | CF):
                    case = base.copy()
                    case.start(cpl, eflags=flags)
                    case.set(EAX, 0x5550 | low)
                    case.set(EBX, 0xAAA0 | high)
                    case.code(CODE, b"\x63\xd8", op)
                    case.land(CODE + 2)
                    yield case


def system_loads(base):
    """LLDT and LTR of every descriptor, from GDT and LDT."""

    def lldt(m):
        selector = m.r["eax"] & 0xFFFF
        if m.cpl:
            raise gp(0)
        m.eip = m.next
        if not selector & 0xFFFC:
            m.ldtr = type(m.ldtr)(selector, None)
            return
        if selector & 4:
            raise gp(selector & 0xFFFC)
        desc = m.fetch(selector, gp)
        if desc.user or desc.type != 2:
            raise gp(selector & 0xFFFC)
        if not desc.present:
            raise np(selector & 0xFFFC)
        m.ldtr = type(m.ldtr)(selector, desc)

    def ltr(m):
        selector = m.r["eax"] & 0xFFFF
        if m.cpl:
            raise gp(0)
        if not selector & 0xFFFC:
            raise gp(0)
        if selector & 4:
            raise gp(selector & 0xFFFC)
        desc = m.fetch(selector, gp)
        if desc.user or desc.type not in (1, 9):
            raise gp(selector & 0xFFFC)
        if not desc.present:
            raise np(selector & 0xFFFC)
        at = m.slot(selector) + 5
        m.write(at, m.mem[at] | 2, 1)
        m.tr = type(m.tr)(selector, Descriptor(desc.raw | 2 << 40))
        m.eip = m.next

    def wrapped(op):
        def run(m):
            before = m.eip
            try:
                op(m)
            except Fault:
                m.eip = before
                raise

        return run

    for code, op in ((b"\x0f\x00\xd0", wrapped(lldt)), (b"\x0f\x00\xd8", ltr)):
        for access in range(0x100):
            for rpl in (0, 3):
                case = base.copy()
                case.start(0)
                case.gdt(SLOT, descriptor(TSS_A, 0x67, access))
                case.set(EAX, SLOT | rpl)
                case.code(CODE, code, op)
                case.land(CODE + 3)
                yield case
        for cpl in range(4):
            for selector in (*range(4), 0x200, 0x1F8, 0x7C, 0x84, SLOT | 4):
                case = base.copy()
                case.start(cpl)
                case.set(EAX, selector)
                case.code(CODE, code, op)
                case.land(CODE + 3)
                yield case


# Accesses: name, code with {} for the address, size, write, effect on the model (given the linear address).


def effect_load(register, size):
    """A load into the low bytes of a register."""

    def op(m, at):
        mask = (1 << 8 * size) - 1
        m.r[register] = m.r[register] & ~mask | m.read(at, size) & mask

    return op


def effect_store(register, size):
    """A store of the low bytes of a register."""
    return lambda m, at: m.write(at, m.r[register], size)


def effect_xchg(m, at):
    """XCHG."""
    old = m.read(at, 4)
    m.write(at, m.r["ecx"], 4)
    m.r["ecx"] = old


def status(m, result, carry, adjust, overflow, size):
    """Sets the six status flags."""
    result &= (1 << 8 * size) - 1
    bits = (CF, carry), (PF, bin(result & 0xFF).count("1") % 2 == 0), (AF, adjust), (ZF, result == 0)
    for flag, on in (*bits, (SF, result >> 8 * size - 1), (OF, overflow)):
        m.flags = m.flags | flag if on else m.flags & ~flag


def sub_flags(m, a, b, size):
    """The flags of a - b."""
    result = a - b
    status(m, result, a < b, (a ^ b ^ result) & 16, (a ^ b) & (a ^ result) & 1 << 8 * size - 1, size)


def effect_add(m, at):
    """ADD [m], ECX."""
    a, b = m.read(at, 4), m.r["ecx"]
    m.write(at, a + b, 4)
    status(m, a + b, a + b >> 32, (a ^ b ^ a + b) & 16, (a ^ a + b) & (b ^ a + b) & 1 << 31, 4)


def effect_cmpxchg8b(m, at):
    """Not equal: EDX:EAX get the memory's."""
    value = m.read(at, 8)
    m.r["eax"], m.r["edx"] = value & 0xFFFFFFFF, value >> 32


ACCESSES = (
    ("load8", b"\x8a\x88", 1, False, effect_load("ecx", 1)),
    ("load16", b"\x66\x8b\x88", 2, False, effect_load("ecx", 2)),
    ("load32", b"\x8b\x88", 4, False, effect_load("ecx", 4)),
    ("store8", b"\x88\x88", 1, True, effect_store("ecx", 1)),
    ("store16", b"\x66\x89\x88", 2, True, effect_store("ecx", 2)),
    ("store32", b"\x89\x88", 4, True, effect_store("ecx", 4)),
    ("add", b"\x01\x88", 4, True, effect_add),
    ("lock not", b"\xf0\xf7\x90", 4, True, lambda m, at: m.write(at, ~m.read(at, 4), 4)),
    ("xchg", b"\x87\x88", 4, True, effect_xchg),
    ("cmp", b"\x38\x88", 1, False, lambda m, at: sub_flags(m, m.read(at, 1), m.r["ecx"] & 0xFF, 1)),
    ("cmpxchg8b", b"\x0f\xc7\x88", 8, True, effect_cmpxchg8b),
    ("fld80", b"\xdb\xa8", 10, False, lambda m, at: None),
    ("fld64", b"\xdd\x80", 8, False, lambda m, at: None),
    ("fild16", b"\xdf\x80", 2, False, lambda m, at: None),
    ("bound", b"\x62\x88", 8, False, None),
    ("sgdt", b"\x0f\x01\x80", 6, True, lambda m, at: m.write(at, m.gdtr[1] | m.gdtr[0] << 16, 6)),
    ("str", b"\x0f\x00\x88", 2, True, lambda m, at: m.write(at, m.tr.selector, 2)),
    ("movzx", b"\x0f\xb7\x88", 2, False, lambda m, at: m.r.__setitem__("ecx", m.read(at, 2))),
)


def segments_at_edges():
    """(descriptor's limit, access, flags, base, offsets around the edges)."""
    for access in (0x93, 0x91, 0x9B):  # data, read-only, readable code
        yield 0x3F, access, 4, DATA, 0x3F
        yield 0x3F, access, 0, DATA, 0x3F
        yield 0, access, 0xC, DATA + 0x40 - 0x1000, 0xFFF
        yield 0xFFFF, access, 4, DATA + 0x40 - 0x10000, 0xFFFF
        yield 0x10, access, 0xC, DATA + 0x40 - 0x11000, 0x10FFF
    for access in (0x97, 0x95):  # expand-down: the first valid offset is limit + 1
        yield 0x3F, access, 4, DATA, 0x3F
        yield 0x3F, access, 0, DATA, 0x3F
        yield 0, access, 0xC, DATA + 0x40 - 0x1000, 0xFFF
        yield 0xFFFE, access, 0, DATA + 0x40 - 0xFFFF, 0xFFFE
        yield 0xFF00, access, 0, DATA + 0x40 - 0xFFFF, 0xFFFF  # its upper bound
        yield 0x7FFFF, access, 0xC, DATA + 0x40 - 0x80000000, 0x7FFFFFFF
        yield 0xFFFFF, access, 0xC, DATA, 0x3F  # nothing is valid


def limits(base):
    """Every kind of access × segment × offset around its edge, by FS and (for stack segments) by SS."""
    for limit, access, flags, at, edge in segments_at_edges():
        for name, code, size, write, effect in ACCESSES:
            for delta in range(-size - 1, 4):
                offset = edge + delta
                case = base.copy()
                case.start(0)
                for n in range(0, 0x80, 4):
                    case.put(DATA + n, 0x03020100 + 0x04040404 * (n // 4))
                case.set(MASK, ALL_FLAGS & ~STATUS)
                case.gdt(SLOT, descriptor(at & 0xFFFFFFFF, limit, access, flags))
                case.set(FS, SLOT)
                case.set(EAX, offset & 0xFFFFFFFF)
                access_case(case, b"\x64" + code, "fs", size, write, effect, name)
                yield case


def access_case(case, code, segment, size, write, effect, name):
    """Places an access through `segment` at [EAX + 0]."""

    def op(m):
        at = m.check(segment, m.r["eax"], size, write)
        if name == "bound":
            low, high = m.read(at, 4), m.read(at + 4, 4)
            signed = lambda v: v - (1 << 32) if v >> 31 else v
            if not signed(low) <= signed(m.r["ecx"]) <= signed(high):
                raise Fault(5)
        else:
            effect(m, at)
        m.eip = m.next

    code = code + bytes(4)
    case.code(CODE, code, op)
    case.land(CODE + len(code))


def stack_limits(base):
    """PUSH, POP, PUSHA, POPA, ENTER, LEAVE, CALL and RET around both ends of a stack segment, B and expand-down."""
    rows = (
        (0x3F, 0xB3, 4, DATA), (0x3F, 0xB3, 0, DATA), (0x3F, 0xB7, 4, DATA - 0x40 + 0x20), (0x3F, 0xB7, 0, DATA - 0x40 + 0x20),
    )  # fmt: skip
    for limit, access, flags, at in rows:
        down = access & 4
        for code, op in STACK_CODE:
            for esp in range(0x38, 0x68) if down else (*range(0, 0x24), *range(0x1C, 0x48)):
                case = base.copy()
                for n in range(0, 0x80, 4):
                    case.put(DATA + n, 0x03020100 + 0x04040404 * (n // 4))
                case.gdt(SLOT, descriptor(at, limit, access, flags))
                case.start(1, esp=esp, ss=SLOT | 1)
                case.set(EBP, esp)
                case.code(CODE, code, op)
                case.land(CODE + len(code))
                # The landing interrupts to ring 0, so that ring 1's stack need not bear it.
                yield case


GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


def push(m):
    """PUSH EAX."""
    m.push_all([m.r["eax"]], 4)
    m.eip = m.next


def push16(m):
    """PUSH AX."""
    m.push_all([m.r["eax"]], 2)
    m.eip = m.next


def pop32(m):
    """POP ECX."""
    value = m.read(m.top(0, 4), 4)
    m.set_sp(m.r["esp"] + 4)
    m.r["ecx"] = value
    m.eip = m.next


def pusha(m):
    """PUSHAD."""
    m.push_all([m.r[name] for name in GENERAL], 4)
    m.eip = m.next


def popa(m):
    """POPAD."""
    values = [m.read(m.top(4 * n, 4), 4) for n in range(8)]
    m.set_sp(m.r["esp"] + 32)
    for name, value in zip(reversed(GENERAL), values):
        if name != "esp":
            m.r[name] = value
    m.eip = m.next


def leave(m):
    """LEAVE: EBP becomes the stack pointer, then is popped."""
    saved = m.r["esp"]
    m.set_sp(m.r["ebp"])
    try:
        value = m.read(m.top(0, 4), 4)
    except Fault:
        m.r["esp"] = saved
        raise
    m.set_sp(m.r["esp"] + 4)
    m.r["ebp"] = value
    m.eip = m.next


def call(m):
    """CALL to the next instruction."""
    m.push_all([m.next], 4)
    m.eip = m.next


def pushf(m):
    """PUSHFD."""
    m.push_all([m.flags & ~(VM | RF)], 4)
    m.eip = m.next


STACK_CODE = (
    (b"\x50", push), (b"\x66\x50", push16), (b"\x59", pop32), (b"\x60", pusha), (b"\x61", popa), (b"\xc9", leave),
    (b"\xe8\0\0\0\0", call), (b"\x9c", pushf),
)  # fmt: skip

FAMILIES = (loads, load_edges, questions, arpl, system_loads, limits, stack_limits)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual()):
            case.name = family.__name__
            yield case
