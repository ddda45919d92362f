"""The high-precision event timer (IA-PC HPET specification 1.0a): counter, three timers one-shot and periodic, 64 and 32 bits wide, edge
and level, status, legacy replacement, against the power-management timer where rates count.

The counter of this board runs at 100 MHz, as its capabilities say. Left out: messages instead of wires, which the capabilities deny."""

import chips

SETUP = 0
BASE = 0xFED00000
CAPABILITIES, PERIOD, CONFIG, STATUS, COUNTER = 0x00, 0x04, 0x10, 0x20, 0xF0
ENABLE, LEGACY = 1, 2
LEVEL, INTERRUPT, PERIODIC, SET_VALUE, BITS_32 = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 8
IOAPIC_PINS = (20, 21, 22, 23)
VECTORS = (0x20, 0x28, 0x30)
MASK = 1 << 16


def scaled(counts):
    """Counts of 10 ns as counts of the power-management timer (315/88 MHz)."""
    return counts * 63 // 1760


def to_wrap(start):
    """Counts until the low half wraps around, which interrupts by a one-shot timer of 32 bits, too (2.3.9.2.1)."""
    return (1 << 32) - (start & 0xFFFFFFFF)


class Hpet(chips.Case):
    """A program for the HPET."""

    def __init__(self, name):
        super().__init__(name)
        self.what = ""

    def write(self, register, value):
        """The lower half of a register."""
        self.what += f" {register:x}={value & 0xFFFFFFFF:x}"
        self.store(BASE + register, value)

    def write_wide(self, register, value):
        """Both halves."""
        self.write(register, value)
        self.write(register + 4, value >> 32)

    def reads(self, register, value, mask=0xFFFFFFFF):
        """What a register must hold."""
        self.load(BASE + register, value, mask, f"HPET {register:x}")

    def reads_wide(self, register, value):
        """Both halves."""
        self.reads(register, value)
        self.reads(register + 4, value >> 32)

    def timer(self, n, config, comparator=None):
        """A timer's configuration, and its comparator."""
        self.write(0x100 + 0x20 * n, config)
        if comparator is not None:
            self.write_wide(0x108 + 0x20 * n, comparator)

    def wait(self, vector):
        """HLT until this interrupt."""
        self.taken([vector], chips.SLEEP)
        if vector < 0x30:
            self.out(0xA0, 0x20)
            self.out(0x20, 0x20)
        else:
            self.store(0xFEE000B0, 0)

    def count_and_time(self, slot):
        """Slots: the counter, and the power-management timer, now."""
        self.keep(slot, BASE + COUNTER)
        self.mark(slot + 1)


def prologue():
    """Halted, all timers off, status clear; requests 0 and 8 open, vectors 20h and 28h; inputs 20 to 23 at 30h to 33h."""
    case = chips.Case()
    for address, value in ((CONFIG, 0), (0x100, 0), (0x120, 0), (0x140, 0), (STATUS, 7), (COUNTER, 0), (COUNTER + 4, 0)):
        case.store(BASE + address, value)
    for n in range(3):
        case.store(BASE + 0x108 + 0x20 * n, 0xFFFFFFFF)
        case.store(BASE + 0x10C + 0x20 * n, 0xFFFFFFFF)
    case.out(0x43, 0x30)
    for port, base, identity, mask in ((0x20, VECTORS[0], 4, 0xFA), (0xA0, VECTORS[1], 2, 0xFE)):
        case.out(port, 0x11)
        for word in (base, identity, 1, mask):
            case.out(port + 1, word)
        case.out(port, 0x0A)
    case.store(0xFEE00350, 0x700)
    for pin in IOAPIC_PINS:
        case.add(chips.ENTRY, "BIB", pin, 0x30 + pin - 20, 0)
    return case


