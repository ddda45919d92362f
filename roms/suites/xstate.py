"""XSAVE, XSAVEOPT, XSAVEC, XRSTOR: when they are refused (CR4, CR0.TS, alignment, each header bit), and what XRSTOR loads by RFBM ×
XSTATE_BV × standard or compacted form (SDM vol. 1, 13.6 to 13.12).

Leaves out what the saving ones write: which states count as in use is the processor's choice.
"""

from layout import *
from longmode import CODE0, CODE64, MORE, Machine as Base, NAMES, usual64  # noqa: F401
from machine import Fault, gp

FRAME_IMAGE = "frame64.frame"
AREA = 0x1300
OSXSAVE, TS = 1 << 18, 8
COMPACT = 1 << 63
XMM0, YMM0 = 0x0706050403020100, 0x1716151413121110  # in memory
XMM0_OLD, YMM0_OLD = 0x2726252423222120, 0x2726252423222120  # in the register


class Machine(Base):
    """With the low quarter of YMM0 and that of its upper half."""

    xmm, ymm = XMM0_OLD, YMM0_OLD


def prepare(base, cs, cr4=OSXSAVE, cr0=0, xcr0=7):
    """Sets XCR0 and YMM0 in the case's own code, when it can; gives where the instruction goes."""
    case = base.copy()
    case.start(cs)
    case.set(MORE + 10, 0x220 | cr4)
    case.set(MORE + 8, 0x80000011 | cr0)
    at = CODE
    if cr4 and not cs & 3:
        steps = (
            (b"\x31\xc9", lambda m: m.r.update(rcx=0)), (b"\x31\xd2", lambda m: m.r.update(rdx=0)),
            (b"\xb8" + xcr0.to_bytes(4, "little"), lambda m: m.r.update(rax=xcr0)), (b"\x0f\x01\xd1", lambda m: None),
        )  # fmt: skip
        for code, op in steps:

            def step(m, op=op):
                op(m)
                if code_sets_flags(m):
                    m.flags = m.flags | ZF | PF
                m.rip = m.next

            case.code(at, code, step)
            at += len(code)
        if not cr0:
            # VMOVQ XMM0, R8; VINSERTF128 YMM0, YMM0, XMM0, 1
            case.setq(16, XMM0_OLD)
            for code in (b"\xc4\xc1\xf9\x6e\xc0", b"\xc4\xe3\x7d\x18\xc0\x01"):

                def move(m):
                    m.rip = m.next

                case.code(at, code, move)
                at += len(code)
    return case, at


def code_sets_flags(m):
    """XOR of a register with itself."""
    return m.mem[m.rip] == 0x31


INSTRUCTIONS = {"xsave": b"\x41\x0f\xae\x21", "xrstor": b"\x41\x0f\xae\x29", "xsaveopt": b"\x41\x0f\xae\x31", "xsavec": b"\x41\x0f\xc7\x21"}


def place(case, at, name, rfbm, area, refused, effect=None):
    """MOV EAX, rfbm; XOR EDX, EDX; the instruction at [R9]; then YMM0 into RBX and RSI."""
    case.setq(18, area)

    def mask(m):
        m.r["rax"] = rfbm
        m.rip = m.next

    case.code(at, b"\xb8" + rfbm.to_bytes(4, "little"), mask)

    def zero(m):
        m.r["rdx"] = 0
        m.flags = m.flags & ~(CF | AF | SF | OF) | ZF | PF
        m.rip = m.next

    case.code(at + 5, b"\x31\xd2", zero)

    def op(m):
        if refused is not None:
            raise refused
        if effect:
            effect(m)
        m.rip = m.next

    case.code(at + 7, INSTRUCTIONS[name], op)
    at += 11
    # VMOVQ RBX, XMM0; VEXTRACTF128 XMM1, YMM0, 1; VMOVQ RSI, XMM1
    for code, back in (
        (b"\xc4\xe1\xf9\x7e\xc3", lambda m: m.r.update(rbx=m.xmm)), (b"\xc4\xe3\x7d\x19\xc1\x01", lambda m: None),
        (b"\xc4\xe1\xf9\x7e\xce", lambda m: m.r.update(rsi=m.ymm)),
    ):  # fmt: skip

        def run(m, back=back):
            back(m)
            m.rip = m.next

        case.code(at, code, run)
        at += len(code)
    case.land(at)


