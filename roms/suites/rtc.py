"""The MC146818 real-time clock (Motorola MC146818 data sheet) with the century byte of PC boards at 32h: the calendar in BCD and
binary, 12 and 24 hours, over every rollover; alarms, flags and their enables, SET, periodic rates, update cycles.

A case holds the divider chain in reset while it sets the clock; the first update comes half a second after it is let go. Left
out: daylight saving, the square wave, other crystals, values that are no time, and the year 2100, which the data sheet's
calendar has a leap day in and a century byte has not."""

import chips
from dice import Dice

SETUP = 0
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 4, 2
FORMS = (HOURS_24, 0, HOURS_24 | BINARY, BINARY)
SECOND = 3579545  # counts of the power-management timer
VECTOR = 0x50


def days_in(month, year):
    """The length of a month."""
    if month == 2:
        return 29 if year % 4 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


class Clock:
    """Time and date as numbers; their bytes in any form."""

    def __init__(self, year, month, day, hour=12, minute=0, second=0, weekday=None):
        if weekday is None:  # the true one: Sunday is 1
            weekday = (sum(365 + (y % 4 == 0) for y in range(1972, year)) + sum(days_in(m, year) for m in range(1, month)) + day + 5) % 7 + 1
        self.now = [second, minute, hour, weekday, day, month, year]

    def step(self):
        """An update."""
        second, minute, hour, weekday, day, month, year = self.now
        second += 1
        if second == 60:
            second, minute = 0, minute + 1
        if minute == 60:
            minute, hour = 0, hour + 1
        if hour == 24:
            hour, weekday, day = 0, weekday % 7 + 1, day + 1
        if day > days_in(month, year):
            day, month = 1, month + 1
        if month == 13:
            month, year = 1, year + 1
        self.now = [second, minute, hour, weekday, day, month, year]


def byte(number, form):
    """A number as the clock shows it."""
    return number if form & BINARY else number // 10 << 4 | number % 10


def hour_byte(hour, form):
    """Hours, of which the twelve-hour form marks the afternoon."""
    if form & HOURS_24:
        return byte(hour, form)
    return byte((hour + 11) % 12 + 1, form) | (0x80 if hour > 11 else 0)


