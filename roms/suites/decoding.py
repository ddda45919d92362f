"""Encodings: LOCK before every opcode, the limit of 15 bytes for every prefix, opcodes and register forms that do not exist.

A memory operand goes through FS, which is null: what decodes well is #GP(0), what does not is #UD, and nothing is executed.
"""

from layout import *
from machine import Fault

FRAME_IMAGE = "frame32.frame"
PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3)


def fault(vector, code=None):
    """An instruction that faults."""

    def op(_):
        raise Fault(vector, code)

    return op


def lockable(opcode, reg):
    """Whether LOCK is allowed with a memory operand (vol. 2, LOCK)."""
    if opcode[0] == 0x0F:
        second = opcode[1]
        return second in (0xB0, 0xB1, 0xC0, 0xC1, 0xAB, 0xB3, 0xBB) or second == 0xBA and reg >= 5 or second == 0xC7 and reg == 1
    first = opcode[0]
    if first < 0x40:
        return first & 7 < 2 and first & 0x38 != 0x38  # ADD OR ADC SBB AND SUB XOR, not CMP
    if first in (0x80, 0x81, 0x82, 0x83):
        return reg != 7
    return first in (0x86, 0x87) or first in (0xF6, 0xF7) and reg in (2, 3) or first in (0xFE, 0xFF) and reg < 2


def lock(base):
    """LOCK × opcode of both maps × ModRM.reg × memory or register."""
    opcodes = [bytes((n,)) for n in range(0x100) if n not in PREFIXES and n != 0x0F]
    # MOV CR0 with LOCK is CR8 on AMD's processors.
    opcodes += [bytes((0x0F, n)) for n in range(0x100) if n not in (0x20, 0x22, 0x38, 0x3A)]
    opcodes += [bytes((0x0F, 0x38, n)) for n in range(0, 0x100, 5)] + [bytes((0x0F, 0x3A, n)) for n in range(0, 0x100, 5)]
    for opcode in opcodes:
        for reg in range(8):
            for memory in (True, False):
                case = base.copy()
                case.start(0)
                case.set(FS, 0)
                operand = bytes((reg << 3 | 5, 0, 1, 0, 0)) if memory else bytes((0xC0 | reg << 3,))
                code = b"\xf0\x64" + opcode + operand + bytes(4)
                good = memory and lockable(opcode, reg)
                case.code(CODE, code, fault(13, 0) if good else fault(6))
                yield case


def nothing(m):
    """Has no effect."""
    m.eip = m.next


def load_ecx(m):
    """MOV ECX, 12345678h."""
    m.r["ecx"] = 0x12345678
    m.eip = m.next


def store_data(m):
    """MOV DWORD [DATA], 12345678h."""
    m.write(DATA, 0x12345678, 4)
    m.eip = m.next


def load_cx(m):
    """MOV CX, 5678h."""
    m.r["ecx"] = m.r["ecx"] & 0xFFFF0000 | 0x5678
    m.eip = m.next


INSTRUCTIONS = (
    (b"\x90", nothing, (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2)),
    (b"\xb9\x78\x56\x34\x12", load_ecx, (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67)),
    (b"\x66\xb9\x78\x56", load_cx, (0x66, 0x2E, 0x67)),
    (b"\xc7\x05" + DATA.to_bytes(4, "little") + b"\x78\x56\x34\x12", store_data, (0x26, 0x36, 0x3E)),
    (b"\x0f\x1f\x80\0\0\0\0", nothing, (0x26, 0x36, 0x64, 0x66)),
    (b"\x0f\x0b", fault(6), (0x26, 0x66, 0xF2, 0xF3)),
)


def lengths(base):
    """12 to 18 bytes: prefix × instruction; beyond 15 #GP(0) before anything else, a #UD too."""
    for code, op, prefixes in INSTRUCTIONS:
        for prefix in prefixes:
            for other in (None, *prefixes):
                for total in range(12, 19):
                    for cpl in (0, 3):
                        case = base.copy()
                        case.start(cpl)
                        case.land()
                        count = total - len(code)
                        front = bytes([prefix] * count)
                        if other is not None:
                            front = bytes((prefix, other)[n % 2] for n in range(count))
                        case.code(CODE, front + code, op if total <= 15 else fault(13, 0))
                        if total <= 15:
                            case.land(CODE + total)
                        yield case


