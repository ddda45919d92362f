"""String instructions that a page fault interrupts: at each element, in either operand, both directions, all widths, with and
without REP and REPNE; a fault inside an element that straddles two pages. Registers must tell exactly what is done."""

from layout import *
from machine import Fault
from paging import A, D, FRAME_IMAGE, LARGE, Machine, PAE, P, TEST, U, W, WP, begin, entries, paged  # noqa: F401
from segments import sub_flags

# Opcode, reads through ESI, reads through EDI, writes through EDI, compares.
KINDS = {
    "movs": (0xA4, True, False, True), "stos": (0xAA, False, False, True), "lods": (0xAC, True, False, False),
    "scas": (0xAE, False, True, False), "cmps": (0xA6, True, True, False),
}  # fmt: skip


def run_string(kind, size, rep):
    """The instruction to its end or its fault."""
    _, source, compared, sink = KINDS[kind]

    def elements(m):
        step = -size if m.flags & DF else size
        while not rep or m.r["ecx"]:
            if kind == "stos":
                value = m.r["eax"]
            elif kind == "scas":
                value = m.r["eax"] & (1 << 8 * size) - 1
            else:
                value = load(m, m.r["esi"], size)
            if compared:
                other = load(m, m.r["edi"], size)
                sub_flags(m, value, other, size)
            if sink:
                for n, place in enumerate(places(m, m.r["edi"], size, "write")):
                    m.mem[place] = value >> 8 * n & 0xFF
            if kind == "lods":
                mask = (1 << 8 * size) - 1
                m.r["eax"] = m.r["eax"] & ~mask | value
            if source:
                m.r["esi"] = m.r["esi"] + step & 0xFFFFFFFF
            if compared or sink:
                m.r["edi"] = m.r["edi"] + step & 0xFFFFFFFF
            if not rep:
                break
            m.r["ecx"] -= 1
            if compared and bool(m.flags & ZF) != (rep == 0xF3):
                break
        m.eip = m.next

    def op(m):
        before = m.flags
        try:
            elements(m)
        except Fault:
            # Of the elements that are done, a comparison's flags are not kept (SDM vol. 2, REP).
            m.flags = before
            raise

    opcode = KINDS[kind][0] | (size > 1)
    return (b"\x66" if size == 2 else b"") + (bytes((rep,)) if rep else b"") + bytes((opcode,)), op


def places(m, at, size, access):
    """Where the bytes lie."""
    return m.explicit(at, size, access) if at >= LARGE else range(at, at + size)


def load(m, at, size):
    """A load with the rights of the CPL."""
    return int.from_bytes(bytes(m.mem[place] for place in places(m, at, size, "read")), "little")


def interrupted(mode, kinds, shifts):
    """Element `at` of the operand is the first on a page with other rights."""
    base = paged(mode, WP)
    for n in range(0x40):
        base.put(n, 0x31 + n % 3, 1)
        base.put(0xFC0 + n, 0x31 + n % 3, 1)
        base.put(DATA + n, 0x31 + n % 3, 1)
    for kind in kinds:
        _, source, compared, sink = KINDS[kind]
        for size in (1, 2, 4):
            for rep in (0, 0xF3, 0xF2) if compared else (0, 0xF3):
                for down in (0, DF):
                    for operand in ("esi", "edi"):
                        if operand == "esi" and not source or operand == "edi" and not (compared or sink):
                            continue
                        for element in range(0, 5):
                            for shift in shifts(size):
                                for rights in (0, P | U, P | W, P | W | U):
                                    for cpl in (0, 3):
                                        case = begin(base, cpl, 2 | down | (ZF if element & 1 else 0))
                                        first, second = P | W | U | A | D, rights | A | D
                                        entries(case, P | W | U | A, *((second, first) if down else (first, second)))
                                        edge = TEST + 0x1000
                                        if down:
                                            start = edge + size * (element - 1) + (0 if not shift else size - shift)
                                        else:
                                            start = edge - size * element - shift
                                        case.set(ESI, start if operand == "esi" else DATA + 0x20)
                                        case.set(EDI, start if operand == "edi" else DATA + 0x20)
                                        case.set(ECX, 5)
                                        case.set(EAX, 0x31313131 if kind == "scas" and rep == 0xF3 else 0x39393939)
                                        code, op = run_string(kind, size, rep)
                                        case.code(CODE, code, op)
                                        case.land(CODE + len(code))
                                        yield case


def at_elements(_):
    """The page boundary lies between two elements."""
    for mode in (0, PAE):
        yield from interrupted(mode, ("movs", "stos", "lods", "scas", "cmps") if not mode else ("movs", "cmps"), lambda size: (0,))


def inside_elements(_):
    """The page boundary lies inside an element."""
    yield from interrupted(0, ("movs", "stos", "lods", "scas", "cmps"), lambda size: range(1, size))


FAMILIES = (at_elements, inside_elements)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(None):
            case.name = family.__name__
            yield case
