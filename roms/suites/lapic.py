"""The local APIC (SDM vol. 3, chapter 10): priorities, EOI, the interrupt command register with every destination and shorthand, local
vector table, timer in three modes and eight dividers, errors, software disable, x2APIC.

One processor, so that a message that does not match goes nowhere. Left out: SMI, INIT and start-up to oneself, the spurious
interrupt (a program cannot raise the priority between INTR and the acknowledge), focus checking, reserved bits."""

import chips
from dice import Dice

SETUP = 0
BASE = 0xFEE00000
ID, TPR, PPR, EOI, LDR, DFR, SVR, ESR, ICR, ICR_HIGH = 0x20, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x280, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LINT0, LINT1, LVT_ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
MASK, SELF, ALL, OTHERS = 1 << 16, 1 << 18, 2 << 18, 3 << 18
LOGICAL, LEVEL, ASSERT = 1 << 11, 1 << 15, 1 << 14
DIVIDERS = {1: 11, 2: 0, 4: 1, 8: 2, 16: 3, 32: 8, 64: 9, 128: 10}
INTR_VECTOR = 0x24  # of the 8259's request 4


class Apic(chips.Case):
    """A local APIC and its processor."""

    def __init__(self, name):
        super().__init__(name)
        self.irr, self.isr = set(), set()
        self.tpr = 0
        self.what = ""

    def write(self, register, value):
        """A register."""
        self.store(BASE + register, value)
        self.what += f" {register:x}={value:x}"

    def reads(self, register, value, mask=0xFFFFFFFF):
        """What a register must hold."""
        self.load(BASE + register, value, mask, f"APIC {register:x}")

    def set_tpr(self, value):
        """The task priority."""
        self.write(TPR, value)
        self.tpr = value

    @property
    def ppr(self):
        """The processor priority."""
        served = max(self.isr, default=0)
        return self.tpr if self.tpr >> 4 >= served >> 4 else served & 0xF0

    def accept(self, vector):
        """A fixed interrupt arrives."""
        if vector >= 16:
            self.irr.add(vector)

    def self_ipi(self, vector):
        """By shorthand."""
        self.write(ICR, SELF | ASSERT | vector)
        self.accept(vector)

    def end(self):
        """EOI."""
        self.write(EOI, 0)
        self.isr.discard(max(self.isr, default=0))

    def take(self, flags=0, operation=chips.TAKE):
        """What the processor takes."""
        came = []
        while self.irr and max(self.irr) >> 4 > self.ppr >> 4 and len(came) < (1 if flags & chips.ONCE else 12):
            vector = max(self.irr)
            self.irr.discard(vector)
            came.append(vector)
            if flags & chips.EOI:
                self.isr.add(vector)
                self.isr.discard(max(self.isr))
            else:
                self.isr.add(vector)
        self.taken(came, operation, flags)

    def look(self):
        """PPR, and the registers of ISR and IRR that hold something."""
        self.add(chips.SETS, "")
        self.expect(self.ppr, "PPR")
        for base, vectors, label in ((0x100, self.isr, "ISR"), (0x200, self.irr, "IRR")):
            for n in range(8):
                word = sum(1 << v % 32 for v in vectors if v // 32 == n)
                if word:
                    self.expect(base + 16 * n, label)
                    self.expect(word, label)

    def finish(self):
        """Nothing is left behind."""
        while self.isr:
            self.end()
        if self.tpr:
            self.set_tpr(0)
        self.take(chips.EOI)
        assert not self.irr and not self.isr
        return self


def prologue():
    """The 8259s masked, the local APIC enabled, everything else as after power-on."""
    case = chips.Case()
    case.line(4, 0)
    for port, base, identity in ((0x20, INTR_VECTOR - 4, 4), (0xA0, 0x70, 2)):
        case.out(port, 0x11)
        for word in (base, identity, 3, 0xFF):
            case.out(port + 1, word)
    for register, value in (
        (SVR, 0x1FF), (TPR, 0), (LVT_TIMER, MASK), (LVT_THERMAL, MASK), (LVT_PERFORMANCE, MASK), (LINT0, MASK | 0x700),
        (LINT1, MASK | 0x400), (LVT_ERROR, MASK), (INITIAL, 0), (DIVIDE, 0), (LDR, 0), (DFR, 0xFFFFFFFF), (ICR_HIGH, 0),
        (ESR, 0), (ESR, 0),
    ):  # fmt: skip
        case.store(BASE + register, value)
    return case


def registers(name):
    """What reads back, bit by bit."""
    kept = (
        (TPR, 0xFF, 0), (LDR, 0xFF000000, 0), (DFR, 0xF0000000, 0x0FFFFFFF), (SVR, 0xEF, 0x110), (ICR_HIGH, 0xFF000000, 0),
        (LVT_THERMAL, 0x100FF, 0), (LVT_PERFORMANCE, 0x100FF, 0), (LINT0, 0x1A0FF, 0), (LINT1, 0x120FF, 0),
        (LVT_ERROR, 0x100FF, 0), (LVT_TIMER, 0x300FF, 0), (DIVIDE, 0xB, 0), (INITIAL, 0xFFFFFFFF, 0),
    )  # fmt: skip
    for register, bits, always in kept:
        dice = Dice(register)
        values = [0, bits] + [1 << n for n in range(32) if bits >> n & 1] + [bits ^ 1 << n for n in range(32) if bits >> n & 1]
        values += [(dice.below(1 << 16) << 16 | dice.below(1 << 16)) & bits for _ in range(8)]
        for value in values:
            case = Apic(name)
            if register == INITIAL:
                case.write(LVT_TIMER, MASK)
            case.write(register, value | always)
            case.reads(register, value | always)
            case.write(register, {SVR: 0x1FF, INITIAL: 0, TPR: 0}.get(register, MASK if register >= LVT_TIMER and register < INITIAL else 0))
            yield case
    for register in (LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LINT0, LINT1, LVT_ERROR):
        for vector in (0x20, 0x45, 0xFE):
            for before in (0, MASK):
                case = Apic(name)
                case.write(register, before | vector)
                case.write(SVR, 0xFF)
                case.reads(register, MASK | vector)
                case.write(register, vector)  # cannot be unmasked while the APIC is disabled
                case.reads(register, MASK | vector)
                case.write(SVR, 0x1FF)
                case.reads(register, MASK | vector)
                case.write(register, vector)
                case.reads(register, vector)
                yield case
    for n in range(0x100, 0x280, 0x10):
        case = Apic(name)
        case.write(n, 0xFFFFFFFF)  # read-only
        case.reads(n, 0, 0xFFFFFFFF if n < 0x180 or n >= 0x200 else 0)
        yield case


def priorities(name):
    """Sets of vectors under each task priority: what comes, what waits, and how each EOI lets the next one in."""
    sets = (
        (0x31,), (0x10, 0x1F), (0x31, 0x3F), (0x20, 0x30, 0x40), (0xFE, 0x10, 0x80), (0x41, 0x42, 0x51, 0x52), (0x7F, 0x80, 0x81, 0x8F),
        (0x20, 0x21, 0x22, 0x23, 0x24, 0x25), (0x1F, 0x3F, 0x5F, 0x7F, 0x9F, 0xBF, 0xDF, 0xFF), (0xA0, 0xA1, 0xB0), (0xC0, 0x3C),
        (0xE0, 0xE1, 0xF0, 0xF1),
    )  # fmt: skip
    for vectors in sets:
        for tpr in (*range(0, 0x100, 0x10), 0x1F, 0x3F, 0x80 | 7, 0xFF):
            for ends in (0, 1):
                case = Apic(name)
                case.set_tpr(tpr)
                for vector in vectors:
                    case.self_ipi(vector)
                case.look()
                case.take(chips.EOI if ends else 0)
                case.look()
                case.set_tpr(0)
                case.take()
                case.look()
                for _ in vectors:
                    case.end()
                    case.take()
                case.look()
                yield case.finish()


def nesting(name):
    """One in service, another arrives: it nests if its class is higher; the processor priority of both and the task's."""
    for first in range(0x18, 0x100, 0x17):
        for second in range(0x13, 0x100, 0x1D):
            for tpr in (0, 0x25, (first & 0xF0) | 3, 0xF0):
                case = Apic(name)
                case.self_ipi(first)
                case.take()
                case.set_tpr(tpr)
                case.self_ipi(second)
                case.look()
                case.take()
                case.look()
                case.end()
                case.take()
                case.look()
                yield case.finish()


def self_interrupts(name):
    """Each vector: IRR, ISR, EOI; the same one again while it is in service waits."""
    for vector in range(16, 256):
        case = Apic(name)
        case.self_ipi(vector)
        case.self_ipi(vector)
        case.look()
        case.take()
        case.self_ipi(vector)
        case.look()
        case.take()
        case.end()
        case.take()
        case.look()
        case.load(BASE + 0x180 + vector // 32 * 16, 0, 1 << vector % 32, "TMR")
        case.end()
        case.end()
        case.look()
        yield case.finish()


def destinations(name):
    """Physical, flat and cluster destinations that match or do not; all shorthands; fixed, lowest priority and NMI."""
    for kind, delivery in ((0, 0), (0, 1), (0, 4)):
        for destination in (0, 1, 2, 7, 0x0F, 0x80, 0xFE, 0xFF):
            matches = destination in (0, 0xFF)
            if destination == 0xFF and delivery == 1:
                continue  # lowest priority to everyone: not for physical mode
            yield ipi(name, 0, destination, delivery, matches)
    for logical_id in (0, 1, 2, 0x10, 0x80, 0x81, 0xFF):
        for destination in (1, 2, 3, 4, 0x10, 0x7E, 0x80, 0xC0, 0xFE, 0xFF):
            for delivery in (0, 1, 4):
                matches = logical_id & destination != 0
                if logical_id == 0 and destination == 0xFF:
                    continue
                yield ipi(name, LOGICAL, destination, delivery, matches, logical_id, 0xFFFFFFFF)
    for logical_id in (0x01, 0x02, 0x08, 0x11, 0x14, 0x2F, 0x30, 0xE1, 0xE8):
        for destination in (0x01, 0x03, 0x08, 0x10, 0x11, 0x16, 0x2F, 0x21, 0x34, 0xE1, 0xEE, 0xFF):
            for delivery in (0, 1, 4):
                matches = logical_id >> 4 == destination >> 4 and logical_id & destination & 15 != 0 or destination == 0xFF
                if destination == 0xFF and logical_id & 15 == 0:
                    continue
                yield ipi(name, LOGICAL, destination, delivery, matches, logical_id, 0x0FFFFFFF)
    for shorthand, arrives in ((SELF, 1), (ALL, 1), (OTHERS, 0)):
        for vector in range(0x10, 0x100, 0xB):
            for destination in (0, 5):
                for mode in (0, LOGICAL):
                    case = Apic(name)
                    case.write(ICR_HIGH, destination << 24)
                    case.write(ICR, shorthand | mode | ASSERT | vector)
                    if arrives:
                        case.accept(vector)
                    case.reads(ICR, shorthand | mode | ASSERT | vector, ~0x1000 & 0xFFFFFFFF)
                    case.reads(ICR_HIGH, destination << 24)
                    case.look()
                    case.take()
                    yield case.finish()


def ipi(name, mode, destination, delivery, matches, logical_id=0, model=0xFFFFFFFF):
    """One message to a destination."""
    case = Apic(name)
    case.write(DFR, model)
    case.write(LDR, logical_id << 24)
    case.write(ICR_HIGH, destination << 24)
    vector = 0x20 + (destination * 7 + logical_id) % 0xD0
    case.write(ICR, mode | ASSERT | delivery << 8 | vector)
    if matches and delivery == 4:
        case.expect(2, "NMI")
    elif matches:
        case.accept(vector)
    case.look()
    case.take()
    return case.finish()


def errors(name):
    """ESR shows what happened up to the last write to it; the error entry; vectors below 16; registers that there are not."""
    for vector in range(16):
        for shorthand in (SELF, ALL, OTHERS, 0):
            for masked in (0, 1):
                case = Apic(name)
                case.write(LVT_ERROR, MASK * masked | 0x61)
                case.write(ICR, shorthand | ASSERT | vector)
                case.reads(ESR, 0, 0x20)
                if not masked:
                    case.accept(0x61)
                case.write(ESR, 0)
                case.reads(ESR, 0x20, 0x20)
                case.reads(ESR, 0x20, 0x20)
                case.write(ESR, 0)
                case.reads(ESR, 0, 0x20)
                case.take()
                yield case.finish()
    for vector in range(16):
        for masked in (0, 1):
            case = Apic(name)
            case.write(LVT_ERROR, MASK * masked | 0x62)
            case.write(DIVIDE, 11)
            case.write(LVT_TIMER, vector)
            case.write(INITIAL, 1000)
            case.until32(BASE + CURRENT, 0xFFFFFFFF, 0)
            case.write(ESR, 0)
            case.reads(ESR, 0x40, 0x40)
            if not masked:
                case.accept(0x62)
            case.look()
            case.take()
            yield case.finish()
    for offset in (0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0x290, 0x2A0, 0x2B0, 0x2C0, 0x2D0, 0x2E0, 0x3A0, 0x3B0, 0x3C0, 0x3D0):
        for masked in (0, 1):
            for reading in (0, 1):
                case = Apic(name)
                case.write(LVT_ERROR, MASK * masked | 0x63)
                if reading:
                    case.reads(offset, 0, 0)
                else:
                    case.write(offset, 0)
                if not masked:
                    case.accept(0x63)
                case.write(ESR, 0)
                case.reads(ESR, 0x80, 0x80)
                case.take()
                yield case.finish()


def disabled(name):
    """Software-disabled: nothing fixed is accepted; what waits and what is in service stays."""
    for vector in range(0x11, 0x100, 0x0D):
        for served in (0, 1):
            case = Apic(name)
            if served:
                case.self_ipi(0x55)
                case.take()
            case.write(SVR, 0x0FF)
            case.write(ICR, SELF | ASSERT | vector)
            case.write(DIVIDE, 11)
            case.write(LVT_TIMER, 0x77)
            case.write(INITIAL, 100)
            case.until32(BASE + CURRENT, 0xFFFFFFFF, 0)
            case.look()
            case.write(SVR, 0x1FF)
            case.look()
            case.take()
            yield case.finish()


def pins(name):
    """LINT0 is the 8259's INTR: ExtINT, fixed, NMI; masked and not; edge, and level with remote IRR."""
    for vector in range(0x15, 0x100, 0x0B):
        for level in (0, LEVEL):
            for masked in (0, MASK):
                for ends in range(4):
                    case = Apic(name)
                    case.write(LINT0, level | masked | vector)
                    case.out(0x21, 0xEF)
                    case.line(4, 1)
                    high = True
                    if not masked:
                        case.accept(vector)
                    remote = bool(level and not masked)
                    case.reads(LINT0, level | masked | vector | remote << 14)
                    case.look()
                    for turn in range(2):
                        case.take()
                        case.load(BASE + 0x180 + vector // 32 * 16, (1 if level else 0) << vector % 32, 1 << vector % 32 if not masked else 0, "TMR")
                        if turn == ends - 1:
                            case.line(4, 0)
                            high = False
                        case.end()
                        if remote and high:
                            case.accept(vector)
                        else:
                            remote = False
                        case.reads(LINT0, level | masked | vector | remote << 14)
                        case.look()
                    case.line(4, 0)
                    case.take()
                    case.end()
                    case.reads(LINT0, level | masked | vector)
                    yield case.finish()
    for masked in (0, MASK):
        for tpr in range(0, 0x100, 0x10):
            for mode, came in ((0x700, INTR_VECTOR), (0x400, 2)):
                case = Apic(name)
                case.set_tpr(tpr)
                case.write(LINT0, mode | masked | 0x33)
                case.out(0x21, 0xEF)
                case.line(4, 1)
                if mode == 0x400 and not masked:
                    case.expect(2, "NMI")
                case.taken([came] if mode == 0x700 and not masked else [], flags=chips.ONCE)  # ExtINT heeds no priority
                case.line(4, 0)
                case.look()
                yield case.finish()


def counting(name):
    """Dividers: equal times by different counts. One-shot and periodic against each other; masked, stopped, started anew."""
    for divider, code in DIVIDERS.items():
        for shift in (14, 15, 16, 17):
            for other in (1, 16):
                case = Apic(name)
                case.write(LVT_TIMER, 0x81)
                for slot, by in ((0, other), (1, divider)):
                    case.write(DIVIDE, DIVIDERS[by])
                    case.mark(slot)
                    case.write(INITIAL, (1 << shift) // by)
                    case.accept(0x81)
                    case.take(chips.EOI | chips.ONCE, chips.SLEEP)
                    case.measure(slot)
                    case.reads(CURRENT, 0)
                    case.reads(INITIAL, (1 << shift) // by)
                case.ratio(0, 1, 1, 1, 4, "equal times")
                yield case.finish()
            for turns in (2, 3, 5):
                case = Apic(name)
                case.write(DIVIDE, code)
                case.write(LVT_TIMER, 0x82)
                case.mark(0)
                case.write(INITIAL, (1 << shift) // divider)
                case.accept(0x82)
                case.take(chips.EOI | chips.ONCE, chips.SLEEP)
                case.measure(0)
                case.write(LVT_TIMER, 0x83 | 1 << 17)
                case.mark(1)
                case.write(INITIAL, (1 << shift) // divider)
                for _ in range(turns):
                    case.accept(0x83)
                    case.take(chips.EOI | chips.ONCE, chips.SLEEP)
                case.measure(1)
                case.ratio(1, 0, turns, 1, 4 * turns, "periods")
                case.write(INITIAL, 0)
                case.reads(CURRENT, 0)
                case.pause(100)
                yield case.finish()
        for mode in (0, 1 << 17):
            for masked in (0, MASK):
                case = Apic(name)
                case.write(DIVIDE, code)
                case.write(LVT_TIMER, mode | masked | 0x84)
                case.write(INITIAL, 4000 // divider)
                case.pause(400)
                if not masked:
                    case.accept(0x84)
                if not mode:
                    case.reads(CURRENT, 0)
                case.write(INITIAL, 0)
                case.look()
                case.write(LVT_TIMER, mode | 0x84)
                case.pause(50)
                case.look()
                case.take(chips.EOI)
                yield case.finish()
                case = Apic(name)  # stopped, or started anew, before it ends
                case.write(DIVIDE, code)
                case.write(LVT_TIMER, mode | masked | 0x85)
                case.write(INITIAL, 0x1000000)
                case.pause(20)
                case.reads(CURRENT, 0, 0xFF000000)
                case.write(INITIAL, 0)
                case.reads(CURRENT, 0)
                case.write(INITIAL, 0xFFFFFFFF)
                case.reads(CURRENT, 0xFF000000, 0xFF000000)
                case.write(INITIAL, 0)
                case.pause(20)
                case.look()
                yield case.finish()


def deadlines(name):
    """TSC-deadline mode: twice the distance takes twice the time; the register is 0 then; 0 disarms, the past interrupts at once."""
    for shift in range(14, 20):
        for factor in (1, 2, 3, 5):
            case = Apic(name)
            case.write(LVT_TIMER, 2 << 17 | 0x91)
            for slot, by in ((0, 1), (1, factor)):
                case.mark(slot)
                case.add(chips.DEADLINE, "I", by << shift)
                case.accept(0x91)
                case.take(chips.EOI | chips.ONCE, chips.SLEEP)
                case.measure(slot)
                case.add(chips.RDMSR, "I", 0x6E0)
                case.expect(0, "deadline")
                case.expect(0, "deadline")
            case.ratio(1, 0, factor, 1, 4 * factor, "times")
            yield case.finish()
    for masked in (0, MASK):
        for armed in range(6):
            case = Apic(name)
            case.write(LVT_TIMER, 2 << 17 | masked | 0x92)
            case.write(INITIAL, 1000)  # ignored in this mode
            case.reads(CURRENT, 0)
            if armed == 0:
                case.add(chips.WRMSR, "III", 0x6E0, 1, 0)  # long past
                if not masked:
                    case.accept(0x92)
            elif armed < 5:
                case.add(chips.DEADLINE, "I", 1 << 24)
                if armed == 1:
                    case.add(chips.WRMSR, "III", 0x6E0, 0, 0)
                else:
                    case.write(LVT_TIMER, (armed - 2 if armed < 4 else 0) << 17 | masked | 0x92)
            case.add(chips.RDMSR, "I", 0x6E0)
            case.expect(0, "deadline")
            case.expect(0, "deadline")
            case.look()
            case.write(LVT_TIMER, 0x93)
            case.add(chips.DEADLINE, "I", 1 << 24)  # not in this mode
            case.add(chips.RDMSR, "I", 0x6E0)
            case.expect(0, "deadline")
            case.expect(0, "deadline")
            case.look()
            yield case.finish()


def x2apic(name):
    """The same registers as MSRs; SELF IPI; the ICR in one write; LDR made from the ID; back to xAPIC by way of disabled."""
    for vector in range(16, 256, 3):
        for way in (0, 1, 2, 3):
            case = Apic(name)
            case.add(chips.WRMSR, "III", 0x1B, 0xFEE00D00, 0)
            case.add(chips.WRMSR, "III", 0x80F, 0x1FF, 0)
            if way == 0:
                case.add(chips.WRMSR, "III", 0x83F, vector, 0)
            elif way == 1:
                case.add(chips.WRMSR, "III", 0x830, SELF | ASSERT | vector, 0)
            elif way == 2:
                case.add(chips.WRMSR, "III", 0x830, ASSERT | vector, 0)
            else:
                case.add(chips.WRMSR, "III", 0x830, LOGICAL | ASSERT | vector, 1)
            case.accept(vector)
            for msr, value in ((0x80D, 1), (0x802, 0), (0x820 + vector // 32, 1 << vector % 32), (0x80A, 0)):
                case.add(chips.RDMSR, "I", msr)
                case.expect(value, f"MSR {msr:x}")
                case.expect(0, f"MSR {msr:x}, upper half")
            case.take()
            for msr, value in ((0x810 + vector // 32, 1 << vector % 32), (0x80A, vector & 0xF0)):
                case.add(chips.RDMSR, "I", msr)
                case.expect(value, f"MSR {msr:x}")
                case.expect(0, f"MSR {msr:x}, upper half")
            case.add(chips.WRMSR, "III", 0x80B, 0, 0)
            case.isr.clear()
            case.add(chips.RDMSR, "I", 0x80A)
            case.expect(0, "MSR 80a")
            case.expect(0, "MSR 80a, upper half")
            case.add(chips.WRMSR, "III", 0x1B, 0xFEE00100, 0)
            case.add(chips.WRMSR, "III", 0x1B, 0xFEE00900, 0)
            case.reads(SVR, 0xFF, 0x1FF)
            for register in (LVT_TIMER, LINT0, LINT1, LVT_ERROR):
                case.reads(register, MASK)
            yield case


FAMILIES = (
    registers, priorities, nesting, self_interrupts, destinations, errors, disabled, pins, counting, deadlines, x2apic,
)  # fmt: skip


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(family.__name__)
