"""The pair of 8259As (Intel 8259A data sheet, order 231468; ELCR: PIIX3 data sheet): initialisation, priorities, every end of
interrupt and rotation, special mask, automatic EOI, polling, cascade, special fully nested mode, level triggering.

Requests come from chips whose output a program commands: 8254 (0), 8042 (1, 12: one buffer, so never both), serial ports (3, 4),
real-time clock (8). Left out: what a program cannot bring about on a PC (a request that falls between INTR and the
acknowledge, so the default IR7), MCS-80 acknowledges, polling in automatic EOI mode, of which the data sheet says nothing."""

import chips
from dice import Dice

SETUP = chips.PERIODIC
MASTER, SLAVE = 0x20, 0xA0
BASES = (0x40, 0x50)
LINES = (0, 1, 3, 4, 8, 12)


class Chip:
    """One 8259A."""

    def __init__(self, base, identity):
        self.levels = 0  # of the IR inputs
        self.latched = 0  # edges that ask, while their input stays high
        self.elcr = 0
        self.imr = 0xFF
        self.isr = 0
        self.lowest = 7
        self.base = base
        self.icw1, self.icw3, self.icw4 = 0x11, identity, 1
        self.waits_for = None
        self.reads_isr = False
        self.special_mask = False
        self.rotates = False
        self.polled = False

    @property
    def irr(self):
        """The interrupt request register."""
        return self.latched & ~self.elcr | self.levels & self.elcr

    def order(self):
        """The levels, highest priority first."""
        return [(self.lowest + n) % 8 for n in range(1, 9)]

    def asks(self):
        """The level that INT is about, if it is active."""
        if self.waits_for is not None:
            return None
        for level in self.order():
            if self.irr >> level & 1 and not self.imr >> level & 1:
                slave_here = self.icw1 & 2 == 0 and self.icw4 & 0x10 and self.icw3 >> level & 1
                if not (slave_here and self.isr >> level & 1 and not (self.special_mask and self.imr >> level & 1)):
                    if self.isr >> level & 1:
                        return None
                return level
            # Priority cells between: a level in service inhibits itself and all below.
            if self.isr >> level & 1 and not (self.special_mask and self.imr >> level & 1):
                return None
        return None

    def drive(self, level, high):
        """An IR input."""
        bit = 1 << level
        if high and not self.levels & bit:
            self.latched |= bit
        if not high:
            self.latched &= ~bit
        self.levels = self.levels | bit if high else self.levels & ~bit

    def accept(self):
        """The first INTA pulse, or the read that polls."""
        level = self.asks()
        if level is None:
            return None
        self.latched &= ~(1 << level)
        if not self.icw4 & 2:
            self.isr |= 1 << level
        elif self.rotates:
            self.lowest = level
        return level

    def write(self, odd, value):
        """A write to either port."""
        if odd:
            following = {2: 3, 3: 4, 4: None}
            if self.waits_for is None:
                self.imr = value
            elif self.waits_for == 2:
                self.base = value & 0xF8
            elif self.waits_for == 3:
                self.icw3 = value
            else:
                self.icw4 = value
            if self.waits_for is not None:
                self.waits_for = following[self.waits_for]
                if self.waits_for == 3 and self.icw1 & 2:
                    self.waits_for = 4
                if self.waits_for == 4 and not self.icw1 & 1:
                    self.waits_for = None
        elif value & 0x10:
            self.icw1 = value
            self.latched = 0
            self.imr = 0
            self.lowest = 7
            self.special_mask = self.reads_isr = False
            if not value & 1:
                self.icw4 = 0
            self.waits_for = 2
        elif value & 8:
            if value & 0x40:
                self.special_mask = bool(value & 0x20)
            self.polled = bool(value & 4)
            if value & 2:
                self.reads_isr = bool(value & 1)
        else:
            self.command(value >> 5, value & 7)

    def command(self, kind, level):
        """OCW2."""
        if kind in (1, 5):
            for level in self.order():
                if self.isr >> level & 1 and not (self.special_mask and self.imr >> level & 1):
                    self.isr &= ~(1 << level)
                    if kind == 5:
                        self.lowest = level
                    break
        elif kind in (3, 7):
            self.isr &= ~(1 << level)
            if kind == 7:
                self.lowest = level
        elif kind == 6:
            self.lowest = level
        elif kind in (0, 4):
            self.rotates = kind == 4

    def read(self, odd):
        """A read of either port."""
        if self.polled:
            self.polled = False
            level = self.accept()
            return 0 if level is None else 0x80 | level
        if odd:
            return self.imr
        return self.isr if self.reads_isr else self.irr


