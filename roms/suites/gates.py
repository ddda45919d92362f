"""Gates: call gates, direct far transfers, interrupts through the IDT, returns; by type × DPL × CPL × RPL × conforming × width × stack."""

from layout import *
from transfers import call_far, iret, jmp_far, ret_far

FRAME_IMAGE = "frame32.frame"
TARGET, GATE, STACK = FREE, FREE + 8, FREE + 16


def far(opcode, selector, offset, size=4):
    """CALL or JMP ptr16:32 or ptr16:16 in 32-bit code."""
    prefix = b"" if size == 4 else b"\x66"
    return prefix + bytes([opcode]) + offset.to_bytes(size, "little") + selector.to_bytes(2, "little")


TRANSFERS = ((0xEA, jmp_far), (0x9A, call_far))


def transfer(case, how, selector, offset=LAND, size=4):
    """Places the far JMP (0) or CALL (1)."""
    opcode, model = TRANSFERS[how]
    case.code(CODE, far(opcode, selector, offset, size), lambda m: model(m, selector, offset, size))


def code_rights(dpl, conforming, present=True, readable=True):
    """The access byte of a code segment."""
    return 0x19 | (0x80 if present else 0) | dpl << 5 | (4 if conforming else 0) | (2 if readable else 0)


def direct(base):
    """JMP and CALL straight to a descriptor: every type × DPL × RPL × CPL × present, by GDT and LDT."""
    for cpl in range(4):
        for access in range(0x100):
            system = not access & 0x10
            if system and access & 15 in (1, 3, 4, 5, 9, 11, 12):
                continue  # gates and tasks have their own lists
            for rpl in range(4):
                for how in (0, 1):
                    for table in (0, 4):
                        if table and access & 3 != 3:
                            continue
                        selector = (0x40 if table else TARGET) | table | rpl
                        case = base.copy()
                        case.start(cpl)
                        case.gdt(selector, descriptor(0, 0xFFFFF, access, 0xC))
                        transfer(case, how, selector)
                        yield case


def edges(base):
    """Null selectors, table limits, EIP at the limit of the segment, both widths."""
    for cpl in (0, 3):
        for how in (0, 1):
            for selector in (*range(4), 0x200 | cpl, 0x1F8 | 4, 0x78 | 4 | cpl, 0x80 | 4, 0xFFF8, 0xFFFF):
                case = base.copy()
                case.start(cpl)
                case.gdt(0x7C, descriptor(0, 0xFFFFF, code_rights(cpl, False), 0xC))
                transfer(case, how, selector)
                yield case
            for limit in (LAND - 1, LAND, LAND + 1, LAND + 2):
                for size in (2, 4):
                    for big in (0, 4):
                        case = base.copy()
                        case.start(cpl)
                        case.gdt(TARGET, descriptor(0, limit, code_rights(cpl, False), big))
                        transfer(case, how, TARGET | cpl, LAND, size)
                        if limit > LAND:
                            yield case
                        elif limit < LAND:
                            yield case
            for offset in (0x10000, 0x10000 | LAND, 0xFFFFFFFF):
                case = base.copy()
                case.start(cpl)
                case.gdt(TARGET, descriptor(0, 0xFFFF, code_rights(cpl, False), 4))
                transfer(case, how, TARGET | cpl, offset)
                yield case


def call_gates(base):
    """Through a call gate: its width × present × DPL × RPL × CPL × the target's DPL × conforming × present."""
    for cpl in range(4):
        for how in (0, 1):
            for kind in (4, 12):
                for gate_dpl in range(4):
                    for rpl in range(4):
                        for dpl in range(4):
                            for conforming in (False, True):
                                case = base.copy()
                                case.start(cpl)
                                case.gdt(TARGET, descriptor(0, 0xFFFFF, code_rights(dpl, conforming), 0xC))
                                case.gdt(GATE, gate(TARGET, LAND, 0x80 | gate_dpl << 5 | kind, (cpl * 4 + dpl) % 5))
                                transfer(case, how, GATE | rpl, 0x12345678)
                                yield case


