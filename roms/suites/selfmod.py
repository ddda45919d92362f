"""Self-modifying code: how it is written × which bytes × how far ahead × run before or not × across two pages, with a jump between.

The model decodes the few opcodes that the cases use from memory at the moment they run.
"""

from layout import *

FRAME_IMAGE = "frame32.frame"
SIZE = 0x2000
NAMES_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


def execute(m):
    """NOP, INC r32, MOV r32, imm32, CLC, STC, CMC, INT 20h."""
    at = m.eip
    opcode = m.read(at, 1)
    m.eip = at + 1
    if opcode == 0x90:
        return
    if 0x40 <= opcode < 0x48:
        name = NAMES_32[opcode & 7]
        before = m.r[name]
        m.r[name] = before + 1 & 0xFFFFFFFF
        result = m.r[name]
        bits = (PF, bin(result & 0xFF).count("1") % 2 == 0), (AF, (before ^ result) & 16), (ZF, result == 0), (SF, result >> 31)
        for flag, on in (*bits, (OF, result == 1 << 31)):
            m.flags = m.flags | flag if on else m.flags & ~flag
    elif 0xB8 <= opcode < 0xC0:
        m.r[NAMES_32[opcode & 7]] = m.read(at + 1, 4)
        m.eip = at + 5
    elif opcode in (0xF8, 0xF9, 0xF5):
        m.flags = m.flags ^ CF if opcode == 0xF5 else m.flags & ~CF | (CF if opcode == 0xF9 else 0)
    elif opcode == 0xCD:
        m.next = at + 2
        m.eip = at
        m.int_n(m.read(at + 1, 1))
    else:
        raise AssertionError(f"{m.case.name}: opcode {opcode:x} at {at:x}")


def writers(at, value):
    """(code, effect) of every way to store one to four bytes at an address; EDX and EBX are free."""
    where = at.to_bytes(4, "little")
    four, two, one = value.to_bytes(4, "little"), (value & 0xFFFF).to_bytes(2, "little"), bytes((value & 0xFF,))

    def store(size):
        def op(m):
            m.write(at, value, size)
            m.eip = m.next

        return op

    yield b"\xc6\x05" + where + one, store(1), 1
    yield b"\x66\xc7\x05" + where + two, store(2), 2
    yield b"\xc7\x05" + where + four, store(4), 4

    def exchange(m):
        old = m.read(at, 4)
        m.write(at, m.r["edx"], 4)
        m.r["edx"] = old
        m.eip = m.next

    yield b"\x87\x15" + where, exchange, 4

    def stos(m):
        m.write(m.r["edi"], m.r["eax"], 4)
        m.r["edi"] += 4
        m.eip = m.next

    yield b"\xab", stos, 4

    def rep(m):
        for n in range(4):
            m.write(m.r["edi"], m.read(m.r["esi"], 1), 1)
            m.r["edi"] += 1
            m.r["esi"] += 1
        m.r["ecx"] = 0
        m.eip = m.next

    yield b"\xf3\xa4", rep, 4


def modified(base):
    """The patch is a whole instruction or its immediate; the code runs once before if `warm`."""
    bodies = (
        # Original bytes, patch offset, value (of four bytes).
        (b"\xb8\x41\x42\x43\x45\x90\x90\x90", 0, 0x90909040), (b"\xb8\x41\x42\x43\x45\x90\x90\x90", 1, 0x46474541),
        (b"\xb8\x41\x42\x43\x45\x90\x90\x90", 2, 0x90F8F9F5), (b"\x90" * 8, 0, 0x46454341), (b"\x90" * 8, 3, 0x40F9F5F8),
        (b"\x41\x42\x43\x45\xf8\x90\x90\x90", 1, 0x46F94747), (b"\xbb\x90\x90\x90\x90\x41\x41\x41", 0, 0x41424345), (b"\x41\x90\xb9\x41\x42\x43\x45\x90", 3, 0x46464646),
    )  # fmt: skip
    for cpl in (0, 3):
        for where in (0xF40, 0xF7C, 0xFBF, 0xFFA, 0xFFC, 0xFFE, 0xFFF, 0x1000, 0x1010, 0x1200):
            for body, offset, value in bodies:
                for index in range(6):
                    for warm in (False, True):
                        for jump in ("short", "indirect"):
                            case = base.copy()
                            case.start(cpl)
                            code, op, size = list(writers(where + offset, value))[index]
                            case.set(EAX, value)
                            case.set(EDX, value)
                            case.set(EDI, where + offset)
                            case.set(ESI, DATA)
                            case.set(ECX, 4)
                            case.put(DATA, value)
                            case.set(EBX, where)
                            case.mem[where : where + len(body)] = body
                            case.mem[where + 8 : where + 10] = b"\xcd\x20"
                            for at in range(where, where + 9):
                                case.ops[at] = (execute, 1)
                            at = CODE
                            if warm:
                                # CALL the code once: its end is a RET, which the second pass finds replaced.
                                case.mem[where + 8] = 0xC3

                                def call(m, where=where):
                                    m.push_all([m.next], 4)
                                    m.eip = where

                                case.code(at, b"\xe8" + (where - at - 5 & 0xFFFFFFFF).to_bytes(4, "little"), call)
                                at += 5
                                for state in (EAX, ECX, EDX, ESI, EDI):
                                    name = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")[state]
                                    index_ = NAMES_32.index(name)
                                    number = case.reg(state)

                                    def restore(m, name=name, number=number):
                                        m.r[name] = number
                                        m.eip = m.next

                                    case.code(at, bytes((0xB8 + index_,)) + number.to_bytes(4, "little"), restore)
                                    at += 5

                                def end(m, where=where):
                                    m.write(where + 8, 0x20CD, 2)
                                    m.eip = m.next

                                def last(m, where=where):
                                    if m.read(where + 8, 1) == 0xC3:
                                        m.eip = m.read(m.top(0, 4), 4)
                                        m.r["esp"] += 4
                                    else:
                                        execute(m)

                                case.ops[where + 8] = (last, 1)
                                case.code(at, b"\x66\xc7\x05" + (where + 8).to_bytes(4, "little") + b"\xcd\x20", end)
                                at += 9
                            case.code(at, code, op)
                            at += len(code)

                            def go(m, where=where):
                                m.eip = where

                            if jump == "short":
                                case.code(at, b"\xe9" + (where - at - 5 & 0xFFFFFFFF).to_bytes(4, "little"), go)
                            else:
                                # PUSH imm32; RET
                                def push(m, where=where):
                                    m.push_all([where], 4)
                                    m.eip = m.next

                                def back(m):
                                    m.eip = m.read(m.top(0, 4), 4)
                                    m.r["esp"] += 4

                                case.code(at, b"\x68" + where.to_bytes(4, "little"), push)
                                case.code(at + 5, b"\xc3", back)
                            if at + 6 <= where:
                                yield case


FAMILIES = (modified,)


def cases():
    """All of them."""
    base = usual(SIZE)
    for family in FAMILIES:
        for case in family(base):
            case.name = family.__name__
            yield case
