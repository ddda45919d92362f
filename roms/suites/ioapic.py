"""The I/O APIC (82093AA data sheet; the EOI register of version 20h: ICH data sheets): redirection entries, masks, edges, levels and
remote IRR, delivery modes and destinations, and what the local APIC gets of it.

Its inputs are the request lines that pic.py moves; request 0 arrives at input 2. Left out: polarity beyond reading it back (the
board's lines are wired as asserted or not), SMI and INIT, what switching the trigger does to remote IRR."""

import chips
from dice import Dice
from lapic import BASE, DFR, DIVIDE, ICR_HIGH, INITIAL, LDR, LINT0, LINT1, LVT_ERROR, LVT_PERFORMANCE, LVT_THERMAL, LVT_TIMER
from lapic import MASK, SVR, TPR, Apic

SETUP = chips.PERIODIC
SELECT, WINDOW, EOI_REGISTER = 0xFEC00000, 0xFEC00010, 0xFEC00040
PINS = {0: 2, 1: 1, 3: 3, 4: 4, 8: 8, 12: 12}
LOGICAL, REMOTE, LEVEL = 1 << 11, 1 << 14, 1 << 15
FIXED, LOWEST, NMI, EXTINT = 0, 1 << 8, 4 << 8, 7 << 8
PIC_BASE = 0x20