def call_gate_faults(base):
    """What a gate leads to when it is wrong: selectors, types, presence, offsets, and two faults at once."""
    for cpl in range(4):
        for how in (0, 1):
            for kind in (4, 12):
                for gate_present in (0, 0x80):
                    for selector in (0, 3, TARGET, TARGET | 3, 0x200, 0x7C, 0x84, DATAS[0], TSS_A_SEL, LDT_SEL, GATE):
                        for access in (0x9B, 0x1B, 0x93, 0x13, 0xFB, 0x7B, 0x9F, 0x1F, 0x99, 0x82, 0x8C):
                            if selector & 0xFFFC != TARGET and access != 0x9B:
                                continue
                            for offset in (LAND, 0x10000 | LAND):
                                case = base.copy()
                                case.start(cpl)
                                case.gdt(TARGET, descriptor(0, 0xFFFF, access, 0x4))
                                case.gdt(GATE, gate(selector, offset, gate_present | 0x60 | kind, 1))
                                transfer(case, how, GATE | cpl)
                                yield case


def inner_stacks(base):
    """The stack of the inner ring: every kind of selector and descriptor, its room to the byte, the TSS's limit."""
    for kind in (4, 12):
        for dpl in (1, 2):
            # Which descriptor.
            for access in range(0x100):
                case = base.copy()
                case.start(3)
                case.gdt(STACK, descriptor(0, 0xFFFFF, access, 0xC))
                case.put(TSS_A + 8 + 8 * dpl, STACK | dpl)
                inner(case, kind, dpl, 3)
                if access & 0x1E in (0x16,) and access & 0x80 and access >> 5 & 3 == dpl:
                    continue  # expand-down at the top of memory: no room, below
                yield case
            for selector in (*range(4), *(STACK | n for n in range(4)), 0x200 | dpl, 0x7C | dpl, 0x84 | dpl, CODES[dpl], GATE):
                case = base.copy()
                case.start(3)
                case.gdt(STACK, descriptor(0, 0xFFFFF, 0x93 | dpl << 5, 0xC))
                case.gdt(0x7C, descriptor(0, 0xFFFFF, 0x93 | dpl << 5, 0xC))
                case.put(TSS_A + 8 + 8 * dpl, selector)
                inner(case, kind, dpl, 3)
                yield case
            # How much room.
            for count in (0, 1, 4, 31):
                for esp in (*range(0, 40), *range(120, 166, 3)):
                    for flags in (0, 4):
                        case = base.copy()
                        case.start(3, esp=STACKS[3] - 0x90)
                        case.gdt(STACK, descriptor(STACKS[dpl] - 0xC0, 0xBF, 0x93 | dpl << 5, flags))
                        case.put(TSS_A + 4 + 8 * dpl, esp)
                        case.put(TSS_A + 8 + 8 * dpl, STACK | dpl)
                        inner(case, kind, dpl, count)
                        yield case
            # The end of the TSS.
            for limit in range(dpl * 8 + 2, dpl * 8 + 14):
                case = base.copy()
                case.start(3)
                case.gdt(TSS_A_SEL, descriptor(TSS_A, limit, 0x8B))
                inner(case, kind, dpl, 0)
                # The landing needs the stack of ring 0, which lies below.
                yield case


def inner(case, kind, dpl, count):
    """A call from ring 3 to `dpl` through a gate."""
    case.gdt(TARGET, descriptor(0, 0xFFFFF, code_rights(dpl, False), 0xC))
    case.gdt(GATE, gate(TARGET, LAND, 0xE0 | kind, count))
    transfer(case, 1, GATE | 3)


def tss16_stacks(base):
    """The same with a 16-bit TSS."""
    for dpl in (0, 1, 2):
        for kind in (4, 12):
            for limit in (*range(dpl * 4 + 1, dpl * 4 + 8), 0x2B):
                case = base.copy()
                case.start(3)
                case.gdt(TSS_A_SEL, descriptor(TSS_A, limit, 0x83))
                for ring in range(3):
                    case.put(TSS_A + 2 + 4 * ring, STACKS[ring] | DATAS[ring] << 16)
                if dpl == 0 and limit < 5:
                    continue  # no stack for the fault either: a shutdown, in the list of double faults
                inner(case, kind, dpl, 2)
                yield case


