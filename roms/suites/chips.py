"""Cases of chips: programs of port and memory accesses, and what must be read. The numbers are those of framechips.asm.

A suite's file has a reference model of its chip, written from the data sheet, and drives both at once: each method of `Case`
adds an operation to the program; where the operation is recorded, the model's answer goes into the record beside it.
"""

import struct

from layout import HERE, record_hash

MAGIC = 0x50494843
PERIODIC = 1
EOI, ONCE, PIC_EOI = 1, 2, 4
(
    END, OUT, IN, STORE, LOAD, POLL, LINE, TAKE, SLEEP, TICKS, CLOCK, COUNTER, MARK, SPAN, UNTIL, UNTIL32, PAUSE, MEASURE,
    RATIO, WRMSR, RDMSR, DEADLINE, KEEP, CMOS_WRITE, CMOS_READ, LOOK, SETS, SUBTRACT,
    ENTRY, ENTRY_READ, AHEAD,
) = range(31)  # fmt: skip


class Case:
    """A program, its record as the data sheet has it, and a label for each dword of that."""

    def __init__(self, name=""):
        self.name = name
        self.program = bytearray()
        self.record = [0]
        self.labels = ["tries"]

    def add(self, operation, form, *values):
        """An operation with what belongs to it."""
        self.program += struct.pack("<B" + form, operation, *values)

    def expect(self, value, label):
        """The next dword of the record."""
        self.record.append(value & 0xFFFFFFFF)
        self.labels.append(f"{len(self.record) - 1}: {label}")

    def out(self, port, value):
        """OUT."""
        self.add(OUT, "HB", port, value)

    def read(self, port, value, mask=0xFF, label=None):
        """IN, masked."""
        self.add(IN, "HB", port, mask)
        self.expect(value & mask, label or f"port {port:x}")

    def store(self, address, value):
        """A dword to memory."""
        self.add(STORE, "II", address, value & 0xFFFFFFFF)

    def load(self, address, value, mask=0xFFFFFFFF, label=None):
        """A dword from memory, masked."""
        self.add(LOAD, "II", address, mask)
        self.expect(value & mask, label or f"[{address:x}]")

    def line(self, number, level):
        """An interrupt request line."""
        self.add(LINE, "BB", number, level)

    def taken(self, vectors, operation=TAKE, flags=0):
        """Lets interrupts in: these come."""
        self.add(operation, "B", flags)
        for vector in vectors:
            self.expect(vector, "taken")
        self.expect(0xFFFF0000 | len(vectors), "interrupts")

    def ticks(self, count):
        """So many pulses of the 8254's clock."""
        while count:
            step = min(count, 100)
            self.add(TICKS, "B", step)
            count -= step

    def mark(self, slot):
        """A slot becomes the power-management timer."""
        self.add(MARK, "B", slot)

    def span(self, slot, least, most, label="span"):
        """The time since a slot's mark."""
        self.add(SPAN, "BII", slot, least, most)
        self.expect(least, label)

    def until(self, port, mask, value):
        """Waits for a port."""
        self.add(UNTIL, "HBB", port, mask, value)

    def until32(self, address, mask, value):
        """Waits for a dword in memory."""
        self.add(UNTIL32, "III", address, mask, value)

    def pause(self, counts):
        """So many counts of the power-management timer."""
        self.add(PAUSE, "I", counts)

    def measure(self, slot):
        """A slot becomes the time since it was marked."""
        self.add(MEASURE, "B", slot)

    def keep(self, slot, address):
        """A slot becomes the dword at an address."""
        self.add(KEEP, "BI", slot, address)

    def ratio(self, a, b, n, d, tolerance, label="ratio"):
        """Slots: a / b is n / d, within a tolerance of a * d."""
        self.add(RATIO, "BBIII", a, b, n, d, tolerance)
        self.expect(0, label)

    def ahead(self, to, of, counts):
        """A dword in memory becomes another and so much."""
        self.add(AHEAD, "III", to, of, counts & 0xFFFFFFFF)

    def subtract(self, a, b):
        """A slot less another."""
        self.add(SUBTRACT, "BB", a, b)

    def cmos(self, register, value):
        """A byte to the real-time clock."""
        self.add(CMOS_WRITE, "BB", register, value)

    def cmos_read(self, register, value, mask=0xFF, label=None):
        """A byte from it."""
        self.add(CMOS_READ, "BB", register, mask)
        self.expect(value & mask, label or f"register {register:x}")


def image(prologue, setup, cases):
    """The ROM: the prologue and the cases, then the frame in the last 64 KiB."""
    out = bytearray(struct.pack("<IIIH", MAGIC, len(cases), setup, len(prologue.program) + 1) + prologue.program + b"\0")
    for case in cases:
        program = bytes(case.program) + b"\0"
        out += struct.pack("<IH", record_hash(case.record), len(program)) + program
    out += bytes(-len(out) % 0x10000)
    kernel = bytearray((HERE / "framechips.frame").read_bytes())
    struct.pack_into("<I", kernel, 0xFFE0, (1 << 32) - len(out) - len(kernel))
    return bytes(out + kernel)


def explain(cases, log):
    """For each case in a run's log: the first dwords that differ from the data sheet."""
    from collections import Counter

    kinds = Counter()
    for line in log.read_text(errors="replace").splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "case" or not all(len(word) == 8 for word in words[1:]):
            continue
        case, got = cases[int(words[1], 16) - 1], [int(word, 16) for word in words[2:]]
        first = next((n for n, pair in enumerate(zip(case.record, got)) if pair[0] != pair[1]), min(len(got), len(case.record)))
        label = case.labels[first].split(": ")[-1] if first < len(case.labels) else "too much"
        kinds[(case.name, label)] += 1
        if kinds[(case.name, label)] <= 3:
            print(f"case {int(words[1], 16)} {case.name} {getattr(case, 'what', '')}")
            for n in range(max(0, first - 3), min(first + 4, max(len(got), len(case.record)))):
                want = f"{case.record[n]:x}" if n < len(case.record) else "-"
                have = f"{got[n]:x}" if n < len(got) else "-"
                name = case.labels[n] if n < len(case.labels) else "?"
                print(f"    {name}: data sheet {want}, run {have}{' <' if want != have else ''}")
    for kind, count in kinds.most_common():
        print(count, kind)
