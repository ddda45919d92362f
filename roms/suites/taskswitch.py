"""Task switches: JMP, CALL, INT and IRET × directly and through gates × 16- and 32-bit TSS × privilege × busy bits × faults on
both sides of the switch × the T flag."""

from layout import *
import gates
import tasks
from machine import Fault
from transfers import iret

FRAME_IMAGE = "frame32.frame"
GATE, SLOT = FREE, FREE + 8
LAND16 = LAND + 0x20
STACKS16 = tuple(FREE + 0x40 + 9 * ring for ring in range(4))  # SS of 16-bit tasks: the upper half of ESP is undefined
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


def task(case, at, wide, ring=0, flags=2, eip=None, selectors=None, ldt=LDT_SEL, link=0, trap=0):
    """Fills a TSS."""
    eip = (LAND if wide else LAND16) if eip is None else eip
    data = DATAS[ring]
    stack = data if wide else STACKS16[ring]
    selectors = selectors or (data, CODES[ring], stack, data, data, data)
    case.put(at, link, 2)
    general = [0xA0A00001 + 0x01010101 * n for n in range(8)]
    general[4] = STACKS[ring] - 0x20
    if wide:
        for ring_below in range(3):
            case.put(at + 4 + 8 * ring_below, STACKS[ring_below])
            case.put(at + 8 + 8 * ring_below, DATAS[ring_below])
        case.put(at + 0x20, eip)
        case.put(at + 0x24, flags)
        for n in range(8):
            case.put(at + 0x28 + 4 * n, general[n])
        for n in range(6):
            case.put(at + 0x48 + 4 * n, selectors[n])
        case.put(at + 0x60, ldt)
        case.put(at + 0x64, trap | 0x68 << 16)
    else:
        for ring_below in range(3):
            case.put(at + 2 + 4 * ring_below, STACKS[ring_below] | DATAS[ring_below] << 16)
        case.put(at + 0x0E, eip, 2)
        case.put(at + 0x10, flags, 2)
        for n in range(8):
            case.put(at + 0x12 + 2 * n, general[n], 2)
        for n in range(4):
            case.put(at + 0x22 + 2 * n, selectors[n], 2)
        case.put(at + 0x2A, ldt, 2)


def tss(at, wide, busy=False, dpl=0, limit=None):
    """A TSS descriptor."""
    return descriptor(at, limit if limit is not None else 0x67 if wide else 0x2B, 0x80 | dpl << 5 | (9 if wide else 1) | busy << 1)


def land16(case):
    """The upper halves of registers are undefined after a switch to a 16-bit task: they are cleared, then INT 20h."""
    for n, name in enumerate(NAMES):

        def op(m, name=name):
            m.r[name] &= 0xFFFF
            m.eip = m.next

        case.code(LAND16 + 3 * n, bytes((0x0F, 0xB7, 0xC0 | n * 9)), op)
    case.land(LAND16 + 24)


def before(base, wide, cpl=0, flags=2):
    """A case in a 16- or 32-bit task."""
    case = base.copy()
    if not wide:
        task(case, TSS_A, False)
        case.gdt(TSS_A_SEL, tss(TSS_A, False, True))
    case.start(cpl, eflags=flags)
    land16(case)
    return case


def do(case, how, selector, nested=TSS_B_SEL):
    """Places the instruction that switches."""
    if how == "jmp":
        gates.transfer(case, 0, selector, 0x89ABCDEF)
    elif how == "call":
        gates.transfer(case, 1, selector, 0x89ABCDEF)
    elif how == "int":
        case.idt(0x21, gate(selector & ~3, 0, 0xE5))
        case.code(CODE, b"\xcd\x21", lambda m: m.int_n(0x21))
    elif how == "fault":
        case.idt(13, gate(selector & ~3, 0, 0x85))
        case.set(EAX, 0xFFF8)
        case.code(CODE, b"\x8e\xd8", gates.raise_gp)
    else:
        case.put(TSS_A, nested, 2)
        case.code(CODE, b"\xcf", lambda m: iret(m, 4))


HOWS = ("jmp", "call", "int", "fault", "iret")


def switches(base):
    """All kinds of switches between all kinds of tasks, into each ring, with flags."""
    for how in HOWS:
        for old in (True, False):
            for new in (True, False):
                for ring in range(4):
                    for cpl in range(4):
                        for flags in (2, 2 | IF | DF | NT | CF | IOPL, 2 | AC | ID | ZF):
                            for after in (2, 2 | IF | NT | OF, 2 | AC | ID | IOPL):
                                case = before(base, old, cpl, (flags | (NT if how == "iret" else 0)) & ~(NT if how != "iret" else 0))
                                task(case, TSS_B, new, ring, after)
                                case.gdt(TSS_B_SEL, tss(TSS_B, new, how == "iret", 3))
                                do(case, how, TSS_B_SEL | cpl)
                                yield case


