"""The 8254 (Intel 8254 data sheet, order 231164), pulse by pulse: six modes, binary and BCD, every access form, gates (counter 2,
by port 61h), counts written while counting, latches, read-back, OUT as status, as port 61h bit 5 and as interrupt request 0.

A counter that is not under test tells the pulses. Left out, since the data sheet leaves it open: a counter before its first
count, counts of 1 in modes 2 and 3, digits above 9 in BCD; and unlatched reads between a write and the pulse that loads it,
for which no PC bus is quick enough."""

import chips
from dice import Dice

SETUP = 0
CONTROL, PORT_61 = 0x43, 0x61
LSB, MSB, BOTH = 1, 2, 3


class Counter:
    """One counter."""

    def __init__(self, gate=True):
        self.gate = gate
        self.rw, self.mode, self.bcd = BOTH, 0, False
        self.out = False
        self.reset()

    def reset(self):
        """What a control word does."""
        self.register = None  # CR as a number
        self.low = None  # the first of two bytes
        self.element = None  # CE as a number
        self.null = True
        self.load = False  # CR goes to CE at the next pulse
        self.trigger = False
        self.holding = False  # mode 0 between the two bytes
        self.fires = False  # OUT is still to move when CE gets to 0
        self.late = False  # mode 3, odd count: one pulse more until OUT falls
        self.latch = None
        self.status = None
        self.high_next = False

    @property
    def modulus(self):
        """One more than the highest count."""
        return 10000 if self.bcd else 0x10000

    def control(self, value):
        """A control word."""
        self.rw, self.bcd = value >> 4 & 3, bool(value & 1)
        self.mode = value >> 1 & 7
        self.word = value & 0x3F
        if self.mode > 5:
            self.mode -= 4
        self.reset()
        self.out = self.mode != 0

    def write(self, byte):
        """A byte of a count."""
        if self.rw == BOTH and self.low is None:
            self.low = byte
            if self.mode == 0:
                self.holding, self.out, self.load = True, False, False
            return
        raw = {LSB: byte, MSB: byte << 8}.get(self.rw, (self.low or 0) | byte << 8)
        self.low = None
        first = self.register is None
        number = int(f"{raw:x}") if self.bcd else raw
        self.register = number or self.modulus
        self.null = True
        self.holding = False
        if self.mode == 0:
            self.out = False
            self.load = True
        elif self.mode == 4 or self.mode in (2, 3) and first:
            self.load = True

    def set_gate(self, level):
        """The GATE input."""
        if level and not self.gate and self.mode in (1, 2, 3, 5) and self.register is not None:
            self.trigger = True
        if not level and self.mode in (2, 3):
            self.out = True
        self.gate = level

    def take_count(self):
        """CR to CE."""
        self.element = self.register
        self.null = False
        if self.mode == 3:
            self.late = bool(self.element & 1) and self.out
            self.element &= ~1

    def pulse(self):
        """A CLK pulse."""
        if self.trigger or self.load:
            self.fires = True
            if self.mode == 1:
                self.out = False
            else:
                self.out = self.mode != 0
            self.take_count()
            self.trigger = self.load = False
            return
        if self.element is None or self.holding:
            return
        if self.mode in (4, 5):
            self.out = True  # a strobe lasts one pulse
        if not self.gate and self.mode in (0, 2, 3, 4):
            return
        if self.mode == 2:
            self.element -= 1
            if self.element == 0:
                self.take_count()
                self.out = True
            elif self.element == 1:
                self.out = False
        elif self.mode == 3:
            if self.element > 2 or self.element == 2 and self.late:
                self.element -= 2
            else:
                self.out = not self.out
                self.take_count()
        else:
            self.element = (self.element - 1) % self.modulus
            if self.element == 0 and self.fires:
                self.fires = False
                self.out = self.mode in (0, 1)

    def count(self):
        """CE as digits or a word."""
        value = self.element % self.modulus
        return int(f"{value}", 16) if self.bcd else value

    def status_byte(self):
        """What read-back latches."""
        return self.out << 7 | self.null << 6 | self.word

    def latch_count(self):
        """The counter latch command."""
        if self.latch is None:
            self.latch = self.count()

    def latch_status(self):
        """The same for the status."""
        if self.status is None:
            self.status = self.status_byte()

    def read(self):
        """A byte."""
        if self.status is not None:
            status, self.status = self.status, None
            return status
        value = self.count() if self.latch is None else self.latch
        if self.rw == LSB or self.rw == BOTH and not self.high_next:
            if self.rw == BOTH:
                self.high_next = True
            else:
                self.latch = None
            return value & 0xFF
        self.latch = None
        self.high_next = False
        return value >> 8