def header(case, bv, comp, area=AREA):
    """The header, and YMM0's halves where the form has them."""
    case.put(area + 24, 0x1F80)
    case.put(area + 512, bv, 8)
    case.put(area + 520, comp, 8)
    case.put(area, 0x037F, 2)
    case.put(area + 160, XMM0, 8)
    case.put(area + 576, YMM0, 8)


def refusals(base):
    """#UD, #NM and #GP in their order; alignment."""
    for name in INSTRUCTIONS:
        for cs in (CODE0, CODE64):
            for cr4 in (0, OSXSAVE):
                for ts in (0, TS):
                    for low in (*range(0, 64, 4), 1, 2, 3, 31, 32, 33, 63):
                        if cs & 3 and cr4 and not ts and not low:
                            continue  # runs with the XCR0 of the case before
                        case, at = prepare(base, cs, cr4, ts)
                        header(case, 0, 0)
                        refused = Fault(6) if not cr4 else Fault(7) if ts else gp(0) if low else None
                        if refused is None:
                            continue
                        place(case, at, name, 7, AREA + low, refused)
                        yield case


def headers(base):
    """XRSTOR: each bit of XSTATE_BV and XCOMP_BV, and of the rest of the header, in both forms."""
    for comp in (0, COMPACT, COMPACT | 7, COMPACT | 3):
        for bit in range(64):
            for field in ("bv", "comp"):
                bv, new_comp = (1 << bit, comp) if field == "bv" else (0, comp ^ 1 << bit)
                if bit == 63 and field == "bv" and comp:
                    continue  # the manual's rules do not name this bit there
                case, at = prepare(base, CODE0)
                header(case, bv, new_comp)
                if new_comp & COMPACT:
                    bad = new_comp & ~COMPACT & ~7 or bv & ~new_comp & ~COMPACT
                else:
                    bad = new_comp or bv & ~7
                place(case, at, "xrstor", 0, AREA, gp(0) if bad else None)
                yield case
        for byte in range(528, 576):
            case, at = prepare(base, CODE0)
            header(case, 0, comp)
            case.put(AREA + byte, 1 << byte % 8, 1)
            # The standard form looks at bytes 8 to 23 of the header, the compacted one at all.
            bad = comp & COMPACT or byte < 536
            place(case, at, "xrstor", 0, AREA, gp(0) if bad else None)
            yield case


def restores(base):
    """What XRSTOR loads, zeroes and leaves: RFBM × XSTATE_BV × form; reserved bits of MXCSR."""
    for comp in (None, 0, 1, 2, 3, 4, 5, 6, 7):
        for bv in range(8):
            for rfbm in range(8):
                bad = comp is not None and bv & ~comp
                case, at = prepare(base, CODE0)
                header(case, bv, 0 if comp is None else COMPACT | comp)

                def effect(m, bv=bv, rfbm=rfbm):
                    if rfbm & 2:
                        m.xmm = XMM0 if bv & 2 else 0
                    if rfbm & 4:
                        m.ymm = YMM0 if bv & 4 else 0

                place(case, at, "xrstor", rfbm, AREA, gp(0) if bad else None, effect)
                yield case
    for bit in range(32):
        for rfbm in range(8):
            for bv in (0, 2, 4, 7):
                case, at = prepare(base, CODE0)
                header(case, bv, 0)
                case.put(AREA + 24, 1 << bit)

                def effect(m, bv=bv, rfbm=rfbm):
                    if rfbm & 2:
                        m.xmm = XMM0 if bv & 2 else 0
                    if rfbm & 4:
                        m.ymm = YMM0 if bv & 4 else 0

                if bit == 17:
                    continue  # AMD: misaligned exception mask
                bad = bit >= 16 and rfbm & 6
                place(case, at, "xrstor", rfbm, AREA, gp(0) if bad else None, effect)
                yield case


FAMILIES = (refusals, headers, restores)


def cases():
    """All of them."""
    base = usual64()
    base.size = 0x1800
    base.mem.extend(bytes(0x1800 - len(base.mem)))
    for family in FAMILIES:
        for case in family(base):
            case.name = family.__name__
            yield case