def registers(name):
    """Capabilities; what reads back of each register."""
    case = Hpet(name)
    case.reads(CAPABILITIES, 0x8086A201, 0xFFFFFF00)  # three timers, 64 bits, legacy replacement, Intel
    case.reads(PERIOD, 10_000_000)
    case.write_wide(CAPABILITIES, 0)
    case.reads(CAPABILITIES, 0x8086A201, 0xFFFFFF00)
    yield case
    for value in range(4):
        case = Hpet(name)
        case.write(CONFIG, value)
        case.reads(CONFIG, value)
        case.reads(CONFIG + 4, 0)
        case.write(CONFIG, 0)
        yield case
    for n in range(3):
        for bits in range(32):
            config = sum(bit for i, bit in enumerate((LEVEL, INTERRUPT, PERIODIC, SET_VALUE, BITS_32)) if bits >> i & 1)
            for route in IOAPIC_PINS:
                case = Hpet(name)
                case.timer(n, config | route << 9)
                # Value-set clears itself; the specification does not say when.
                case.reads(0x100 + 0x20 * n, config | route << 9 | 0x30, 0x7FFF & ~SET_VALUE)
                case.reads(0x104 + 0x20 * n, 0xF00000)
                case.timer(n, 0)
                case.reads(0x100 + 0x20 * n, 0x30, 0x1FF)
                yield case
        for bit in range(64):
            case = Hpet(name)
            case.timer(n, 0, 1 << bit)
            case.reads_wide(0x108 + 0x20 * n, 1 << bit)
            case.timer(n, BITS_32, 1 << bit)
            case.reads(0x108 + 0x20 * n, 1 << bit & 0xFFFFFFFF)
            yield case
    for bit in range(64):
        for value in (1 << bit, (1 << 64) - 1 ^ 1 << bit):
            case = Hpet(name)
            case.write_wide(COUNTER, value)
            case.reads_wide(COUNTER, value)  # halted: it stays
            case.pause(10)
            case.reads_wide(COUNTER, value)
            yield case


def counting(name):
    """The counter against the power-management timer, from any value, over both carries; halted and let go again."""
    for start in (0, 0x12345678, 0xFFFFFF00, 0xFFFFFFFF, 0x1FFFFFF80, 0xFFFFFFFFFFFFFF00, 0x7FFFFFFF00000000):
        for pause in (300, 1000, 3000):
            for halts in range(3):
                case = Hpet(name)
                case.write_wide(COUNTER, start)
                case.write(CONFIG, ENABLE)
                case.count_and_time(0)
                case.pause(pause)
                for _ in range(halts):
                    case.write(CONFIG, 0)
                    case.keep(4, BASE + COUNTER)
                    case.measure(1)
                    case.pause(50)
                    case.keep(5, BASE + COUNTER)
                    case.subtract(4, 5)
                    case.ratio(4, 4, 2, 1, 0, "halted")  # 0
                    case.write(CONFIG, ENABLE)
                    case.subtract(0, 4)
                    case.count_and_time(0)
                    case.pause(pause)
                case.keep(2, BASE + COUNTER)
                case.subtract(2, 0)
                case.measure(1)
                case.ratio(2, 1, 1760, 63, 4 * 1760, "counts")
                case.pause(400)
                end = start + pause * 28
                case.reads(COUNTER + 4, end >> 32 if (start & 0xFFFFFFFF) + (pause + 600) * 28 * (halts + 1) < 1 << 32 else (start >> 32) + 1)
                case.write(CONFIG, 0)
                yield case


STARTS = (
    (0, 0x800), (0xFFFFF800, 0x100000010), (0xFFFFFF00, 0xFFFFFFFF), (0x55FFFFFF00, 0x5600000010), (0x1000, 0xFFF),
    (0, 1 << 40 | 1 << 30), (0, 1 << 40 | 0x100), (0x700000000, 0x100), (0xFFFFFF00, 0x80000000),
)  # fmt: skip


