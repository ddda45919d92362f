"""The reference model of far transfers: JMP, CALL, RET and IRET (SDM vol. 2, their operation sections), segment loads."""

from layout import *
from machine import Segment, gp, inside, np, ss_fault, ts
import tasks


def jmp_far(m, selector, offset, _size):
    """JMP ptr16:16/32 and m16:16/32."""
    desc = target(m, selector)
    if desc.code:
        check_direct(m, selector, desc)
        if offset > desc.limit:
            raise gp(0)
        m.load_cs(selector, desc, m.cpl)
        m.eip = offset
    elif desc.type in (4, 12):
        check_gate(m, selector, desc)
        code, code_desc = gate_target(m, desc)
        if code_desc.dpl > m.cpl if code_desc.conforming else code_desc.dpl != m.cpl:
            raise gp(code & 0xFFFC)
        if not code_desc.present:
            raise np(code & 0xFFFC)
        if desc.offset > code_desc.limit:
            raise gp(0)
        m.load_cs(code, code_desc, m.cpl)
        m.eip = desc.offset
    else:
        tasks.through(m, selector, desc, "jmp")


def call_far(m, selector, offset, size):
    """CALL ptr16:16/32 and m16:16/32."""
    desc = target(m, selector)
    if desc.code:
        check_direct(m, selector, desc)
        places = [m.top(-size * n, size) for n in (1, 2)]
        if offset > desc.limit:
            raise gp(0)
        same_call(m, places, size, selector, desc, offset)
    elif desc.type in (4, 12):
        check_gate(m, selector, desc)
        code, code_desc = gate_target(m, desc)
        if code_desc.dpl > m.cpl:
            raise gp(code & 0xFFFC)
        if not code_desc.present:
            raise np(code & 0xFFFC)
        size = 4 if desc.type == 12 else 2
        if not code_desc.conforming and code_desc.dpl < m.cpl:
            inward_call(m, desc, code, code_desc, size)
        else:
            places = [m.top(-size * n, size) for n in (1, 2)]
            if desc.offset > code_desc.limit:
                raise gp(0)
            same_call(m, places, size, code, code_desc, desc.offset)
    else:
        tasks.through(m, selector, desc, "call")


def target(m, selector):
    """The descriptor that a far pointer names, of a type that can be jumped to."""
    if not selector & 0xFFFC:
        raise gp(0)
    desc = m.fetch(selector, gp)
    if not desc.code and (desc.user or desc.type not in (1, 3, 4, 5, 9, 11, 12)):
        raise gp(selector & 0xFFFC)
    return desc


def check_direct(m, selector, desc):
    """A code segment without a gate."""
    if desc.conforming:
        if desc.dpl > m.cpl:
            raise gp(selector & 0xFFFC)
    elif selector & 3 > m.cpl or desc.dpl != m.cpl:
        raise gp(selector & 0xFFFC)
    if not desc.present:
        raise np(selector & 0xFFFC)


def check_gate(m, selector, desc):
    """A call gate's own rights."""
    if desc.dpl < m.cpl or desc.dpl < selector & 3:
        raise gp(selector & 0xFFFC)
    if not desc.present:
        raise np(selector & 0xFFFC)


def gate_target(m, desc):
    """The code segment behind a call gate."""
    code = desc.selector
    if not code & 0xFFFC:
        raise gp(0)
    code_desc = m.fetch(code, gp)
    if not code_desc.code:
        raise gp(code & 0xFFFC)
    return code, code_desc


def same_call(m, places, size, selector, desc, offset):
    """Within the ring: CS and EIP on the same stack."""
    for at, value in zip(places, (m.seg["cs"].selector, m.next)):
        m.write(at, value, size)
    m.set_sp(m.r["esp"] - 2 * size)
    m.load_cs(selector, desc, m.cpl)
    m.eip = offset


def inward_call(m, desc, code, code_desc, size):
    """To an inner ring: its stack gets the old one's pointer, the parameters, CS and EIP."""
    m.inner_stack(code_desc.dpl)  # its faults come before those of reading the parameters
    parameters = [m.read(m.top(size * n, size), size) for n in reversed(range(desc.count))]
    m.to_inner(code, code_desc, desc.offset, [*parameters, m.seg["cs"].selector, m.next], size)


def ret_far(m, size, extra):
    """RETF and RETF imm16."""
    eip = m.read(m.top(0, size), size)
    selector = m.read(m.top(size, size), 2)
    desc = return_code(m, selector)
    rpl = selector & 3
    if rpl == m.cpl:
        if eip > desc.limit:
            raise gp(0)
        m.set_sp(m.r["esp"] + 2 * size + extra)
        m.load_cs(selector, desc, rpl)
    else:
        esp, ss, ss_desc = outer_stack(m, 2 * size + extra, size, rpl)
        if eip > desc.limit:
            raise gp(0)
        m.load_cs(selector, desc, rpl)
        leave_stack(m, ss, ss_desc, esp)
        m.set_sp(m.r["esp"] + extra)
        drop_inner_segments(m)
    m.eip = eip