class Timer(chips.Case):
    """Three counters; one of them is the clock of the case."""

    def __init__(self, name, reference=0):
        super().__init__(name)
        self.counters = [Counter(), Counter(), Counter()]
        self.reference = reference
        self.port_61 = 1
        self.out(PORT_61, 1)
        self.add(chips.CLOCK, "B", reference)
        self.what = ""

    def control(self, number, rw, mode, bcd=0):
        """A control word for a counter."""
        value = number << 6 | rw << 4 | mode << 1 | bcd
        self.out(CONTROL, value)
        self.counters[number].control(value)
        self.what += f" cw {number} rw{rw} mode{mode} bcd{bcd}"

    def byte(self, number, value):
        """A byte of a count."""
        self.out(0x40 + number, value)
        self.counters[number].write(value)
        self.what += f" {value:x}"

    def count(self, number, value):
        """A whole count, in the counter's access form."""
        rw = self.counters[number].rw
        if rw & LSB:
            self.byte(number, value & 0xFF)
        if rw & MSB:
            self.byte(number, value >> 8)

    def pulses(self, count):
        """Time goes by."""
        self.ticks(count)
        for counter in self.counters:
            for _ in range(count):
                counter.pulse()
        self.what += f" +{count}"

    def gate(self, level):
        """Counter 2's gate."""
        self.port_61 = level
        self.out(PORT_61, level)
        self.counters[2].set_gate(bool(level))
        self.what += f" gate{level}"

    def look(self, number):
        """Status and count, latched together."""
        counter = self.counters[number]
        if counter.element is None:
            self.status(number)
            return
        self.add(chips.COUNTER, "BB", number, 2 if counter.rw == BOTH else 1)
        value = counter.count()
        value = {LSB: value & 0xFF, MSB: value >> 8}.get(counter.rw, value)
        self.expect(counter.status_byte() << 16 | value, f"counter {number}: status and count")

    def status(self, number):
        """Status alone."""
        self.out(CONTROL, 0xE0 | 2 << number)
        self.counters[number].latch_status()
        self.take_byte(number)

    def take_byte(self, number):
        """A read."""
        self.read(0x40 + number, self.counters[number].read())

    def command(self, value):
        """A latch or read-back command."""
        self.out(CONTROL, value)
        self.what += f" command {value:x}"
        if value < 0xC0:
            self.counters[value >> 6].latch_count()
            return
        for n in range(3):
            if value >> n + 1 & 1 and n != self.reference:
                if not value & 0x20:
                    self.counters[n].latch_count()
                if not value & 0x10:
                    self.counters[n].latch_status()

    def output(self):
        """OUT of counter 2, at port 61h."""
        self.read(PORT_61, self.counters[2].out << 5, 0x20, "OUT 2")


def prologue():
    """Nothing is asked before a case's control words; the 8259s tell about OUT 0."""
    case = chips.Case()
    for port, base, identity in ((0x20, 0x40, 4), (0xA0, 0x50, 2)):
        case.out(port, 0x11)
        for word in (base, identity, 1, 0xFF):
            case.out(port + 1, word)
        case.out(port, 0x0A)
    return case