def matches(name):
    """The status of a level-triggered timer: set when the counter gets to the comparator, enabled or not, cleared by a one."""
    for n in range(3):
        for wide in (0, BITS_32):
            for interrupt in (0, INTERRUPT):
                for start, comparator in STARTS:
                    case = Hpet(name)
                    case.out(0x21, 0xFF)
                    for pin in IOAPIC_PINS:
                        case.add(chips.ENTRY, "BIB", pin, MASK | 0x30, 0)
                    case.write_wide(COUNTER, start)
                    case.timer(n, LEVEL | wide | interrupt | 20 << 9, comparator)
                    case.reads(STATUS, 0)
                    case.write(CONFIG, ENABLE)
                    case.pause(400)  # 11,000 counts
                    distance = (comparator - start) % (1 << 32) if wide else (comparator - start) % (1 << 64)
                    hit = distance < 10000 or wide and to_wrap(start) < 10000
                    case.reads(STATUS, hit << n)
                    case.write(STATUS, 7 ^ 1 << n)
                    case.reads(STATUS, hit << n)
                    case.write(STATUS, 1 << n)
                    case.reads(STATUS, 0)
                    case.pause(100)
                    case.reads(STATUS, 0)
                    case.write(CONFIG, 0)
                    yield case


def one_shot(name):
    """An interrupt when the counter gets there, by I/O APIC input or in place of requests 0 and 8."""
    for n in range(3):
        for route in (None, 20, 21, 23):
            if route is None and n == 2:
                continue
            for wide in (0, BITS_32):
                for start in (0, 0xFFFFF000, 0x3FFFFF000):
                    for distance in (0x1000, 0x4000, 0x20000, 0x31234):
                        case = Hpet(name)
                        vector = VECTORS[n] if route is None else 0x30 + route - 20
                        case.write_wide(COUNTER, start)
                        case.timer(n, INTERRUPT | wide | (route or 20) << 9, start + distance)
                        case.mark(0)
                        case.write(CONFIG, ENABLE | (LEGACY if route is None else 0))
                        for at in sorted({distance, to_wrap(start)} if wide and to_wrap(start) < distance else {distance}):
                            case.wait(vector)
                            case.span(0, scaled(at) - 4, scaled(at) + 8)
                        case.pause(200)
                        case.taken([])
                        case.write(CONFIG, 0)
                        case.timer(n, 0)
                        yield case


DISTANCES = ((0x2000,), (0x2000, 0x3000), (0x20000, 0x1800), (0x1800, 0x20000), (0x4000, -0x100), (0x3000, 0x3000, 0x3000))


def rearmed(name):
    """A comparator written while the counter runs: nearer, farther, again after its match, or behind the counter."""
    for n in range(3):
        for wide in (0, BITS_32):
            for route in (None, 20, 23):
                if route is None and n == 2:
                    continue
                vector = VECTORS[n] if route is None else 0x30 + route - 20
                comparator = BASE + 0x108 + 0x20 * n
                for distances in DISTANCES:
                    for together in (0, 1):
                        case = Hpet(name)
                        case.timer(n, INTERRUPT | wide | (route or 20) << 9, 1 << 31)
                        case.write(CONFIG, ENABLE | (LEGACY if route is None else 0))
                        for turn, distance in enumerate(distances):
                            case.mark(0)
                            case.ahead(comparator, BASE + COUNTER, distance)
                            if distance > 0 and not (together and turn < len(distances) - 1):
                                case.wait(vector)
                                case.span(0, scaled(distance) - 4, scaled(distance) + 8)
                        case.pause(100)
                        case.taken([])
                        case.write(CONFIG, 0)
                        case.timer(n, 0)
                        yield case