def rights(base):
    """JMP and CALL: DPL × RPL × CPL of TSS descriptors and of task gates; INT: of gates."""
    for how in ("jmp", "call"):
        for cpl in range(4):
            for dpl in range(4):
                for rpl in range(4):
                    for by_gate in (False, True):
                        case = before(base, True, cpl)
                        task(case, TSS_B, True)
                        case.gdt(TSS_B_SEL, tss(TSS_B, True, False, 0 if by_gate else dpl))
                        case.gdt(GATE, gate(TSS_B_SEL | 3, 0, 0x85 | dpl << 5))
                        do(case, how, (GATE if by_gate else TSS_B_SEL) | rpl)
                        yield case
    for cpl in range(4):
        for dpl in range(4):
            for present in (0, 0x80):
                case = before(base, True, cpl)
                task(case, TSS_B, True)
                case.gdt(TSS_B_SEL, tss(TSS_B, True))
                do(case, "int", TSS_B_SEL)
                case.idt(0x21, gate(TSS_B_SEL, 0, 5 | present | dpl << 5))
                yield case


def descriptors(base):
    """What stands where a TSS descriptor should: every access byte, for each kind of switch; gates that are not present."""
    for how in HOWS:
        for by_gate in (False, True):
            if by_gate and how not in ("jmp", "call"):
                continue
            for access in range(0x100):
                if not by_gate and how in ("jmp", "call") and access & 0x1F in (4, 5, 12):
                    continue
                if not by_gate and how in ("jmp", "call") and access & 0x18 == 0x18:
                    continue
                case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                task(case, TSS_B, access & 8)
                case.gdt(SLOT, descriptor(TSS_B, 0x67, access))
                case.gdt(GATE, gate(SLOT, 0, 0x85))
                do(case, how, GATE if by_gate else SLOT, SLOT)
                yield case
        for selector in (*range(4), 0x200, 0x7C, 0x84, 0x5C):
            for direct in (False, True):
                if not direct and how not in ("jmp", "call") or direct and how in ("jmp", "call") and selector < 4:
                    continue
                case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                task(case, TSS_B, True)
                case.gdt(0x5C, tss(TSS_B, True, how == "iret"))
                case.gdt(GATE, gate(selector, 0, 0x85))
                do(case, how, selector if direct else GATE, selector)
                yield case
        for present in (0x05, 0x85):
            for limit in (0x2A, 0x2B, 0x66, 0x67, 0x68, 0xFFFF):
                for wide in (True, False):
                    case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                    task(case, TSS_B, wide)
                    case.gdt(SLOT, tss(TSS_B, wide, how == "iret", 0, limit))
                    case.gdt(GATE, gate(SLOT, 0, present))
                    do(case, how, GATE if how in ("jmp", "call") else SLOT, SLOT)
                    if how not in ("jmp", "call") and present == 5:
                        continue
                    yield case


def faults_after(base):
    """Faults that belong to the new task: each selector of its TSS × what it names, EIP, LDT. Task gates catch them."""
    bad = (
        (0, None), (3, None), (0x200, None), (0x84, None), (SLOT, 0x93), (SLOT, 0x13), (SLOT, 0x91), (SLOT, 0x9B), (SLOT, 0x1B),
        (SLOT, 0x99), (SLOT, 0x9F), (SLOT, 0xF3), (SLOT, 0xFB), (SLOT, 0xFF), (SLOT | 3, 0xF3), (SLOT | 3, 0xFB), (SLOT | 3, 0x93),
        (SLOT | 1, 0xB3), (SLOT, 0x82), (SLOT, 0x02), (SLOT, 0x8B), (SLOT, 0x8C), (SLOT, 0x8E), (SLOT | 4, None), (SLOT | 3, 0x7B),
        (SLOT | 3, 0x73),
    )  # fmt: skip
    for how in HOWS:
        for wide in (True, False):
            for place in range(7 if wide else 5):
                for ring in (0, 3):
                    for selector, access in bad:
                        if place == 1 and selector & 3 != ring:
                            continue  # SS would not match either, and the order of the two is nobody's promise
                        case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                        selectors = [DATAS[ring], CODES[ring], *[DATAS[ring]] * 4]
                        selectors[2] = DATAS[ring] if wide else STACKS16[ring]
                        ldt = LDT_SEL
                        if place == 6 or not wide and place == 4:
                            ldt = selector
                        else:
                            selectors[place] = selector
                        task(case, TSS_B, wide, ring, 2, None, selectors, ldt)
                        if access is not None:
                            limit, flags = (0xFFFFF, 0xC) if wide or place != 2 else (0xFFFF, 0)
                            raw = descriptor(LDT if access & 0x1F == 2 else 0, 0x7F, access)
                            case.gdt(SLOT, descriptor(0, limit, access, flags) if access & 16 else raw)
                        case.gdt(TSS_B_SEL, tss(TSS_B, wide, how == "iret"))
                        catch(case)
                        do(case, how, TSS_B_SEL)
                        if how == "fault":
                            catch(case, (8, 10, 11, 12))
                        yield case
            for eip in (0x10000, 0xFFFF, 0x10000 | LAND):
                case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                case.gdt(SLOT, descriptor(0, 0xFFFF if eip > 0xFFFF else 0xFFFE, 0x9B, 4))
                selectors = [DATAS[0], SLOT, DATAS[0] if wide else STACKS16[0], *[DATAS[0]] * 3]
                task(case, TSS_B, wide, 0, 2, eip, selectors)
                case.gdt(TSS_B_SEL, tss(TSS_B, wide, how == "iret"))
                catch(case)
                do(case, how, TSS_B_SEL)
                if how == "fault":
                    catch(case, (8, 10, 11, 12))
                if (wide or eip == 0xFFFF) and how != "fault":
                    yield case


