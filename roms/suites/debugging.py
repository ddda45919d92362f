"""Debug exceptions: single steps, breakpoints on code and data × length × alignment × access, RF, GD, the shadow of MOV SS and
POP SS, INT1, string instructions trapped at each element (SDM vol. 3, 18.2 and 18.3)."""

from layout import *
from machine import Fault, Machine as Base, gp
from transfers import iret, load_segment

FRAME_IMAGE = "frame32.frame"
BS, BD = 1 << 14, 1 << 13
EXECUTE, WRITE, BOTH = 0, 1, 3
LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}


class Machine(Base):
    """With breakpoints and single steps."""

    def __init__(self, case):
        super().__init__(case)
        self.hits = 0
        self.shadow = False
        self.pending = 0

    def breakpoints(self):
        """(number, address, length, kind) of those that DR7 enables."""
        for n in range(4):
            if self.dr7 >> 2 * n & 3:
                control = self.dr7 >> 16 + 4 * n & 15
                length = {0: 1, 1: 2, 3: 4, 2: 8}[control >> 2]
                yield n, self.dr[n] & ~(length - 1), length, control & 3

    def touch(self, at, size, write):
        """An access to data."""
        for n, where, length, kind in self.breakpoints():
            if (kind == BOTH or kind == WRITE and write) and at < where + length and where < at + size:
                self.hits |= 1 << n

    def run(self):
        for _ in range(300):
            if self.end is not None:
                return self.record()
            at = self.seg["cs"].desc.base + self.eip
            if not self.flags & RF and not self.shadow:
                found = sum(1 << n for n, where, _, kind in self.breakpoints() if kind == EXECUTE and where == at)
                if found:
                    self.dr6 |= found
                    self.raise_debug(self.eip)
                    continue
            shadow, self.shadow = self.shadow, False
            op, length = self.ops[at]
            self.next = self.eip + length
            self.hits, stepping = 0, self.flags & TF
            self.keep_rf = self.between = False
            self.no_step = False
            try:
                op(self)
            except Fault as fault:
                if fault.vector == 1:
                    self.raise_debug(self.eip)
                else:
                    self.deliver(fault)
                continue
            if not self.keep_rf:
                self.flags &= ~RF
            self.pending |= self.hits | (BS if stepping and not self.no_step else 0)
            if self.shadow:
                # Traps of the instruction that loaded SS wait for the next one; its single step is lost.
                self.pending &= ~BS
                continue
            if self.pending and self.end is None:
                self.dr6 |= self.pending
                self.pending = 0
                self.flags |= RF if self.between else 0
                self.raise_debug(self.eip)
        raise AssertionError(f"{self.case.name}: does not end")

    def raise_debug(self, back):
        """#DB: DR7.GD is cleared."""
        self.dr7 &= ~(1 << 13)
        self.eip = back
        self.deliver(Fault(1))


def control(n, kind, length, how=1):
    """DR7's bits for breakpoint n; `how` is 1 for the local enable, 2 for the global one."""
    return how << 2 * n | (kind | LENGTHS[length] << 2) << 16 + 4 * n


def plain(m):
    """Nothing."""
    m.eip = m.next


def load(at, size):
    """MOV AL/AX/EAX, [at]."""

    def op(m):
        mask = (1 << 8 * size) - 1
        m.touch(at, size, False)
        m.r["eax"] = m.r["eax"] & ~mask | m.read(at, size)
        m.eip = m.next

    return {1: b"\xa0", 2: b"\x66\xa1", 4: b"\xa1"}[size] + at.to_bytes(4, "little"), op


def store(at, size):
    """MOV [at], AL/AX/EAX."""

    def op(m):
        m.touch(at, size, True)
        m.write(at, m.r["eax"], size)
        m.eip = m.next

    return {1: b"\xa2", 2: b"\x66\xa3", 4: b"\xa3"}[size] + at.to_bytes(4, "little"), op


def change(at, size):
    """NOT [at]."""

    def op(m):
        m.touch(at, size, False)
        m.touch(at, size, True)
        m.write(at, ~m.read(at, size), size)
        m.eip = m.next

    return {1: b"\xf6\x15", 2: b"\x66\xf7\x15", 4: b"\xf7\x15"}[size] + at.to_bytes(4, "little"), op


def program(case, *steps, at=CODE):
    """Places instructions one after the other, then INT 20h."""
    for code, op in steps:
        case.code(at, code, op)
        at += len(code)
    case.land(at)


NOP = (b"\x90", plain)