def interrupts(base):
    """INT n: the gate's access byte × CPL × the target's DPL × conforming × EFLAGS."""
    for cpl in range(4):
        for access in range(0x100):
            if access & 0x1F == 5:
                continue  # tasks.py
            for dpl, conforming in ((0, False), (1, False), (3, False), (0, True), (2, True)):
                if access & 0x1F not in (6, 7, 14, 15) and (dpl, conforming) != (0, False):
                    continue
                case = base.copy()
                case.start(cpl, eflags=2 | IF | (cpl << 12) | CF)
                case.gdt(TARGET, descriptor(0, 0xFFFFF, code_rights(dpl, conforming), 0xC))
                case.idt(0x21, gate(TARGET, LAND, access))
                case.code(CODE, b"\xcd\x21", lambda m: m.int_n(0x21))
                yield case
            if access & 0x1F in (6, 7, 14, 15):
                for opcode, vector, flags in ((b"\xcc", 3, 2), (b"\xce", 4, 2 | OF)):
                    case = base.copy()
                    case.start(cpl, eflags=flags)
                    case.gdt(TARGET, descriptor(0, 0xFFFFF, code_rights(0, False), 0xC))
                    case.idt(vector, gate(TARGET, LAND, access))
                    case.code(CODE, opcode, lambda m, vector=vector: m.int_n(vector))
                    yield case


def interrupt_faults(base):
    """Targets that are wrong, for INT n and for an exception with and without an error code (EXT in the error code)."""
    sources = (
        (0x21, b"\xcd\x21", lambda m: m.int_n(0x21)),
        (6, b"\x0f\x0b", raise_ud),
        (13, b"\x8e\xd8", raise_gp),
    )
    for cpl in (0, 1, 3):
        for vector, opcode, op in sources:
            for kind in (6, 7, 14, 15):
                for selector in (0, 2, TARGET, TARGET | 3, 0x200, 0x7C, 0x84, DATAS[0], TSS_A_SEL, GATE):
                    for access in (0x9B, 0x1B, 0xBB, 0xFB, 0x93, 0x82, 0x9F, 0xFF, 0x1F):
                        for offset in (LAND, 0x10000 | LAND):
                            if selector & 0xFFFC != TARGET and (access, offset) != (0x9B, LAND):
                                continue
                            case = base.copy()
                            case.start(cpl)
                            case.set(EAX, 0xFFFFFFF8)
                            case.gdt(TARGET, descriptor(0, 0xFFFF, access, 0x4))
                            case.idt(vector, gate(selector, offset, 0xE0 | kind))
                            case.code(CODE, opcode, op)
                            yield case
                for present in (0, 0x80):
                    case = base.copy()
                    case.start(cpl)
                    case.set(EAX, 0xFFFFFFF8)
                    case.idt(vector, gate(CODES[0], LAND, present | kind))
                    case.code(CODE, opcode, op)
                    yield case
    for vector in range(0x24, 0x2C):
        for limit in range(vector * 8 - 2, vector * 8 + 9):
            case = base.copy()
            case.start(0)
            case.table(IDTR, IDT, limit)
            case.code(CODE, bytes((0xCD, vector)), lambda m, vector=vector: m.int_n(vector))
            if limit < vector * 8 + 7 or vector < 0x28:
                yield case


def raise_ud(_m):
    """UD2."""
    from machine import Fault

    raise Fault(6)


def raise_gp(m):
    """MOV DS, AX with a selector beyond the table."""
    from transfers import load_segment

    load_segment(m, "ds", m.r["eax"] & 0xFFFF)
    m.eip = m.next