def catch(case, vectors=(8, 10, 11, 12, 13)):
    """A task of its own for faults."""
    task(case, TSS_C, True, 0, 2)
    case.put(TSS_C + 0x38, STACKS[0] - 0x40)
    case.gdt(TSS_C_SEL, tss(TSS_C, True))
    for vector in vectors:
        case.idt(vector, gate(TSS_C_SEL, 0, 0x85))


def trap_flag(base):
    """The T flag of the new task: #DB before its first instruction, DR6.BT."""
    for how in HOWS:
        for ring in range(4):
            for trap in (0, 1, 0xFFFE, 0xFFFF):
                for flags in (2, 2 | IF | NT):
                    case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
                    task(case, TSS_B, True, ring, flags, trap=trap)
                    case.put(TSS_B + 0x64, trap, 2)
                    case.gdt(TSS_B_SEL, tss(TSS_B, True, how == "iret"))
                    do(case, how, TSS_B_SEL)
                    yield case


def nested(base):
    """There and back: CALL or INT, then IRET in the new task; chains of three; the link that IRET finds changed."""
    for how in ("call", "int"):
        for old in (True, False):
            for new in (True, False):
                for link in (None, 0, 0x200, TSS_B_SEL, TSS_C_SEL, CODES[0], TSS_A_SEL | 4):
                    for cpl in (0, 3):
                        case = before(base, old, cpl)
                        task(case, TSS_B, new)
                        case.gdt(TSS_B_SEL, tss(TSS_B, new, False, 3))
                        catch(case, (10, 11, 13))
                        do(case, how, TSS_B_SEL | cpl)
                        # The new task: MOV WORD [TSS_B], link; IRET.
                        at = DATA
                        if link is not None:
                            code = b"\x66\xc7\x05" + TSS_B.to_bytes(4, "little") + link.to_bytes(2, "little")

                            def store(m, link=link):
                                m.write(TSS_B, link, 2)
                                m.eip = m.next

                            case.code(at, code, store)
                            at += len(code)
                        case.code(at, b"\xcf", lambda m: iret(m, 4))
                        case.land(at + 1)
                        case.put(TSS_B + (0x20 if new else 0x0E), DATA, 2)
                        # Back in the first task: clear upper halves, which a 16-bit task has lost.
                        length = 7 if how == "call" else 2
                        for n, name in enumerate(NAMES):

                            def op(m, name=name):
                                m.r[name] &= 0xFFFF
                                m.eip = m.next

                            case.code(CODE + length + 3 * n, bytes((0x0F, 0xB7, 0xC0 | n * 9)), op)
                        case.land(CODE + length + 24)
                        yield case


def breakpoints(base):
    """DR7 loses its local enables, and only those."""
    for how in HOWS:
        for dr7 in (0x400, 0x4FF, 0x7FF, 0x4AA, 0x455, 0x401, 0x402):
            case = before(base, True, 0, 2 | (NT if how == "iret" else 0))
            task(case, TSS_B, True)
            case.gdt(TSS_B_SEL, tss(TSS_B, True, how == "iret"))
            for n in range(4):
                case.set(DR0 + n, 0x50000 + 0x1000 * n)
            case.set(DR7, dr7)
            do(case, how, TSS_B_SEL)
            yield case


FAMILIES = (breakpoints, switches, rights, descriptors, faults_after, trap_flag, nested)


def cases():
    """All of them."""
    base = usual()
    for ring in range(4):
        base.gdt(STACKS16[ring], descriptor(0, 0xFFFF, 0x93 | ring << 5, 0))
    for family in FAMILIES:
        for case in family(base):
            case.name = family.__name__
            yield case