class Board(Apic):
    """An I/O APIC and a local one."""

    def __init__(self, name):
        super().__init__(name)
        self.entries = [MASK] * 24
        self.high = set()
        self.tmr = set()
        self.suppressed = False
        self.external = False

    def entry(self, pin, low, high=0):
        """Writes a redirection entry: its upper half first."""
        self.what += f" entry {pin}={high:x}:{low:x}"
        self.add(chips.ENTRY, "BIB", pin, low, high)
        old = self.entries[pin]
        self.entries[pin] = low & 0x1AFFF | old & REMOTE | high << 56
        self.raise_level(pin)

    def shows(self, pin):
        """Reads one."""
        self.add(chips.ENTRY_READ, "B", pin)
        self.expect(self.entries[pin] & 0x1EFFF, f"entry {pin}")
        self.expect(self.entries[pin] >> 56 << 24, f"entry {pin}, upper half")

    def is_level(self, pin):
        """Whether levels count at a pin."""
        return self.entries[pin] & LEVEL and self.entries[pin] & 0x700 in (FIXED, LOWEST)

    def raise_level(self, pin):
        """A level that may be sent."""
        if self.is_level(pin) and pin in self.high and not self.entries[pin] & (MASK | REMOTE):
            if self.send(pin):
                self.entries[pin] |= REMOTE

    def send(self, pin):
        """The message of a pin, if it is for this processor."""
        entry = self.entries[pin]
        destination = entry >> 56
        if not (destination & self.logical_id if entry & LOGICAL else destination in (0, 0xFF)):
            return False
        vector, mode = entry & 0xFF, entry & 0x700
        if mode == NMI:
            self.expect(2, "NMI")
        elif mode == EXTINT:
            self.external = True
        else:
            self.accept(vector)
            self.tmr = self.tmr | {vector} if self.is_level(pin) else self.tmr - {vector}
        return True

    logical_id = 1

    def set(self, number, level):
        """A request line."""
        pin = PINS[number]
        if level == (pin in self.high) or level and number in (1, 12) and self.high & {1, 12}:
            return
        self.what += f" line {number}={level}"
        self.line(number, level)
        self.high = self.high | {pin} if level else self.high - {pin}
        if level and self.is_level(pin):
            self.raise_level(pin)
        elif level and not self.entries[pin] & MASK:
            self.send(pin)

    def end(self):
        """EOI, which a level broadcasts."""
        vector = max(self.isr, default=0)
        super().end()
        if vector in self.tmr and not self.suppressed:
            self.broadcast(vector)

    def broadcast(self, vector):
        """An EOI as the I/O APIC gets it."""
        for pin, entry in enumerate(self.entries):
            if entry & REMOTE and entry & 0xFF == vector:
                self.entries[pin] &= ~REMOTE
                self.raise_level(pin)

    def directed_end(self, vector):
        """The EOI register."""
        self.store(EOI_REGISTER, vector)
        self.broadcast(vector)

    def all(self, *pins):
        """Everything."""
        self.look()
        for vector in sorted(self.irr | self.isr):
            self.load(BASE + 0x180 + vector // 32 * 16, (vector in self.tmr) << vector % 32, 1 << vector % 32, "TMR")
        for pin in pins:
            self.shows(pin)

    def finish(self):
        """Lines low, entries masked, nothing left."""
        for number, pin in PINS.items():
            if pin in self.high:
                self.set(number, 0)
        while self.isr or self.irr:
            self.take()
            self.end()
        return self


def prologue():
    """Lines low, entries masked, the local APIC as after power-on, LINT0 masked."""
    case = chips.Case()
    for number in (0, 1, 3, 4, 8):
        case.line(number, 0)
    for port, base, identity in ((0x20, PIC_BASE, 4), (0xA0, 0x28, 2)):
        case.out(port, 0x11)
        for word in (base, identity, 1, 0xFF):
            case.out(port + 1, word)
        case.out(port, 0x0B)
    for register, value in (
        (SVR, 0x1FF), (TPR, 0), (LVT_TIMER, MASK), (LVT_THERMAL, MASK), (LVT_PERFORMANCE, MASK), (LINT0, MASK | 0x700),
        (LINT1, MASK | 0x400), (LVT_ERROR, MASK), (INITIAL, 0), (DIVIDE, 0), (LDR, 1 << 24), (DFR, 0xFFFFFFFF), (ICR_HIGH, 0),
    ):  # fmt: skip
        case.store(BASE + register, value)
    for pin in PINS.values():
        case.add(chips.ENTRY, "BIB", pin, MASK, 0)
    return case


def registers(name):
    """Identification, version, and every bit of every entry."""
    for value in range(16):
        case = Board(name)
        case.store(SELECT, 0)
        case.store(WINDOW, value << 24)
        case.load(WINDOW, value << 24, 0x0F000000, "ID")
        case.store(SELECT, 2)
        case.load(WINDOW, value << 24, 0x0F000000, "arbitration ID")
        case.store(SELECT, 1)
        case.load(WINDOW, 23 << 16, 0xFF0000, "entries")
        case.store(WINDOW, 0)
        case.load(WINDOW, 23 << 16, 0xFF0000, "entries")
        case.store(SELECT, 0)
        case.store(WINDOW, 0)
        yield case
    for pin in range(24):
        for bit in (*(b for b in range(17) if b not in (12, 14)), *range(56, 64)):
            for base in (0, 0xFF0000000000A8FF if bit not in (8, 9, 10) else 0xFF000000000000FF):
                value = base ^ 1 << bit
                case = Board(name)
                for n, half in ((1, value >> 32), (0, value & 0xFFFFFFFF | MASK)):
                    case.store(SELECT, 0x10 + 2 * pin + n)
                    case.store(WINDOW, half)
                    case.load(SELECT, 0x10 + 2 * pin + n, 0xFF, "index")
                    case.load(WINDOW, half, 0xFF000000 if n else 0x1AFFF, f"entry {pin}")
                case.store(SELECT, 0x10 + 2 * pin)
                case.store(WINDOW, MASK)
                case.load(WINDOW, MASK, 0x1FFFF, f"entry {pin}")
                yield case


def edges(name):
    """An edge is a message if the entry is not masked; a masked one is lost; the line's fall is nothing."""
    for number, pin in PINS.items():
        for vector in (0x31, 0x5F, 0x80, 0xFE):
            for mode in (FIXED, LOWEST):
                for script in range(16):
                    case = Board(name)
                    case.entry(pin, vector | mode | (MASK if script & 1 else 0))
                    case.set(number, 1)
                    case.all(pin)
                    if script & 2:
                        case.set(number, 0)
                    case.entry(pin, vector | mode)
                    case.all(pin)
                    if script & 4:
                        case.take()
                    case.set(number, 0)
                    case.set(number, 1)
                    case.all(pin)
                    if script & 8:
                        case.take()
                        case.end()
                    case.take()
                    case.all(pin)
                    yield case.finish()


def levels(name):
    """A level is sent while it lasts, once until its EOI: remote IRR; masks before, during and after."""
    for number, pin in PINS.items():
        for vector in (0x32, 0x81):
            for falls in range(5):
                for masks in range(8):
                    case = Board(name)
                    case.entry(pin, LEVEL | vector | (MASK if masks & 1 else 0))
                    case.set(number, 1)
                    case.all(pin)
                    if masks & 1:
                        case.entry(pin, LEVEL | vector)
                        case.all(pin)
                    if falls == 1:
                        case.set(number, 0)
                    case.take()
                    case.all(pin)
                    if falls == 2:
                        case.set(number, 0)
                    if masks & 2:
                        case.entry(pin, LEVEL | MASK | vector)
                        case.all(pin)
                    if falls == 3:
                        case.set(number, 0)
                        case.set(number, 1)
                    case.end()
                    case.all(pin)
                    if masks & 4:
                        case.entry(pin, LEVEL | vector)
                        case.all(pin)
                    case.take()
                    if falls == 4:
                        case.set(number, 0)
                        case.end()
                        case.set(number, 1)
                    case.all(pin)
                    yield case.finish()


def shared(name):
    """Two level-triggered entries of one vector: one EOI ends both, and those still asserted come again; mixed with an edge."""
    for first in (0, 3, 4, 8):
        for second in (1, 3, 4, 12):
            for kind in (LEVEL, 0):
                for left in range(4):
                    if first == second:
                        continue
                    case = Board(name)
                    case.entry(PINS[first], LEVEL | 0x44)
                    case.entry(PINS[second], kind | 0x44)
                    case.set(first, 1)
                    case.take()
                    case.set(second, 1)
                    case.all(PINS[first], PINS[second])
                    if kind == 0:
                        case.take()
                        yield case.finish()
                        break
                    if left & 1:
                        case.set(first, 0)
                    if left & 2:
                        case.set(second, 0)
                    case.end()
                    case.all(PINS[first], PINS[second])
                    case.take()
                    case.all(PINS[first], PINS[second])
                    yield case.finish()


def delivery(name):
    """Destinations that match or do not, physical and logical; NMI; ExtINT, which asks the 8259s, and theirs is the vector."""
    for number, pin in PINS.items():
        for destination in (0, 1, 2, 3, 0x0F, 0x10, 0x80, 0xFE, 0xFF):
            for logical in (0, LOGICAL):
                for mode in (FIXED, LOWEST, NMI):
                    if mode == LOWEST and destination == 0xFF and not logical:
                        continue
                    for trigger in (0, LEVEL):
                        if trigger and (mode == NMI or not (destination & 1 if logical else destination in (0, 0xFF))):
                            continue
                        case = Board(name)
                        case.entry(pin, mode | logical | trigger | 0x66, destination)
                        case.set(number, 1)
                        case.all(pin)
                        case.take()
                        case.all(pin)
                        yield case.finish()
    for number in (0, 1, 3, 4):
        for masked in (0, 1):
            for tpr in (0, 0x80, 0xF0):
                case = Board(name)
                case.set_tpr(tpr)
                case.out(0x21, 0xFF if masked else 0xFF & ~(1 << number))
                case.entry(PINS[number], EXTINT | 0x77)
                case.set(number, 1)
                # With nothing to ask for, the 8259 answers with its default IR7, and takes nothing into service.
                case.taken([PIC_BASE | (7 if masked else number)], flags=chips.ONCE)
                case.read(0x20, 0 if masked else 1 << number, 0xFF, "8259: in service")
                case.out(0x20, 0x20)
                case.all(PINS[number])
                case.set_tpr(0)
                yield case.finish()


def directed(name):
    """Without broadcasts (SVR bit 12) remote IRR lasts until the EOI register is written."""
    for number, pin in PINS.items():
        for vector in (0x34, 0x9A, 0xE1):
            for low in (0, 1):
                for other in (0, 1):
                    case = Board(name)
                    case.write(SVR, 0x11FF)
                    case.suppressed = True
                    case.entry(pin, LEVEL | vector)
                    case.set(number, 1)
                    case.take()
                    if low:
                        case.set(number, 0)
                    case.end()
                    case.all(pin)
                    if other:
                        case.directed_end(vector ^ 1)
                        case.all(pin)
                    case.directed_end(vector)
                    case.all(pin)
                    case.take()
                    case.write(SVR, 0x1FF)
                    case.suppressed = False
                    yield case.finish()


def sequences(name):
    """Anything after anything; a line stays edge- or level-triggered."""
    for seed in range(1000):
        dice = Dice(seed + 5000)
        case = Board(name)
        lines = [dice.of((0, 3)), dice.of((1, 12)), 4, 8]
        fixed = {PINS[n]: dice.of((0, LEVEL)) | dice.of((0x30, 0x41, 0x52, 0x53, 0x80)) + PINS[n] // 4 * 16 + PINS[n] % 4 for n in lines}
        for pin, low in fixed.items():
            case.entry(pin, low)
        for _ in range(24):
            kind = dice.below(8)
            number = dice.of(lines)
            if kind < 4:
                case.set(number, dice.below(2))
            elif kind == 4:
                case.take()
            elif kind == 5:
                case.end()
            elif kind == 6:
                case.entry(PINS[number], fixed[PINS[number]] | dice.of((0, MASK)))
            else:
                case.set_tpr(dice.of((0, 0x40, 0x50, 0x90)))
        case.all(*fixed)
        case.set_tpr(0)
        yield case.finish()


FAMILIES = (registers, edges, levels, shared, delivery, directed, sequences)


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(family.__name__)