def single_steps(base):
    """TF set before the first instruction: a trap after it, whatever it is; what INT n, faults and IRET make of it."""

    def cli(m):
        if m.flags >> 12 & 3 < m.cpl:
            raise gp(0)
        m.flags &= ~IF
        m.eip = m.next

    def popf(value):
        def op(m):
            mask = CF | PF | AF | ZF | SF | TF | DF | OF | NT | AC | ID
            mask |= IF if m.cpl <= m.flags >> 12 & 3 else 0
            mask |= IOPL if m.cpl == 0 else 0
            m.r["esp"] += 4
            m.flags = m.flags & ~mask & ~RF | value & mask
            m.eip = m.next

        return (b"\x9d", op)

    def int_n(m):
        m.no_step = True
        m.int_n(0x21)

    def fault(m):
        raise Fault(6)

    def jump(m):
        m.eip = m.next + 1

    for cpl in (0, 1, 3):
        for flags in (2, 2 | IF | IOPL, 2 | CF | IOPL):
            for tf in (0, TF):
                rows = [
                    [NOP], [load(DATA, 4)], [store(DATA, 2)], [(b"\xfa", cli)], [(b"\xeb\x01\x90", jump)], [(b"\xcd\x21", int_n)],
                    [(b"\x0f\x0b", fault)], [NOP, NOP],
                ]  # fmt: skip
                for value in (2, 2 | TF, 2 | TF | IF | CF, 2 | NT | ZF):
                    rows.append([popf(value), NOP, NOP])
                for steps in rows:
                    case = base.copy()
                    case.start(cpl, eflags=flags | tf)
                    if steps[0][0] == b"\x9d":
                        value = next(v for v in (2, 2 | TF, 2 | TF | IF | CF, 2 | NT | ZF) if rows.index(steps) - 8 == (2, 2 | TF, 2 | TF | IF | CF, 2 | NT | ZF).index(v))
                        at = STACKS[cpl] - 16
                        case.start(cpl, esp=at, eflags=flags | tf)
                        case.put(at, value)
                    if steps[0][0] == b"\xeb\x01\x90":
                        case.code(CODE, b"\xeb\x01", jump)
                        case.land(CODE + 3)
                    else:
                        program(case, *steps)
                    yield case


def data_breakpoints(base):
    """Kind × length × DR number × enable × access × size × every overlap and near miss."""
    for n in range(4):
        for how in (1, 2, 3):
            for kind in (WRITE, BOTH):
                for length in (1, 2, 4):
                    for make in (load, store, change):
                        for size in (1, 2, 4):
                            for delta in range(-size, length + 1):
                                if n and how != 1 + n % 3:
                                    continue
                                case = base.copy()
                                case.start(0 if n != 3 else 3)
                                case.set(DR0 + n, DATA + 0x10)
                                case.set(DR7, 0x400 | control(n, kind, length, how))
                                program(case, make(DATA + 0x10 + delta, size))
                                yield case


def aligned(base):
    """The low bits of an address that its length does not allow are ignored; two breakpoints at once."""
    for length in (2, 4):
        for low in range(4):
            for delta in range(-4, 8):
                case = base.copy()
                case.start(0)
                case.set(DR0, DATA + 0x10 + low)
                case.set(DR7, 0x401 | control(0, BOTH, length))
                program(case, store(DATA + 0x10 + delta, 1))
                yield case
    for first in range(0, 8):
        for second in range(0, 8):
            case = base.copy()
            case.start(0)
            case.set(DR0, DATA + first)
            case.set(DR0 + 3, DATA + second)
            case.set(DR7, 0x400 | control(0, WRITE, 1) | control(3, BOTH, 1))
            program(case, change(DATA + 2, 4))
            yield case


def code_breakpoints(base):
    """Before the instruction; only at its first byte; not with RF; the pushed RF; each number and enable."""
    for n in range(4):
        for how in (0, 1, 2, 3):
            for place in range(-1, 9):
                for flags in (2, 2 | RF, 2 | TF, 2 | TF | RF):
                    for cpl in (0, 3):
                        case = base.copy()
                        case.start(cpl, eflags=flags)
                        case.set(DR0 + n, CODE + place)
                        case.set(DR7, 0x400 | control(n, EXECUTE, 1, how))
                        program(case, NOP, load(DATA, 4), NOP)
                        yield case


def mov_ss(selector, cpl):
    """MOV SS, BX."""

    def op(m):
        load_segment(m, "ss", selector)
        m.shadow = True
        m.eip = m.next

    return (b"\x8e\xd3", op)


def shadows(base):
    """After MOV SS and POP SS: breakpoints on the next instruction do not count, data traps wait, single steps are lost."""
    for cpl in (0, 3):
        for tf in (0, TF):
            for place in range(0, 10):
                for kind in (EXECUTE, WRITE):
                    for twice in (False, True):
                        case = base.copy()
                        case.start(cpl, eflags=2 | tf)
                        case.set(EBX, DATAS[cpl])
                        case.set(DR0, CODE + place if kind == EXECUTE else DATA)
                        case.set(DR7, 0x400 | control(0, kind, 1))
                        first = mov_ss(DATAS[cpl], cpl)
                        steps = [first, NOP, store(DATA, 4), NOP, NOP]
                        if twice:
                            # A second load of SS in the shadow of the first casts none (vol. 2, MOV): left to emulators, so
                            # another instruction stands between them.
                            steps = [first, NOP, first, store(DATA, 4), NOP]
                        program(case, *steps)
                        yield case
            # POP SS reads its stack, where a data breakpoint lies.
            for kind in (WRITE, BOTH) if cpl else ():  # in ring 0 the landing would write there
                case = base.copy()
                at = STACKS[cpl] - 8
                case.start(cpl, esp=at, eflags=2 | tf)
                case.put(at, DATAS[cpl])
                case.set(DR0, at)
                case.set(DR7, 0x400 | control(0, kind, 1))

                def pop_ss(m, at=at, cpl=cpl):
                    load_segment(m, "ss", DATAS[cpl])
                    m.touch(at, 4, False)
                    m.r["esp"] += 4
                    m.shadow = True
                    m.eip = m.next

                program(case, (b"\x17", pop_ss), NOP, NOP)
                yield case