class Pair(chips.Case):
    """The two of them and a processor."""

    def __init__(self, name):
        super().__init__(name)
        self.master, self.slave = Chip(BASES[0], 4), Chip(BASES[1], 2)
        self.high = set()

    def settle(self):
        """The slave's INT is the master's IR2."""
        self.master.drive(2, self.slave.asks() is not None)

    def chip(self, port):
        """The chip of a port."""
        return self.master if port in (MASTER, MASTER + 1) else self.slave

    def write(self, port, value):
        """A write to a chip."""
        self.out(port, value)
        self.chip(port).write(port & 1, value)
        self.settle()

    def look_at(self, port):
        """A read of a chip."""
        chip = self.chip(port)
        polled = chip.polled
        value = chip.read(port & 1)
        if polled:
            self.add(chips.POLL, "H", port)
            self.expect(value, f"poll {port:x}")
        else:
            self.read(port, value)
        self.settle()

    def elcr(self, chip, value):
        """The edge/level control register: not IRQ 0, 1, 2, 8, 13."""
        value &= (0xF8, 0xDE)[chip]
        self.out(0x4D0 + chip, value)
        (self.master, self.slave)[chip].elcr = value
        self.read(0x4D0 + chip, value)
        self.settle()

    def set(self, number, level):
        """A request line, if it can be moved."""
        if level == (number in self.high) or level and number in (1, 12) and self.high & {1, 12}:
            return
        self.high = self.high | {number} if level else self.high - {number}
        self.line(number, level)
        (self.master if number < 8 else self.slave).drive(number & 7, level)
        self.settle()

    def take(self, flags=0):
        """What a processor takes that lets interrupts in for a moment."""
        came = []
        while len(came) < (1 if flags & chips.ONCE else 12) and self.master.asks() is not None:
            level = self.master.accept()
            vector = self.master.base | level
            if self.master.icw1 & 2 == 0 and self.master.icw3 >> level & 1:
                assert self.slave.icw3 & 7 == level
                self.master.drive(2, False)
                vector = self.slave.base | self.slave.accept()
            self.settle()
            came.append(vector)
            if flags & chips.PIC_EOI:
                for chip in (self.slave, self.master):
                    chip.write(0, 0x20)
                    self.settle()
        self.taken(came, flags=flags)

    def look(self):
        """All that can be read."""
        self.add(chips.LOOK, "")
        for chip, name in ((self.master, "master"), (self.slave, "slave")):
            seen = [chip.read(1)]
            for word in (0x0A, 0x0B):
                chip.write(0, word)
                seen.append(chip.read(0))
                self.settle()
            self.expect(seen[0] << 16 | seen[1] << 8 | seen[2], f"{name}'s mask, requests, service")

    def start(self, port, icw4=1, base=None, icw1=0x11, mask=0):
        """The whole initialisation."""
        first = port == MASTER
        words = [base if base is not None else BASES[not first]]
        words += [] if icw1 & 2 else [4 if first else 2]
        words += [icw4] if icw1 & 1 else []
        self.write(port, icw1)
        for word in words:
            self.write(port + 1, word)
        self.write(port + 1, mask)