def at_the_limit(base):
    """The end of the code segment inside an instruction: #GP(0), wherever it is cut."""
    for code, op, _ in INSTRUCTIONS[:5]:
        for left in range(1, len(code) + 2):
            for cpl in (0, 3):
                case = base.copy()
                case.gdt(FREE, descriptor(0, CODE + left - 1, 0x9B | cpl << 5, 4))
                case.start(cpl, cs=FREE | cpl)
                case.code(CODE, code, op if left >= len(code) else fault(13, 0))
                # What comes behind it is cut too.
                case.ops[CODE + len(code)] = (fault(13, 0), 2)
                case.mem[CODE + len(code) : CODE + len(code) + 2] = b"\xcd\x20"
                yield case


def modrm(reg, memory):
    """A ModRM byte and what follows it."""
    return bytes((reg << 3 | 5, 0, 1, 0, 0)) if memory else bytes((0xC0 | reg << 3 | 1,))


def undefined(base):
    """Forms that do not exist, beside those that do."""
    rows = []
    for reg in range(8):
        rows += [(b"\xfe" + modrm(reg, True), reg < 2), (b"\xff" + modrm(reg, True), reg != 7)]
        rows += [(b"\xff" + modrm(reg, False), None if reg in (0, 1, 2, 4, 6) else False)]
        rows += [(b"\xfe" + modrm(reg, False), None if reg < 2 else False)]
        rows += [(b"\xc6" + modrm(reg, True) + b"\0", reg == 0), (b"\xc7" + modrm(reg, True) + bytes(4), reg == 0)]
        rows += [(b"\x8c" + modrm(reg, True), reg < 6), (b"\x8e" + modrm(reg, True), reg < 6 and reg != 1)]
        rows += [(b"\x8e" + modrm(reg, False), None if reg < 6 and reg != 1 else False)]
        rows += [(b"\x0f\xba" + modrm(reg, True) + b"\0", reg >= 4), (b"\x0f\xba" + modrm(reg, False) + b"\0", None if reg >= 4 else False)]
        rows += [(b"\x0f\x00" + modrm(reg, True), reg < 6)]
        rows += [(b"\x8d" + modrm(reg, False), False), (b"\x0f\xc3" + modrm(reg, False), False)]
        rows += [(b"\x0f\xb2" + modrm(reg, False), False), (b"\x0f\xb4" + modrm(reg, False), False), (b"\x0f\xb5" + modrm(reg, False), False)]
        rows += [(b"\xf6" + modrm(reg, True) + b"\0", True), (b"\xf7" + modrm(reg, True) + bytes(4), True)]
        rows += [(b"\xd0" + modrm(reg, True), True), (b"\xc1" + modrm(reg, True) + b"\0", True)]
        rows += [(b"\x0f\x18" + modrm(reg, True), None), (b"\x0f\xb9" + modrm(reg, True), False), (b"\x0f\xff" + modrm(reg, True), False)]
        if reg:
            rows += [(b"\x0f\x20" + bytes((0xC0 | reg << 3,)), None if reg in (2, 3, 4) else False)]
            rows += [(b"\x0f\x22" + bytes((0xC0 | reg << 3,)), None if reg in (2, 3, 4) else False)]
        rows += [(b"\x0f\xc7" + modrm(reg, True), True if reg == 1 else None), (b"\x62" + modrm(reg, True), True)]
        rows += [(b"\xc4" + modrm(reg, True), True), (b"\xc5" + modrm(reg, True), True)]
        rows += [(b"\x8f" + modrm(reg, True), True if reg == 0 else None)]
    for opcode in (0x04, 0x0A, 0x0C, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0xA6, 0xA7):
        for reg in range(0, 8, 3):
            rows += [(bytes((0x0F, opcode)) + modrm(reg, True), False), (bytes((0x0F, opcode)) + modrm(reg, False), False)]
    for code, good in rows:
        if good is None:
            continue
        for prefix in (b"", b"\x66") if good or code[:1] != b"\x0f" else (b"",):
            for cpl in (0, 3):
                case = base.copy()
                case.start(cpl)
                case.set(FS, 0)
                op = fault(13, 0) if good else fault(6)
                if good and cpl == 3 and code[:2] == b"\x0f\x00" and code[2] >> 3 & 7 in (2, 3):
                    pass  # LLDT and LTR: #GP(0) too
                case.code(CODE, b"\x64" + prefix + code + bytes(4), op)
                yield case


FAMILIES = (lock, lengths, at_the_limit, undefined)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual()):
            case.name = family.__name__
            yield case
