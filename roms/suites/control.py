"""Control registers, EFER, XCR0, debug registers and MSRs: each reserved bit, each value that is refused, in each ring, and what is
read back (SDM vol. 3, 2.5, 2.6, 4.1; vol. 4). Bits that only some processors have are left out."""

from layout import *
from longmode import CODE0, CODE64, FSBASE, GSBASE, HIGH, KGSBASE, MORE, NAMES, Machine as Base, canonical, usual64  # noqa: F401
from machine import Fault, gp

FRAME_IMAGE = "frame64.frame"
RINGS = (CODE0, 0x61, CODE64)


class Machine(Base):
    """Bases that the cases write by WRMSR are the record's."""


def attempt(base, cs, value, code, refused, back=b"", seen=None, ecx=None, effect=None):
    """RAX (and EDX:EAX) = value; the instruction is refused, or runs, and `back` reads `seen` into RBX or EDX:EAX."""
    case = base.copy()
    case.start(cs)
    case.setq(0, value)
    case.setq(4, value >> 32)
    if ecx is not None:
        case.setq(2, ecx)

    def op(m):
        if refused or cs & 3:
            raise Fault(6) if refused == "ud" else gp(0)
        if effect:
            effect(m)
        m.rip = m.next

    case.code(CODE, code, op)
    if back:

        def read(m):
            if back[-1] == 0x32 or back[-1] == 0xD0:
                m.r["rax"], m.r["rdx"] = seen & 0xFFFFFFFF, seen >> 32
            else:
                m.r["rbx"] = seen
            m.rip = m.next

        case.code(CODE + len(code), back, read)
    case.land(CODE + len(code) + len(back))
    return case


PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG = (1 << n for n in (0, 1, 2, 3, 4, 5, 16, 18, 29, 30, 31))


def cr0(base):
    """Single bits and pairs of CR0 changed."""
    usual = PG | ET | PE
    for cs in RINGS:
        for first in range(64):
            for second in (None, 0, 3, 16, 29, 30, 31):
                value = usual ^ 1 << first ^ (1 << second if second is not None and second != first else 0)
                refused = value >> 32 or not value & PG or not value & PE or value & NW and not value & CD
                seen = value & (PE | MP | EM | TS | NE | WP | AM | NW | CD | PG) | ET
                yield attempt(base, cs, value, b"\x0f\x22\xc0", refused, b"\x0f\x20\xc3", seen)


def cr4(base):
    """CR4 with each bit changed; PAE stays in long mode, LA57 cannot change there."""
    for cs in RINGS:
        for bit in (*range(0, 11), 12, 15, 16, *range(29, 64)):
            value = 0x220 ^ 1 << bit
            refused = bit in (5, 12, 15) or bit >= 29
            yield attempt(base, cs, value, b"\x0f\x22\xe0", refused, b"\x0f\x20\xe3", value)


def cr3_and_cr8(base):
    """CR3: address bits that no processor has; CR8: four bits; registers that there are not."""
    for cs in RINGS:
        for bit in (3, 4, *range(52, 64)):
            value = 0x40000 | 1 << bit
            yield attempt(base, cs, value, b"\x0f\x22\xd8", bit >= 52, b"\x0f\x20\xdb", value)
        for value in (*range(16), *(1 << bit for bit in range(4, 64))):
            yield attempt(base, cs, value, b"\x44\x0f\x22\xc0", value > 15, b"\x44\x0f\x20\xc3", value)
        for register in (1, 5, 6, 7):
            for code in (0x20, 0x22):
                case = attempt(base, CODE0, 0, bytes((0x0F, code, 0xC0 | register << 3)), "ud")
                yield case


def efer(base):
    """EFER's reserved bits; LME stays set while paging is on."""
    for cs in RINGS:
        for bit in (*range(1, 8), 8, 9, 11, *range(16, 64)):
            value = 0xD01 ^ 1 << bit
            refused = bit not in (11,)
            if bit in (18, 20, 21):
                continue  # AMD: MCOMMIT, UAIE, AIBRSE
            if bit == 17:
                continue  # AMD: INTWB
            yield attempt(base, cs, value, b"\x0f\x30", refused, b"\x0f\x32", value & 0xFFFFFFFF, 0xC0000080)


def xcr0(base):
    """XSETBV: bit 0 stays set, AVX needs SSE, reserved bits, other registers; without CR4.OSXSAVE #UD."""
    for osxsave in (0, 1 << 18):
        base = base.copy()
        base.set(MORE + 10, 0x220 | osxsave)
        for cs in RINGS:
            for value in (*range(8), *(3 | 1 << bit for bit in (8, *range(20, 62), 63))):
                for ecx in (0, 1, 0xFFFFFFFF) if value == 3 else (0,):
                    refused = not value & 1 or value & 6 == 4 or value > 7 or ecx
                    refused = refused if osxsave else "ud"
                    yield attempt(base, cs, value, b"\x0f\x01\xd1", refused, b"\x0f\x01\xd0", value, ecx)


def debug_registers(base):
    """DR6 and DR7: the upper half must be zero; DR0 to DR3 take everything."""
    for cs in RINGS:
        for bit in range(32, 64):
            for register in (0, 3, 6, 7):
                value = 1 << bit | (0x400 if register == 7 else 0)
                yield attempt(base, cs, value, bytes((0x0F, 0x23, 0xC0 | register << 3)), register > 3)


def addresses(base):
    """MSRs that hold an address refuse one that is not canonical."""
    kept = {0xC0000100: FSBASE, 0xC0000101: GSBASE, 0xC0000102: KGSBASE}
    for cs in RINGS:
        for msr in (0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102, 0x175, 0x176):
            for value in (*(1 << bit for bit in range(40, 64)), HIGH, HIGH - 1, (1 << 47) - 1, (1 << 64) - 1):

                def effect(m, msr=msr, value=value):
                    if msr in kept:
                        m.msr[kept[msr]] = value

                yield attempt(base, cs, value, b"\x0f\x30", not canonical(value), b"\x0f\x32", value, msr, effect)


def memory_types(base):
    """PAT, the default type and a fixed range: types that there are not, reserved bits."""
    for cs in (CODE0, CODE64):
        for place in range(8):
            for kind in range(0x100) if place in (0, 5) else range(16):
                value = 0x0606060606060606 & ~(0xFF << 8 * place) | kind << 8 * place
                yield attempt(base, cs, value, b"\x0f\x30", kind not in (0, 1, 4, 5, 6, 7), b"\x0f\x32", value, 0x277)
                yield attempt(base, cs, value, b"\x0f\x30", kind not in (0, 1, 4, 5, 6), b"\x0f\x32", value, 0x250)
        for bit in range(64):
            value = 6 | 1 << bit if bit > 7 else 0x800 | bit
            refused = bit in (8, 9) or bit > 11 or bit in (2, 3, 7)
            yield attempt(base, cs, value, b"\x0f\x30", refused, b"\x0f\x32", value, 0x2FF)


def absent(base):
    """MSRs that no processor has: reads and writes."""
    for cs in RINGS:
        for msr in (0x2000, 0x12345678, 0x40000FFF, 0xBFFFFFFF, 0xFFFFFFFF, 0xD0000000):
            yield attempt(base, cs, 0, b"\x0f\x30", True, ecx=msr)
            yield attempt(base, cs, 0, b"\x0f\x32", True, ecx=msr)


FAMILIES = (cr0, cr4, cr3_and_cr8, efer, xcr0, debug_registers, addresses, memory_types, absent)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual64()):
            case.name = family.__name__
            yield case