def prologue():
    """All lines low, nothing in service, the usual initialisation, everything masked."""
    case = chips.Case()
    for number in (0, 1, 3, 4, 8):
        case.line(number, 0)
    case.out(0x4D0, 0)
    case.out(0x4D1, 0)
    for port, base, identity in ((MASTER, BASES[0], 4), (SLAVE, BASES[1], 2)):
        case.out(port, 0x48)
        for level in range(8):
            case.out(port, 0x60 | level)
        case.out(port, 0)
        case.out(port, 0x11)
        for word in (base, identity, 1, 0xFF):
            case.out(port + 1, word)
        case.out(port, 0x0A)
    return case


def initialisation(new):
    """With a slave."""
    yield from initialised(new, (0x11, 0x10, 0x14, 0x15, 0xF1, 0xF5))


def other_forms(new):
    """A single chip (no ICW3, and IR2 is a request as any other); the level bit, in whose place the board has ELCR."""
    yield from initialised(new, (0x13, 0x12, 0xF7, 0x1F, 0x19, 0x1C))


def initialised(new, words):
    """Each form of the sequence; what it resets; a sequence that begins again in the middle; the vector that comes of it."""
    for port, line in ((MASTER, 4), (SLAVE, 8), (MASTER, 0), (SLAVE, 12)):
        for icw1 in words:
            for base in (0x20, 0x68, 0x8F, 0xF8):
                for before in ("clean", "masked", "special", "rotated", "high", "again"):
                    if icw1 & 2 and port == SLAVE:
                        continue  # the only chip, and a master's slave
                    case = new()
                    if before == "masked":
                        case.write(port + 1, 0x5A)
                    if before == "special":
                        case.write(port, 0x68)
                        case.write(port, 0x0B)
                    if before == "rotated":
                        case.write(port, 0xC2)
                    if before == "high":
                        case.set(line, 1)
                        case.look()
                    if before == "again":
                        case.write(port, 0x11)
                        case.write(port + 1, 0xA0)
                    case.write(port, icw1)
                    case.look_at(port)
                    case.write(port + 1, base)
                    if not icw1 & 2:
                        case.write(port + 1, 4 if port == MASTER else 2)
                    if icw1 & 1:
                        case.write(port + 1, 1)
                    case.look()
                    if port == SLAVE:
                        case.write(MASTER + 1, 0)
                    case.set(line, 1)
                    case.set(3, 1)
                    case.look()
                    if icw1 & 1:
                        case.take()
                    else:
                        for _ in range(2):
                            case.write(port, 0x0C)
                            case.look_at(port)
                    case.look()
                    yield case


def priorities(new):
    """All sets of requests under each rotation: what comes, in which order, and again after each end of interrupt."""
    for lowest in range(8):
        for which in range(1, 64):
            lines = [line for n, line in enumerate(LINES) if which >> n & 1]
            if 1 in lines and 12 in lines:
                continue
            case = new()
            case.write(MASTER + 1, 0)
            case.write(SLAVE + 1, 0)
            case.write(MASTER, 0xC0 | lowest)
            case.write(SLAVE, 0xC0 | (lowest * 3) % 8)
            for line in lines:
                case.set(line, 1)
            case.look()
            case.take()
            case.look()
            for _ in range(len(lines)):
                case.write(SLAVE, 0x20)
                case.write(MASTER, 0x20)
                case.take()
            case.look()
            yield case


def ends_and_rotations(new):
    """Each OCW2 with each of several sets in service, then what the new priorities let through."""
    for first in (0, 3, 4, 8):
        for second in (1, 4, 0, 12):
            for command in range(0, 0x100, 0x20):
                if command in (0, 0x80):
                    continue  # automatic_eoi has them
                for level in range(8) if command & 0x40 and command != 0x40 else (0,):
                    case = new()
                    case.write(MASTER + 1, 0)
                    case.write(SLAVE + 1, 0)
                    case.set(first, 1)
                    case.take()
                    case.write(MASTER, 0xC0 | first % 8)  # so that all others nest above
                    case.set(second, 1)
                    case.take()
                    case.look()
                    port = SLAVE if first > 7 and second > 7 else MASTER
                    if port == MASTER and not case.master.isr:
                        continue
                    case.write(port, command & 0xE0 | level)
                    case.look()
                    for line in (first, second):
                        case.set(line, 0)
                    for line in (3, 4, 0):
                        case.set(line, 1)
                    case.take()
                    case.look()
                    yield case