def digits(number, bcd):
    """A count as it is written."""
    return int(str(number), 16) if bcd else number


def waveforms(name):
    """Each mode, form and number system; counts that are small, and the ends of those that are not."""
    for number in (0, 1, 2):
        for mode in range(8):
            for bcd in (0, 1):
                for rw in (LSB, MSB, BOTH):
                    small = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12) if rw & LSB else ()
                    large = {LSB: (19, 99 if bcd else 255), MSB: (100, 300) if bcd else (256, 768), BOTH: (101, 300, 257)}[rw]
                    for value in small + large + (0,):
                        if value == 1 and mode in (2, 3, 6, 7):
                            continue
                        case = Timer(name, 2 if number < 2 else 0)
                        case.control(number, rw, mode, bcd)
                        case.status(number)
                        case.count(number, digits(value, bcd))
                        if mode in (1, 5):
                            if number < 2:
                                if value > 4:
                                    continue  # their gates are high: never triggered
                                for _ in range(3):
                                    case.status(number)
                                    case.pulses(1)
                                yield case
                                continue
                            case.pulses(2)
                            case.status(number)
                            case.gate(0)
                            case.gate(1)
                        case.pulses(1)
                        case.look(number)
                        near = 4 if mode in (3, 7) else 2
                        if value > 16:
                            case.pulses((value // 2 if mode in (3, 7) else value) - near)
                            case.look(number)
                        for _ in range(14):
                            case.pulses(1)
                            case.look(number)
                            if number == 2:
                                case.output()
                        yield case


def gates(name):
    """The gate falls at each pulse and rises after some: it stops, starts again, or does nothing."""
    for mode in range(6):
        for bcd in (0, 1):
            for value in (2, 3, 5, 6, 10):
                for falls in range(0, 8):
                    for width in (0, 1, 2, 4):
                        case = Timer(name)
                        case.control(2, BOTH, mode, bcd)
                        case.count(2, digits(value, bcd))
                        if mode in (1, 5):
                            case.gate(0)
                            case.gate(1)
                        if falls:
                            case.pulses(falls)
                        case.gate(0)
                        case.status(2)
                        for _ in range(width):
                            case.pulses(1)
                            case.look(2)
                            case.output()
                        case.gate(1)
                        case.status(2)
                        for _ in range(8):
                            case.pulses(1)
                            case.look(2)
                            case.output()
                        yield case


def closed_gates(name):
    """A control word and a count while the gate is low."""
    for mode in range(6):
        for value in (2, 3, 4, 7):
            for opened in (0, 1, 3):
                for again in (0, 1):
                    case = Timer(name)
                    case.gate(0)
                    case.control(2, BOTH, mode)
                    case.count(2, value)
                    case.output()
                    for _ in range(opened):
                        case.pulses(1)
                        case.look(2)
                    if again:
                        case.count(2, value + 2)
                        case.pulses(1)
                        case.look(2)
                    case.gate(1)
                    for _ in range(9):
                        case.pulses(1)
                        case.look(2)
                        case.output()
                    yield case


def rewrites(name):
    """Another count after each number of pulses, both bytes at once or some pulses apart, triggered or not."""
    for mode in range(6):
        for first in (3, 4, 7):
            for second in (2, 5, 6):
                for at in range(0, 9):
                    for apart in (0, 1, 2):
                        for triggered in (0, 1):
                            case = Timer(name)
                            case.control(2, BOTH, mode)
                            case.count(2, first)
                            if mode in (1, 5):
                                case.gate(0)
                                case.gate(1)
                            if at:
                                case.pulses(at)
                            case.byte(2, second)
                            case.status(2)
                            for _ in range(apart):
                                case.pulses(1)
                                case.look(2)
                            case.byte(2, 0)
                            case.status(2)
                            if triggered:
                                case.gate(0)
                                case.gate(1)
                            for _ in range(10):
                                case.pulses(1)
                                case.look(2)
                            yield case


def forms(name):
    """Control words that change the access form, the number system or the mode while counting."""
    for mode in range(6):
        for other in range(6):
            for rw in (LSB, MSB, BOTH):
                for pulses in (1, 3, 4):
                    case = Timer(name)
                    case.control(2, LSB, mode)
                    case.count(2, 3)
                    if mode in (1, 5):
                        case.gate(0)
                        case.gate(1)
                    case.pulses(pulses)
                    case.control(2, rw, other, pulses & 1)
                    case.status(2)
                    case.output()
                    case.count(2, 0x100 if rw == MSB else 4)
                    if other in (1, 5):
                        case.gate(0)
                        case.gate(1)
                    for _ in range(6):
                        case.pulses(1)
                        case.look(2)
                        case.output()
                    yield case


def latches(name):
    """Latched counts are held until they are read, once, in the access form; reads without a latch; halves of reads."""
    for number in (0, 1, 2):
        for mode in (0, 2, 3, 4):
            for rw in (LSB, MSB, BOTH):
                for script in range(32):
                    case = Timer(name, 2 if number < 2 else 0)
                    case.control(number, rw, mode)
                    case.count(number, 0x240 if rw & MSB else 0x40)
                    case.pulses(3 + script % 3)
                    for bit in range(5):
                        if script >> bit & 1:
                            case.command(number << 6)
                            case.pulses(2)
                        case.take_byte(number)
                    case.pulses(1)
                    case.command(number << 6)
                    case.command(number << 6)
                    case.pulses(1)
                    case.take_byte(number)
                    case.take_byte(number)
                    case.control(number, rw, mode)
                    case.status(number)
                    yield case


def read_back(name):
    """Each read-back command, twice, on counters with different counts and forms; then everything that was latched."""
    for reference in (0, 2):
        for first in range(0xC0, 0x100, 2):
            for second in range(0xC0, 0x100, 2):
                if first >> 3 & 1 and reference == 2 or first >> 1 & 1 and reference == 0:
                    continue
                if second >> 3 & 1 and reference == 2 or second >> 1 & 1 and reference == 0:
                    continue
                case = Timer(name, reference)
                mine = [n for n in range(3) if n != reference]
                for n, form, mode in zip(mine, (BOTH, MSB if second & 2 else LSB), (2, 3)):
                    case.control(n, form, mode)
                    case.count(n, 0x350)
                case.pulses(2)
                case.command(first)
                case.pulses(1)
                case.command(second)
                case.pulses(1)
                for n in mine:
                    for _ in range(4):
                        case.take_byte(n)
                yield case


def interleaved(name):
    """The bytes of a count and of a read do not disturb each other."""
    for mode in (0, 2, 3, 4):
        for order in range(24):
            steps = ["write", "write", "read", "read"]
            picked, rest = [], order
            for size in (4, 3, 2, 1):
                picked.append(steps.pop(rest % size))
                rest //= size
            case = Timer(name)
            case.control(2, BOTH, mode)
            case.count(2, 0x234)
            case.pulses(2)
            case.command(0x80)
            low = True
            for step in picked:
                if step == "write":
                    case.byte(2, 0x21 if low else 0x03)
                    low = False
                else:
                    case.take_byte(2)
            for _ in range(3):
                case.pulses(1)
                case.look(2)
            yield case


def interrupts(name):
    """OUT 0 as the 8259 sees it: an edge at each terminal count, at the pulse where OUT rises."""
    for mode in (0, 2, 3, 4):
        for value in range(2, 12):
            for rw in (LSB, BOTH):
                case = Timer(name, 2)
                case.control(0, rw, 0)  # OUT is low
                case.control(0, rw, mode)
                case.count(0, value)
                counter = case.counters[0]
                case.read(0x20, counter.out, 1, "request 0")
                for _ in range(2 * value + 4):
                    case.pulses(1)
                    case.read(0x20, counter.out, 1, "request 0")
                yield case


def sequences(name):
    """Anything after anything, on two counters."""
    for seed in range(1200):
        dice = Dice(seed + 77)
        case = Timer(name, 0)
        for number in (1, 2):
            case.control(number, dice.of((LSB, BOTH)), dice.below(6) if number == 2 else dice.of((0, 2, 3, 4)))
            case.count(number, 2 + dice.below(8))
        for _ in range(24):
            number = dice.of((1, 2, 2))
            counter = case.counters[number]
            kind = dice.below(8)
            if kind == 0:
                case.gate(dice.below(2))
            elif kind == 1:
                case.count(number, 2 + dice.below(8))
            elif kind == 2:
                case.byte(number, 2 + dice.below(8) if counter.rw == LSB or counter.low is None else 0)
            elif kind == 3 and dice.below(4) == 0:
                case.control(number, dice.of((LSB, BOTH)), dice.below(6) if number == 2 else dice.of((0, 2, 3, 4)), dice.below(2))
                case.count(number, 2 + dice.below(8))
            else:
                case.pulses(1 + dice.below(4))
            case.status(number)
            if counter.element is not None and counter.latch is None and not counter.high_next:
                case.look(number)
            case.output()
        yield case


def rates(name):
    """Long periods against the power-management timer, which counts three times a pulse; counter 0 wakes the processor."""
    for mode in (0, 2, 3, 4):
        for value in (0x100, 0x321):
            case = Timer(name, 0)
            case.control(2, BOTH, mode)
            case.count(2, value)
            if mode == 3:
                high = (value + 1) // 2
                for level in (0, 0x20):
                    case.until(PORT_61, 0x20, level)
                    case.mark(0) if level == 0 else case.span(0, 3 * (value - high) - 4, 3 * (value - high) + 4)
                case.mark(0)
                case.until(PORT_61, 0x20, 0)
                case.span(0, 3 * high - 4, 3 * high + 4)
            elif mode == 2:
                case.until(PORT_61, 0x20, 0)
                case.until(PORT_61, 0x20, 0x20)
                case.mark(0)
                case.until(PORT_61, 0x20, 0)
                case.span(0, 3 * (value - 1) - 4, 3 * (value - 1) + 4)
                case.until(PORT_61, 0x20, 0x20)
                case.span(0, 3 * value - 4, 3 * value + 4)
            else:
                case.mark(0)
                case.until(PORT_61, 0x20, 0x20 if mode == 0 else 0)
                case.span(0, 3 * (value + 1) - 6, 3 * (value + 1) + 4)
            yield case
    for mode in (0, 2, 3, 4):
        for value in (0x400, 0x1000, 0x3039, 0x8000, 0x9999, 0xFFFE, 0xFFFF, 0):
            for bcd in (0, 1):
                if bcd and (value & 0xF) > 9 or bcd and value == 0x3039:
                    continue
                case = Timer(name, 2)
                case.out(0x21, 0xFE)
                case.control(0, BOTH, 0, bcd)
                case.control(0, BOTH, mode, bcd)
                pulses = (int(f"{value:x}") if bcd else value) or (10000 if bcd else 0x10000)
                if mode:
                    case.out(0x20, 0x20)
                    case.taken([0x40])  # the control word's edge
                    case.out(0x20, 0x20)
                case.count(0, value)
                case.mark(0)
                first = {0: 1, 2: 1, 3: 1, 4: 2}[mode]
                at = 0
                for turn in range(3 if mode in (2, 3) else 1):
                    case.taken([0x40], chips.SLEEP)
                    case.out(0x20, 0x20)
                    at += pulses
                    case.span(0, 3 * (at + first) - 6, 3 * (at + first) + 4)
                yield case


FAMILIES = (waveforms, gates, closed_gates, rewrites, forms, latches, read_back, interleaved, interrupts, sequences, rates)


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(family.__name__)