def periodic(name):
    """A period again and again; the accumulator moves on by it; value-set and the second comparator write."""
    for n in range(3):
        for route in (None, 20, 22):
            if route is None and n == 2:
                continue
            for wide in (0, BITS_32):
                for period in (0x2000, 0x5555, 0x20000):
                    for turns in (2, 3, 7):
                        case = Hpet(name)
                        vector = VECTORS[n] if route is None else 0x30 + route - 20
                        first = 0x3000
                        case.timer(n, 0, 0)  # the upper half, which two writes cannot set with the lower one
                        case.timer(n, INTERRUPT | PERIODIC | SET_VALUE | wide | (route or 20) << 9)
                        case.write(0x108 + 0x20 * n, first)
                        case.write(0x108 + 0x20 * n, period)
                        case.reads(0x108 + 0x20 * n, first)
                        case.mark(0)
                        case.write(CONFIG, ENABLE | (LEGACY if route is None else 0))
                        for turn in range(turns):
                            case.wait(vector)
                            at = first + turn * period
                            case.span(0, scaled(at) - 4, scaled(at) + 8)
                            case.reads(0x108 + 0x20 * n, at + period)
                        case.write(CONFIG, 0)
                        case.pause(100)
                        case.taken([])
                        case.timer(n, 0)
                        yield case


def level_triggered(name):
    """A level lasts until its status is cleared; the I/O APIC's remote IRR with it; disabling ends it."""
    for n in range(3):
        for route in IOAPIC_PINS:
            for end in ("status", "interrupt", "enable", "edge"):
                case = Hpet(name)
                vector = 0x30 + route - 20
                case.add(chips.ENTRY, "BIB", route, 1 << 15 | vector, 0)
                case.timer(n, LEVEL | INTERRUPT | route << 9, 0x2000)
                case.write(CONFIG, ENABLE)
                case.wait(vector)  # with its EOI: the level is still there
                case.taken([vector], flags=chips.ONCE)
                case.reads(STATUS, 1 << n)
                if end == "status":
                    case.write(STATUS, 1 << n)
                elif end == "interrupt":
                    case.timer(n, LEVEL | route << 9)
                elif end == "enable":
                    case.write(CONFIG, 0)
                else:
                    case.timer(n, INTERRUPT | route << 9)
                case.store(0xFEE000B0, 0)
                case.taken([])
                case.add(chips.ENTRY_READ, "B", route)
                case.expect(1 << 15 | vector, "entry")
                case.expect(0, "entry, upper half")
                case.write(CONFIG, 0)
                case.timer(n, 0)
                case.write(STATUS, 7)
                yield case


def legacy(name):
    """While timers 0 and 1 stand in, the 8254 and the real-time clock are not heard; timer 2 stays where it is."""
    for running in (0, ENABLE):
        for replaced in (0, LEGACY):
            for line, vector, port in ((0, VECTORS[0], 0x20), (8, VECTORS[1], 0xA0)):
                for timers in range(4):
                    case = Hpet(name)
                    for n in (0, 1):
                        if timers >> n & 1:
                            case.timer(n, INTERRUPT | 20 << 9, 1 << 50)
                    case.write(CONFIG, running | replaced)
                    if line == 0:
                        case.line(0, 1)
                    else:
                        case.cmos(0x0B, 0x02)
                        case.cmos(0x0A, 0x23)  # 122 µs
                        case.pause(1000)
                        case.cmos(0x0A, 0x20)
                        case.cmos(0x0B, 0x42)
                    case.read(port, 0 if replaced else 1, 1, "request")
                    case.taken([] if replaced else [vector], flags=chips.ONCE)
                    if line == 0:
                        case.line(0, 0)
                    else:
                        case.cmos(0x0B, 0x02)
                        case.add(chips.CMOS_READ, "BB", 0x0C, 0)
                        case.expect(0, "flags")
                    case.write(CONFIG, 0)
                    for n in (0, 1):
                        case.timer(n, 0)
                    case.out(0xA0, 0x20)
                    case.out(0x20, 0x20)
                    yield case


FAMILIES = (registers, counting, matches, one_shot, rearmed, periodic, level_triggered, legacy)


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(family.__name__)