def special_mask(new):
    """A level in service that is masked lets others through only in special mask mode; what each EOI does there."""
    for served in (0, 3, 4, 8):
        for other in (1, 3, 4, 12, 0):
            if other == served:
                continue
            for masked in (0, 1):
                for order in ("before", "after", "on and off"):
                    for end in (0x20, 0x60, 0xA0, 0xE0):
                        case = new()
                        case.write(MASTER + 1, 0)
                        case.write(SLAVE + 1, 0)
                        case.set(served, 1)
                        case.take()
                        port = MASTER if served < 8 else SLAVE
                        if order == "before":
                            case.write(port, 0x68)
                        if masked:
                            case.write(port + 1, 1 << served % 8)
                            if port == SLAVE:
                                case.write(MASTER + 1, 4)
                                case.write(MASTER, 0x68)
                        if order != "before":
                            case.write(port, 0x68)
                        if order == "on and off":
                            case.write(port, 0x48)
                        case.set(other, 1)
                        case.take()
                        case.look()
                        level = served % 8 if end & 0x40 else 0
                        if end == 0xA0 and not (case.chip(port).isr & ~(case.chip(port).imr if case.chip(port).special_mask else 0)):
                            continue  # nothing to end: where a rotation would lead is open
                        case.write(port, end | level)
                        case.look()
                        case.write(port, 0x48)
                        case.write(port, 0x20)
                        case.take()
                        case.look()
                        yield case


def automatic_eoi(new):
    """AEOI, with and without rotation: nothing stays in service, and whoever was served last is last."""
    for rotate in (0x00, 0x80, 0x8000):
        for which in range(1, 64):
            lines = [line for n, line in enumerate(LINES) if which >> n & 1]
            if 1 in lines and 12 in lines:
                continue
            case = new()
            case.start(MASTER, icw4=3)
            case.start(SLAVE, icw4=3)
            for word in (rotate >> 8, rotate & 0xFF):
                case.write(MASTER, word)
                case.write(SLAVE, word)
            for line in lines:
                case.set(line, 1)
            case.take()
            case.look()
            for line in lines:
                case.set(line, 0)
            for line in (4, 3, 0, 8):
                case.set(line, 1)
            case.take()
            case.look()
            case.write(MASTER, 0)
            case.write(SLAVE, 0)
            yield case


def cascade(new):
    """Nesting within the slave, with and without special fully nested mode, and both EOIs in each order."""
    for icw4 in (1, 0x11):
        for first in (8, 12, 3, 0):
            for second in (8, 12, 4, 1):
                for between in (None, "slave", "master", "both", "checked"):
                    for lowest in (7, 3, 0):
                        for masks in ((0, 0), (0x10, 0), (0, 0x10), (4, 0)):
                            if first == second or {first, second} == {1, 12}:
                                continue
                            case = new()
                            case.start(MASTER, icw4=icw4, mask=masks[0])
                            case.start(SLAVE, mask=masks[1])
                            case.write(SLAVE, 0xC0 | lowest)
                            case.set(first, 1)
                            case.take()
                            case.set(second, 1)
                            case.look()
                            case.take()
                            if between in ("slave", "both", "checked"):
                                case.write(SLAVE, 0x20)
                                case.take()
                            if between == "checked":  # the routine of the data sheet: the master's only if the slave is done
                                case.write(SLAVE, 0x0B)
                                case.look_at(SLAVE)
                                if not case.slave.isr:
                                    case.write(MASTER, 0x20)
                            if between in ("master", "both"):
                                case.write(MASTER, 0x20)
                            case.take()
                            case.look()
                            yield case