def bytes_of(clock, form):
    """(register, byte) of everything."""
    second, minute, hour, weekday, day, month, year = clock.now
    yield 0, byte(second, form)
    yield 2, byte(minute, form)
    yield 4, hour_byte(hour, form)
    yield 6, byte(weekday, form)
    yield 7, byte(day, form)
    yield 8, byte(month, form)
    yield 9, byte(year % 100, form)
    yield 0x32, byte(year // 100, form)


NAMES = {0: "seconds", 2: "minutes", 4: "hours", 6: "weekday", 7: "day", 8: "month", 9: "year", 0x32: "century"}


def prologue():
    """The 8259s let request 8 through; the chain is held, nothing is flagged; OUT 0 is low."""
    case = chips.Case()
    case.out(0x43, 0x30)
    for port, base, identity, mask in ((0x20, 0x40, 4, 0xFB), (0xA0, VECTOR, 2, 0xFE)):
        case.out(port, 0x11)
        for word in (base, identity, 1, mask):
            case.out(port + 1, word)
        case.out(port, 0x0A)
    case.cmos(0x0A, 0x70)
    case.cmos(0x0B, SET | HOURS_24)
    case.add(chips.CMOS_READ, "BB", 0x0C, 0)
    case.add(chips.CMOS_READ, "BB", 0x0C, 0)
    return case


class Watch(chips.Case):
    """A clock that is set and let go."""

    def __init__(self, name):
        super().__init__(name)
        self.record += [0, 0]  # the prologue's reads
        self.labels += ["", ""]

    def begin(self, clock, form, enables=UIE, rate=0, alarm=(4, 4, 4)):
        """Sets everything, then lets the chain go."""
        self.what = f"{clock.now} form {form:x} enables {enables:x} rate {rate:x} alarm {alarm}"
        self.cmos(0x0B, SET | form)
        for register, value in bytes_of(clock, form):
            self.cmos(register, value)
        for register, value in zip((1, 3, 5), alarm):
            self.cmos(register, value)
        self.cmos(0x0B, form | enables)
        self.cmos(0x0A, 0x20 | rate)

    def wait(self):
        """HLT until request 8."""
        self.taken([VECTOR], chips.SLEEP)
        self.out(0xA0, 0x20)
        self.out(0x20, 0x20)

    def glass(self, turns, count=0):
        """Sleeps for so many periods of counter 0, 54.925 ms each or of a count."""
        self.out(0x43, 0x36)
        self.out(0x40, count & 0xFF)
        self.out(0x40, count >> 8)
        self.out(0x20, 0x20)
        self.out(0x21, 0xFA)
        for _ in range(turns + 1):  # OUT rises at the control word, too
            self.taken([0x40], chips.SLEEP)
            self.out(0x20, 0x20)
        self.out(0x21, 0xFB)

    def flags(self, value, mask=0xFF):
        """Register C."""
        self.cmos_read(0x0C, value, mask, "flags")

    def show(self, clock, form):
        """All bytes of time and date."""
        for register, value in bytes_of(clock, form):
            self.cmos_read(register, value, 0xFF, NAMES[register])


def updated(name, clock, form):
    """One update."""
    case = Watch(name)
    case.begin(clock, form)
    case.wait()
    case.flags(0x90, 0xB0)
    clock.step()
    case.show(clock, form)
    return case


def seconds(name):
    """Each second."""
    for form in FORMS:
        for second in range(60):
            yield updated(name, Clock(2026, 5, 17, 9, second * 7 % 60, second), form)


def minutes(name):
    """The end of each minute."""
    for form in FORMS:
        for minute in range(60):
            yield updated(name, Clock(2026, 5, 17, minute % 24, minute, 59), form)


def hours(name):
    """The end of each hour, in each month."""
    for form in FORMS:
        for hour in range(24):
            for month in range(1, 13):
                yield updated(name, Clock(2026, month, 17, hour, 59, 59), form)


def weekdays(name):
    """Each day of the week, which the clock counts whatever the date is."""
    for form in FORMS:
        for day in (1, 14, 28, 31):
            for weekday in range(1, 8):
                yield updated(name, Clock(2026, 5, day, 23, 59, 59, weekday), form)


def days(name):
    """Midnight on each day of a month, and at the end of each month in leap years and others."""
    for form in FORMS:
        for day in range(1, 31):
            yield updated(name, Clock(2026, 10, day, 23, 59, 59), form)
        for year in (1999, 2000, 2003, 2004, 2024, 2026, 2096, 2097):
            for month in range(1, 13):
                yield updated(name, Clock(year, month, days_in(month, year), 23, 59, 59), form)


def leap_days(name):
    """The 28th of February of each year of a century, and the 29th where there is one; each New Year's Eve."""
    for year in range(2000, 2100):
        form = FORMS[year % 4 if year % 3 else (year + 1) % 4]
        yield updated(name, Clock(year, 2, 28, 23, 59, 59), form)
        if days_in(2, year) == 29:
            for form in FORMS:
                yield updated(name, Clock(year, 2, 29, 23, 59, 59), form)
        yield updated(name, Clock(year, 12, 31, 23, 59, 59), form)


def alarms(name):
    """Each alarm byte equal, different, or "don't care"; each code for that."""
    for form in FORMS:
        for start in ((2026, 5, 17, 9, 30, 20), (2026, 5, 17, 11, 59, 59), (2026, 5, 17, 23, 59, 59), (2026, 5, 17, 20, 7, 59)):
            for which in range(64):
                clock = Clock(*start)
                clock.step()
                second, minute, hour = clock.now[:3]
                alarm, matches = [], True
                for place, (number, limit) in enumerate(((second, 60), (minute, 60), (hour, 24))):
                    kind = which >> 2 * place & 3
                    show = hour_byte if place == 2 else byte
                    if kind == 0:
                        alarm.append(show(number, form))
                    elif kind == 1:
                        alarm.append(show((number + (12 if place == 2 else 1 + which % 7)) % limit, form))
                        matches = False
                    else:
                        alarm.append((0xFF, 0xC0)[kind & 1])
                case = Watch(name)
                case.begin(Clock(*start), form, UIE, 0, alarm)
                case.wait()
                case.flags(0x90 | (AIE if matches else 0), 0xB0)
                case.flags(0, 0xB0)
                yield case
    for code in range(0xC0, 0x100):
        for place in range(3):
            clock = Clock(2026, 5, 17, 9, 30, 20)
            alarm = [0x21, 0x30, 0x09]
            alarm[place] = code
            case = Watch(name)
            case.begin(clock, HOURS_24, AIE, 0, alarm)
            case.wait()
            case.flags(0xB0, 0xB0)
            yield case


def alarm_waits(name):
    """The alarm some seconds or minutes away, waited for by its interrupt alone."""
    for form in FORMS:
        for ahead in (2, 3, 5, 10):
            for wild in range(4):
                clock = Clock(2026, 12, 31, 23, 59, 57)
                for _ in range(ahead):
                    clock.step()
                second, minute, hour = clock.now[:3]
                if wild & 1 and clock.now[1] != 59 and ahead > 4:
                    continue
                alarm = [byte(second, form), 0xFF if wild & 1 else byte(minute, form), 0xC5 if wild & 2 else hour_byte(hour, form)]
                case = Watch(name)
                case.begin(Clock(2026, 12, 31, 23, 59, 57), form, AIE, 0, alarm)
                case.wait()
                case.flags(0xB0, 0xB0)
                case.show(clock, form)
                yield case


def flags(name):
    """Flags are set whether enabled or not; IRQF and the request are what is enabled, at once, and until register C is read."""
    for rate in (0, 6, 8, 13):
        for alarm in (0, 1):
            for first in range(0, 0x80, 0x10):
                for later in range(0, 0x80, 0x10):
                    case = Watch(name)
                    case.out(0xA1, 0xFF)
                    clock = Clock(2026, 5, 17, 9, 30, 20)
                    case.begin(clock, HOURS_24, first, rate, (0x21 if alarm else 0x25, 0x30, 0x09))
                    case.glass(10)
                    case.cmos_read(0, 0x21, 0xFF, "seconds")
                    raised = UIE | (AIE if alarm else 0) | (PIE if rate else 0)
                    line = bool(raised & first)
                    case.read(0xA0, line, 1, "request 8")
                    case.cmos(0x0B, HOURS_24 | later)
                    line = bool(raised & later)
                    case.read(0xA0, line, 1, "request 8")
                    case.flags(raised | (0x80 if line else 0))
                    case.read(0xA0, 0, 1, "request 8")
                    case.flags(0, 0x30)
                    yield case


def rates(name):
    """Periodic interrupts against the power-management timer: from one to the next, and over several."""
    for rate in range(1, 16):
        cycles = 1 << (rate - 1) if rate > 2 else 1 << (rate + 6)
        for turns in range(1, 12 if rate < 12 else 4):
            for form in (HOURS_24, BINARY):
                case = Watch(name)
                case.begin(Clock(2026, 5, 17), form, PIE, rate)
                case.wait()
                case.mark(0)
                case.flags(0xC0, 0xC0)
                for _ in range(turns):
                    case.wait()
                    case.flags(0xC0, 0xC0)
                counts = turns * cycles * SECOND // 32768
                case.span(0, counts - 12, counts + 12)
                yield case


def updates(name):
    """The first update half a second after the chain is let go, then one each second; UIP from 244 µs before it to its end."""
    for form in FORMS:
        for turns in range(4):
            case = Watch(name)
            clock = Clock(2026, 5, 17, 23, 59, 58)
            case.begin(clock, form)
            case.mark(0)
            case.wait()
            case.flags(0x90)
            case.span(0, SECOND // 2 - 112, SECOND // 2 + 7200, "half a second")  # a crystal cycle, an update cycle
            for _ in range(turns):
                case.mark(1)
                case.wait()
                case.flags(0x90)
                case.span(1, SECOND - 40, SECOND + 40, "a second")
            yield case
        for turns in range(3):
            case = Watch(name)
            case.begin(Clock(2026, 5, 17), form)
            for _ in range(turns):
                case.wait()
                case.flags(0x90)
            case.cmos_read(0x0A, 0, 0x80, "UIP")
            case.glass(*((19, 62600) if turns else (10, 59300)))  # 996.8 ms, 497 ms
            case.cmos_read(0x0A, 0, 0x80, "UIP")
            case.out(0x70, 0x0A)
            case.until(0x71, 0x80, 0x80)
            case.mark(0)
            case.wait()
            case.span(0, 7975 - 120, 7975 + 120, "UIP to UF")
            case.cmos_read(0x0A, 0, 0x80, "UIP")
            case.flags(0x90)
            yield case


def set_bit(name):
    """SET stops updates and clears UIE; time goes on where it stood; a held chain does the same."""
    for form in FORMS:
        for enables in (0, UIE, AIE, UIE | AIE | PIE):
            for held in (0, 1):
                case = Watch(name)
                clock = Clock(2026, 5, 17, 9, 59, 59)
                case.begin(clock, form, enables & ~PIE, 0, (0xFF, 0xFF, 0xFF))
                if held:
                    case.cmos(0x0A, 0x70)
                else:
                    case.cmos(0x0B, SET | form | enables)
                    case.cmos_read(0x0B, SET | form | enables & ~UIE)
                case.pause(50)
                case.glass(27)
                case.show(clock, form)
                case.cmos_read(0x0A, 0, 0x80, "UIP")
                case.flags(0, 0x30)
                case.cmos(0x0B, SET | form)
                case.cmos(0x0A, 0x70)
                case.cmos(0x0B, form | UIE)
                case.cmos(0x0A, 0x20)
                case.wait()
                clock.step()
                case.show(clock, form)
                case.flags(0x90, 0x90)
                yield case


def registers(name):
    """What reads back: B, A without UIP, C and D not at all, the RAM."""
    for value in range(0x100):
        case = Watch(name)
        case.cmos(0x0B, HOURS_24)
        case.cmos(0x0B, value)
        case.cmos_read(0x0B, value & ~UIE if value & SET else value)
        yield case
        if value < 0x80:
            case = Watch(name)
            case.cmos(0x0A, value)
            case.cmos_read(0x0A, value, 0x7F)
            yield case
        case = Watch(name)
        case.cmos(0x0D, value)
        case.cmos(0x0C, value)
        case.cmos_read(0x0D, 0x80)
        case.cmos_read(0x0C, 0)
        for register in range(0x0E, 0x80, 5):
            case.cmos(register + value % 5 if register + value % 5 < 0x80 else 0x7F, value ^ register)
        for register in range(0x0E, 0x80, 5):
            if register + value % 5 < 0x80:
                case.cmos_read(register + value % 5, value ^ register)
        yield case


def several(name):
    """Some updates from any date."""
    for seed in range(300):
        dice = Dice(seed + 1000)
        year, month = 1980 + dice.below(118), 1 + dice.below(12)
        day = dice.of((1, 15, days_in(month, year)))
        hour, minute = dice.of((0, 11, 12, 23, dice.below(24))), dice.of((0, 59, dice.below(60)))
        clock = Clock(year, month, day, hour, minute, dice.of((0, 57, 58, 59)))
        form = dice.of(FORMS)
        case = Watch(name)
        case.begin(clock, form)
        for _ in range(1 + dice.below(4)):
            case.wait()
            case.flags(0x90, 0x90)
            clock.step()
            case.show(clock, form)
        yield case


FAMILIES = (seconds, minutes, hours, weekdays, days, leap_days, alarms, alarm_waits, flags, rates, updates, set_bit, registers, several)


def cases():
    """All of them."""
    for family in FAMILIES:
        yield from family(family.__name__)