def interrupt_stacks(base):
    """Room on the stack of the handler's ring, to the byte; the same ring's too."""
    sources = ((0x21, b"\xcd\x21", lambda m: m.int_n(0x21)), (13, b"\x8e\xd8", raise_gp))
    for vector, opcode, op in sources:
        for kind in (6, 14):
            for esp in range(0, 48):
                for flags in (0, 4):
                    # To ring 1; the fault of the delivery has ring 0's stack.
                    case = base.copy()
                    case.start(3)
                    case.set(EAX, 0xFFFFFFF8)
                    case.gdt(STACK, descriptor(STACKS[1] - 0xC0, 0xBF, 0xB3, flags))
                    case.put(TSS_A + 12, esp)
                    case.put(TSS_A + 16, STACK | 1)
                    case.idt(vector, gate(CODES[1], LAND, 0xE0 | kind))
                    case.code(CODE, opcode, op)
                    yield case
            for esp in range(0xC0 - 2, 0xC0 + 6):
                # In ring 1, on its own stack: the top is beyond the limit.
                case = base.copy()
                case.gdt(STACK, descriptor(STACKS[1] - 0xC0, 0xBF, 0xB3, 4))
                case.start(1, esp=esp, ss=STACK | 1)
                case.set(EAX, 0xFFFFFFF8)
                case.idt(vector, gate(CODES[1], LAND, 0xE0 | kind))
                case.code(CODE, opcode, op)
                yield case


def returns(base):
    """RETF and IRETD: the return selector's type × DPL × RPL × CPL."""
    for cpl in range(4):
        for access in range(0x100):
            for rpl in range(4):
                if access & 0x18 != 0x18 and rpl != cpl:
                    continue
                for how in range(2):
                    case = base.copy()
                    case.start(cpl)
                    case.gdt(TARGET, descriptor(0, 0xFFFFF, access, 0xC))
                    outward(case, how, cpl, TARGET | rpl, DATAS[rpl], STACKS[rpl])
                    yield case


def outward(case, how, cpl, cs, ss, esp, size=4, extra=0, flags=2, eip=LAND):
    """Places RETF (0) or IRET (1), and what it pops."""
    at = STACKS[cpl] - 0x40
    case.start(cpl, esp=at, eflags=case.begin[3])
    prefix = b"" if size == 4 else b"\x66"
    words = [eip, cs] + ([flags] if how else [])
    for n, value in enumerate(words):
        case.put(at + size * n, value, size)
    for n, value in enumerate((esp, ss)):
        case.put(at + size * (len(words) + n) + extra, value, size)
    if how:
        case.code(CODE, prefix + b"\xcf", lambda m: iret(m, size))
    elif extra:
        case.code(CODE, prefix + b"\xca" + extra.to_bytes(2, "little"), lambda m: ret_far(m, size, extra))
    else:
        case.code(CODE, prefix + b"\xcb", lambda m: ret_far(m, size, 0))


def return_stacks(base):
    """Outward returns: the stack selector's type × DPL × RPL, both widths, bytes released, nulled data segments."""
    for how in range(2):
        for cpl in (0, 1, 2):
            for rpl in range(cpl + 1, 4):
                for access in range(0x100):
                    case = base.copy()
                    case.start(cpl)
                    case.gdt(STACK, descriptor(0, 0xFFFFF, access, 0xC))
                    outward(case, how, cpl, CODES[rpl], STACK | rpl, STACKS[rpl] - 0x10)
                    if access & 0x1E == 0x16 and access & 0x80 and access >> 5 & 3 == rpl:
                        continue
                    yield case
                for ss in (*range(4), 0x200 | rpl, 0x7C | rpl, 0x84 | rpl, *(STACK | n for n in range(4))):
                    for size in (2, 4):
                        for extra in (0, 4, 6) if not how else (0,):
                            case = base.copy()
                            case.start(cpl)
                            case.gdt(STACK, descriptor(0, 0xFFFFF, 0x93 | rpl << 5, 0xC))
                            case.gdt(0x7C, descriptor(0, 0xFFFFF, 0x93 | rpl << 5, 0xC))
                            outward(case, how, cpl, CODES[rpl], ss, STACKS[rpl] - 0x10, size, extra)
                            yield case
                # Which data segments survive.
                for dpl in range(cpl, 4):
                    for access in (0x91, 0x93, 0x9B, 0x9F):
                        case = base.copy()
                        case.gdt(FREE + 24, descriptor(0, 0xFFFFF, access | dpl << 5, 0xC))
                        case.start(cpl)
                        outward(case, how, cpl, CODES[rpl], DATAS[rpl], STACKS[rpl])
                        for seg in (DS, ES, FS, GS):
                            if (seg + dpl + access) % 3:
                                case.set(seg, FREE + 24 | cpl)
                        yield case