def polling(new):
    """The poll command on each chip and port: it takes into service, once, and overrides the other reads."""
    for which in range(64):
        lines = [line for n, line in enumerate(LINES) if which >> n & 1]
        if 1 in lines and 12 in lines:
            continue
        for word in (0x0C, 0x0E, 0x0F, 0x6C):
            for odd in (0, 1):
                case = new()
                case.write(MASTER + 1, 0)
                case.write(SLAVE + 1, 0)
                for line in lines:
                    case.set(line, 1)
                for port in (MASTER, SLAVE, MASTER, MASTER, SLAVE):
                    case.write(port, word)
                    case.look_at(port + odd)
                    case.look_at(port)
                case.look()
                for port in (SLAVE, MASTER):
                    case.write(port, 0x20)
                case.take()
                case.look()
                yield case


def levels(new):
    """Level-triggered inputs: they ask while they are high, also after the end of interrupt; the register's bits."""
    for value in range(0, 0x100, 5):
        for chip in (0, 1):
            case = new()
            case.elcr(chip, value)
            case.look()
            yield case
    for level_bits in (0x18, 0x08, 0x10, 0):
        for slave_bits in (0x10, 0):
            for line in (3, 4, 12, 8, 0):
                for flags in (0, chips.PIC_EOI, chips.PIC_EOI | chips.ONCE):
                    for icw4 in (1, 3):
                        for drop in (0, 1):
                            if icw4 == 3 and flags & chips.PIC_EOI:
                                continue
                            case = new()
                            case.elcr(0, level_bits)
                            case.elcr(1, slave_bits)
                            case.start(MASTER, icw4=icw4)
                            case.start(SLAVE, icw4=icw4)
                            case.set(line, 1)
                            case.look()
                            case.take(flags)
                            case.look()
                            if drop:
                                case.set(line, 0)
                                case.look()
                            case.write(SLAVE, 0x20)
                            case.write(MASTER, 0x20)
                            case.take(flags)
                            case.elcr(0, 0)
                            case.look()
                            yield case


def requests(new):
    """IRR: an edge-triggered request lasts while its input does; masks hide nothing from it."""
    for line in LINES:
        for mask in (0, 0xFF):
            for level in (0, 0xFF):
                for script in range(16):
                    case = new()
                    case.elcr(0, level)
                    case.elcr(1, level)
                    case.write(MASTER + 1, mask)
                    case.write(SLAVE + 1, mask)
                    for bit in range(4):
                        case.set(line, script >> bit & 1)
                        case.look()
                    case.write(MASTER + 1, 0)
                    case.write(SLAVE + 1, 0)
                    case.take(chips.ONCE)
                    case.look()
                    yield case


def sequences(new):
    """Anything after anything."""
    for seed in range(1600):
        dice = Dice(seed)
        case = new()
        sfnm = dice.of((0, 0x10))
        case.start(MASTER, icw4=1 | sfnm)
        case.start(SLAVE)
        for _ in range(30):
            kind = dice.below(12)
            port = dice.of((MASTER, SLAVE))
            chip = case.chip(port)
            if kind < 4:
                case.set(dice.of(LINES), dice.below(2))
            elif kind < 6:
                case.take(dice.of((0, 0, chips.PIC_EOI, chips.ONCE)))
            elif kind < 8:
                command = dice.of((0x20, 0x60, 0xA0, 0xC0, 0xE0, 0x40))
                if command == 0xA0 and not chip.isr:
                    command = 0x20
                case.write(port, command | (dice.below(8) if command & 0x40 and command != 0x40 else 0))
            elif kind == 8:
                case.write(port + 1, dice.of((0, 0x10, 0x18, 1, 8, 0xFF, 4)))
            elif kind == 9:
                case.write(port, dice.of((0x68, 0x48, 0x08, 0x28, 0x48)))
            elif kind == 10:
                case.write(port, 0x0C)
                case.look_at(port)
            else:
                case.elcr(port == SLAVE, dice.of((0, 0x10, 0x18, 8)))
            case.write(port, dice.of((0x0A, 0x0B)))
            case.look_at(port)
        case.look()
        yield case


FAMILIES = (initialisation, priorities, ends_and_rotations, special_mask, automatic_eoi, cascade, polling, levels, requests, sequences, other_forms)


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(lambda: Pair(family.__name__))