def general_detect(base):
    """DR7.GD: every MOV DR faults with DR6.BD before it does anything, and GD is cleared; without it, what MOV DR may not do."""

    def moved(write, reg, selected):
        def op(m):
            if m.cpl:
                raise gp(0)
            if m.dr7 & 1 << 13:
                m.dr6 |= BD
                raise Fault(1)
            if write:
                if reg < 4:
                    m.dr[reg] = m.r["ecx"]
                elif reg in (4, 6):
                    m.dr6 = m.r["ecx"] & 0xE00F | 0xFFFF0FF0
                else:
                    m.dr7 = m.r["ecx"] & 0xFFFF2BFF | 0x400
            else:
                value = m.dr[reg] if reg < 4 else m.dr6 if reg in (4, 6) else m.dr7
                m.r["ecx"] = value
            m.eip = m.next

        return (bytes((0x0F, 0x23 if write else 0x21, 0xC0 | reg << 3 | 1)), op)

    for gd in (0, 1 << 13):
        for write in (False, True):
            for reg in range(8):
                for cpl in (0, 3):
                    for ecx in (0x400, 0x12340700, 0):
                        if gd and cpl:
                            continue  # the frame's own MOV DR would be next
                        case = base.copy()
                        case.start(cpl)
                        for n in range(4):
                            case.set(DR0 + n, 0x50000 + n)
                        case.set(ECX, ecx)
                        case.set(DR7, 0x400 | gd)
                        program(case, moved(write, reg, None))
                        yield case


def icebp(base):
    """INT1 (F1h): #DB that leaves DR6 alone, whatever the gate's DPL; INT 1 needs the DPL."""
    for cpl in (0, 3):
        for flags in (2, 2 | TF, 2 | IF | IOPL):
            for code in (b"\xf1", b"\xcd\x01"):
                case = base.copy()
                case.start(cpl, eflags=flags)

                def op(m, code=code):
                    m.no_step = True
                    if code == b"\xf1":
                        m.interrupt(1, m.next, False)
                    else:
                        m.int_n(1)

                program(case, (code, op))
                yield case


STRINGS = {0xA4: (1, True, True), 0xA5: (4, True, True), 0xAA: (1, False, True), 0xAB: (4, False, True), 0xAC: (1, True, False)}


def string(opcode, count):
    """One REP string instruction, an element a step."""

    def op(m):
        size, source, sink = STRINGS[opcode]
        if m.r["ecx"] == 0:
            m.eip = m.next
            return
        if source:
            m.touch(m.r["esi"], size, False)
            value = m.read(m.r["esi"], size)
        else:
            value = m.r["eax"]
        if sink:
            m.touch(m.r["edi"], size, True)
            m.write(m.r["edi"], value, size)
            m.r["edi"] += size
        else:
            m.r["eax"] = m.r["eax"] & ~0xFF | value
        if source:
            m.r["esi"] += size
        m.r["ecx"] -= 1
        if m.r["ecx"] == 0:
            m.eip = m.next
        else:
            # Between elements; the trap that comes here pushes RF (vol. 3, 18.3.1.1).
            m.between = True

    return (bytes((0xF3, opcode)), op)


def strings(base):
    """REP MOVS, STOS, LODS: single steps and data breakpoints stop after the element."""
    for opcode, (size, source, sink) in STRINGS.items():
        for count in range(0, 6):
            for tf in (0, TF):
                for element in range(-1, count + 1):
                    for kind in (WRITE, BOTH):
                        case = base.copy()
                        case.start(0, eflags=2 | tf)
                        case.set(ESI, DATA)
                        case.set(EDI, DATA + 0x40)
                        case.set(ECX, count)
                        for n in range(8):
                            case.put(DATA + 4 * n, 0x03020100 + 0x04040404 * n)
                        case.set(DR0, (DATA + 0x40 if kind == WRITE else DATA) + size * element)
                        case.set(DR7, 0x400 | control(0, kind, 1))
                        program(case, string(opcode, count))
                        yield case


FAMILIES = (single_steps, data_breakpoints, aligned, code_breakpoints, shadows, general_detect, icebp, strings)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual()):
            case.name = family.__name__
            yield case