def iret_flags(base):
    """IRET: which bits of EFLAGS change, by CPL, IOPL and width."""
    bits = [1 << n for n in range(22) if n not in (1, 3, 5, 8, 15, 16, 17)]
    for cpl in range(4):
        for iopl in range(4):
            for size in (2, 4):
                for before in (0, ID | AC | IF | DF | CF):
                    for image in (*bits, sum(bits) & ~NT, 0):
                        for rpl in {cpl, 3}:
                            case = base.copy()
                            case.start(cpl, eflags=2 | iopl << 12 | before)
                            outward(case, 1, cpl, CODES[rpl], DATAS[rpl], STACKS[rpl], size, flags=image | 2)
                            yield case


def return_edges(base):
    """EIP beyond the limit, stacks that end too soon."""
    for how in range(2):
        for cpl in (0, 1):
            for eip in (0x10000, 0xFFFFFFFF, 0x10000 | LAND):
                for rpl in (cpl, 3):
                    case = base.copy()
                    case.start(cpl)
                    case.gdt(TARGET, descriptor(0, 0xFFFF, code_rights(rpl, False), 4))
                    outward(case, how, cpl, TARGET | rpl, DATAS[rpl], STACKS[rpl], eip=eip)
                    yield case
        # Ring 1 with a short stack: so many bytes are left.
        for left in range(0, 25):
            for size in (2, 4):
                for rpl in (1, 3):
                    case = base.copy()
                    case.start(1)
                    at = STACKS[1] - 0x40
                    outward(case, how, 1, CODES[rpl], DATAS[rpl], STACKS[rpl], size)
                    case.gdt(STACK, descriptor(0, at + left - 1, 0xB3, 4))
                    case.start(1, esp=at, ss=STACK | 1)
                    yield case


def double_faults(base):
    """Faults in the delivery of faults: each class twice, and the shutdown."""
    entries = (
        gate(OWN_CODE, 0, 0x0E),  # not present
        gate(0, 0, 0x8E),
        gate(0x200, 0, 0x8E),
        gate(TARGET, 0, 0x8E),  # not present code
        gate(CODES[0], 0, 0x8C),  # not a gate of the IDT
    )
    sources = (
        (6, b"\x0f\x0b", raise_ud, 0),
        (13, b"\x8e\xd8", raise_gp, 0xFFFFFFF8),
        (11, b"\x8e\xd8", raise_gp, TARGET),
    )
    for cpl in (0, 3):
        for vector, opcode, op, eax in sources:
            for first in entries:
                for second in (None, *entries):
                    for eighth in (None, entries[0], entries[1]):
                        case = base.copy()
                        case.start(cpl)
                        case.set(EAX, eax)
                        case.gdt(TARGET, descriptor(0, 0xFFFFF, 0x7B, 0xC))
                        case.idt(vector, first)
                        if second is not None:
                            case.idt(11, second)
                            case.idt(13, second)
                        if eighth is not None:
                            case.idt(8, eighth)
                        case.code(CODE, opcode, op)
                        yield case
    # A ring-0 stack that is wrong: every delivery from ring 3 fails with #TS or #SS, then the double fault's too.
    for ss in (0, 0x200, DATAS[3], CODES[0], STACK):
        case = base.copy()
        case.start(3)
        case.gdt(STACK, descriptor(0, 0xFFFFF, 0x13, 0xC))
        case.put(TSS_A + 8, ss)
        case.code(CODE, b"\x0f\x0b", raise_ud)
        yield case


FAMILIES = (
    direct, edges, call_gates, call_gate_faults, inner_stacks, tss16_stacks, interrupts, interrupt_faults,
    interrupt_stacks, returns, return_stacks, iret_flags, return_edges, double_faults,
)  # fmt: skip


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(usual()):
            case.name = family.__name__
            yield case