def return_code(m, selector):
    """The checks of a code segment that is returned to."""
    if not selector & 0xFFFC:
        raise gp(0)
    desc = m.fetch(selector, gp)
    rpl = selector & 3
    if not desc.code or rpl < m.cpl:
        raise gp(selector & 0xFFFC)
    if desc.dpl > rpl if desc.conforming else desc.dpl != rpl:
        raise gp(selector & 0xFFFC)
    if not desc.present:
        raise np(selector & 0xFFFC)
    return desc


def outer_stack(m, offset, size, rpl):
    """ESP and SS of the outer ring, checked."""
    places = (m.top(offset, size), m.top(offset + size, size))
    esp, selector = m.read(places[0], size), m.read(places[1], 2)
    if not selector & 0xFFFC:
        raise gp(0)
    desc = m.fetch(selector, gp)
    if selector & 3 != rpl or not desc.writable or desc.dpl != rpl:
        raise gp(selector & 0xFFFC)
    if not desc.present:
        raise ss_fault(selector & 0xFFFC)
    return esp, selector, desc


def leave_stack(m, selector, desc, esp):
    """Loads SS and the popped stack pointer."""
    m.load("ss", selector, desc)
    m.r["esp"] = esp if desc.big else m.r["esp"] & 0xFFFF0000 | esp & 0xFFFF


def drop_inner_segments(m):
    """Data segments of an inner ring become null."""
    for name in ("es", "fs", "gs", "ds"):
        desc = m.seg[name].desc
        if desc is None or not desc.conforming and desc.dpl < m.cpl:
            m.seg[name] = Segment(0 if desc else m.seg[name].selector, None)


def iret(m, size):
    """IRET and IRETD."""
    if m.flags & VM:
        return iret_v86(m, size)
    if m.flags & NT:
        return tasks.back(m)
    places = [m.top(size * n, size) for n in range(3)]
    eip, selector, flags = (m.read(at, 2 if n == 1 else size) for n, at in enumerate(places))
    if size == 4 and flags & VM and m.cpl == 0:
        return to_v86(m, eip, selector, flags)
    desc = return_code(m, selector)
    rpl = selector & 3
    mask = CF | PF | AF | ZF | SF | TF | DF | OF | NT
    if size == 4:
        mask |= RF | AC | ID
    if m.cpl <= m.flags >> 12 & 3:
        mask |= IF
    if m.cpl == 0:
        mask |= IOPL | (VIF | VIP if size == 4 else 0)
    if rpl == m.cpl:
        if eip > desc.limit:
            raise gp(0)
        m.set_sp(m.r["esp"] + 3 * size)
        m.load_cs(selector, desc, rpl)
    else:
        esp, ss, ss_desc = outer_stack(m, 3 * size, size, rpl)
        if eip > desc.limit:
            raise gp(0)
        m.load_cs(selector, desc, rpl)
        leave_stack(m, ss, ss_desc, esp)
        drop_inner_segments(m)
    m.flags = m.flags & ~mask | flags & mask
    m.eip = eip


def to_v86(m, eip, cs, flags):
    """IRETD from ring 0 to virtual-8086 mode."""
    from machine import real_segment

    places = [m.top(4 * n, 4) for n in range(3, 9)]
    if eip > 0xFFFF:
        raise gp(0)
    esp, ss, es, ds, fs, gs = (m.read(at, 4) for at in places)
    for name, selector in (("cs", cs), ("ss", ss), ("es", es), ("ds", ds), ("fs", fs), ("gs", gs)):
        m.seg[name] = real_segment(selector & 0xFFFF)
    m.flags, m.cpl, m.eip, m.r["esp"] = flags & ALL_FLAGS | 2, 3, eip, esp


def iret_v86(m, size):
    """IRET in virtual-8086 mode; with IOPL < 3 it belongs to the monitor, but for VME (v86.py)."""
    from machine import real_segment

    if m.flags & IOPL != IOPL:
        raise gp(0)
    places = [m.top(size * n, size) for n in range(3)]
    eip, selector, flags = (m.read(at, size) for at in places)
    if eip > 0xFFFF:
        raise gp(0)
    mask = CF | PF | AF | ZF | SF | TF | IF | DF | OF | NT | (RF | AC | ID if size == 4 else 0)
    m.set_sp(m.r["esp"] + 3 * size)
    m.seg["cs"] = real_segment(selector & 0xFFFF)
    m.flags, m.eip = m.flags & ~mask | flags & mask, eip


def load_segment(m, name, selector):
    """MOV, POP and LxS into a segment register: its checks (vol. 2, MOV), then the load."""
    rpl, code = selector & 3, selector & 0xFFFC
    if name == "ss":
        if not code:
            raise gp(0)
        desc = m.fetch(selector, gp)
        if rpl != m.cpl or not desc.writable or desc.dpl != m.cpl:
            raise gp(code)
        if not desc.present:
            raise ss_fault(code)
    elif not code:
        desc = None
    else:
        desc = m.fetch(selector, gp)
        if not desc.readable:
            raise gp(code)
        if not desc.conforming and (rpl > desc.dpl or m.cpl > desc.dpl):
            raise gp(code)
        if not desc.present:
            raise np(code)
    m.load(name, selector, desc)
