"""The reference model of task switches (SDM vol. 3, 8.3: the steps in their order; the table of checks 8-1)."""

from layout import *
from machine import Fault, Segment, fault_rf, gp, np, ss_fault, ts

# Offsets in a TSS: link, CR3, EIP, EFLAGS, first general register, first selector, LDT.
WIDE = (0, 0x1C, 0x20, 0x24, 0x28, 0x48, 0x60)
NARROW = (0, None, 0x0E, 0x10, 0x12, 0x22, 0x2A)
GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SELECTORS = ("es", "cs", "ss", "ds", "fs", "gs")


def through(m, selector, desc, how):
    """JMP or CALL to a task gate or a TSS."""
    code = selector & 0xFFFC
    if desc.type == 5:
        if desc.dpl < m.cpl or desc.dpl < selector & 3:
            raise gp(code)
        if not desc.present:
            raise np(code)
        tss = desc.selector
        tss_desc = gate_tss(m, tss)
        switch(m, tss, tss_desc, how)
    else:
        if desc.dpl < m.cpl or desc.dpl < selector & 3 or selector & 4 or desc.type not in (1, 9):
            raise gp(code)
        if not desc.present:
            raise np(code)
        switch(m, selector, desc, how)
    check_eip(m)


def gate_tss(m, tss):
    """The TSS behind a task gate."""
    error = tss & 0xFFFC | m.ext
    if tss & 4:
        raise gp(error)
    desc = m.fetch(tss, gp)
    if desc.user or desc.type not in (1, 9):
        raise gp(error)
    if not desc.present:
        raise np(error)
    return desc


def by_interrupt(m, entry, code, back, rf):
    """An IDT entry that is a task gate."""
    m.next = back
    m.saved_flags = rf
    desc = gate_tss(m, entry.selector)
    switch(m, entry.selector, desc, "int", rf)
    if code is not None:
        m.push_all([code], 4 if desc.type & 8 else 2, m.ext)
    check_eip(m)


def back(m):
    """IRET with NT set."""
    selector = m.read(m.tr.desc.base, 2)
    code = selector & 0xFFFC
    if selector & 4:
        raise ts(code)
    desc = m.fetch(selector, ts)
    if desc.user or desc.type not in (3, 11):
        raise ts(code)
    if not desc.present:
        raise np(code)
    switch(m, selector, desc, "iret")
    check_eip(m)


def check_eip(m):
    """The first instruction of the new task must lie within CS."""
    if m.eip > m.seg["cs"].desc.limit:
        raise gp(m.ext)


def switch(m, selector, desc, how, rf=0):
    """The switch itself."""
    wide = bool(desc.type & 8)
    if desc.limit < (0x67 if wide else 0x2B):
        raise ts(selector & 0xFFFC | m.ext)
    old = m.tr
    old_at, new_at = m.slot(old.selector), m.slot(selector)
    if how in ("jmp", "iret"):
        m.write(old_at + 5, m.read(old_at + 5, 1) & ~2, 1)
    flags = m.flags | rf
    if how == "iret":
        flags &= ~NT
    save(m, old, flags)
    base = desc.base
    if how in ("call", "int"):
        m.write(base, old.selector, 2)
    if how != "iret":
        m.write(new_at + 5, m.read(new_at + 5, 1) | 2, 1)
    m.tr = Segment(selector & 0xFFFF, type(desc)(desc.raw | 2 << 40))
    m.cr0 |= 8
    m.dr7 &= ~0x155  # the local breakpoints are the old task's
    enter(m, base, wide, how)


def save(m, old, flags):
    """The state of the old task into its TSS."""
    _, _, eip_at, flags_at, general, selectors, _ = WIDE if old.desc.type & 8 else NARROW
    size = 4 if old.desc.type & 8 else 2
    base = old.desc.base
    m.write(base + eip_at, m.next, size)
    m.write(base + flags_at, flags, size)
    for n, name in enumerate(GENERAL):
        m.write(base + general + size * n, m.r[name], size)
    for n, name in enumerate(SELECTORS if size == 4 else SELECTORS[:4]):
        m.write(base + selectors + size * n, m.seg[name].selector, 2)


def enter(m, base, wide, how):
    """The state of the new task from its TSS. Its faults come after the switch."""
    _, _, eip_at, flags_at, general, selectors, ldt_at = WIDE if wide else NARROW
    size = 4 if wide else 2
    m.eip = m.read(base + eip_at, size)
    m.flags = m.read(base + flags_at, size) & ALL_FLAGS | 2
    if how in ("call", "int"):
        m.flags |= NT
    for n, name in enumerate(GENERAL):
        m.r[name] = m.read(base + general + size * n, size)
        if not wide:
            m.r[name] |= 0xFFFF0000  # as the P6 family and others do; masked by the cases
    count = 6 if wide else 4
    chosen = {name: m.read(base + selectors + size * n, 2) for n, name in enumerate(SELECTORS[:count])}
    if not wide:
        chosen["fs"] = chosen["gs"] = 0
    for name, value in chosen.items():
        m.seg[name] = Segment(value, None)
    ldt = m.read(base + ldt_at, 2)
    m.ldtr = Segment(ldt, None)
    trap = wide and m.read(base + 0x64, 2) & 1
    load_ldt(m, ldt)
    load_segments(m, chosen)
    if trap:
        m.dr6 |= 1 << 15
        m.trap = True


def load_ldt(m, ldt):
    """LDTR: #TS for everything that is wrong."""
    error = ldt & 0xFFFC | m.ext
    if not ldt & 0xFFFC:
        return
    if ldt & 4:
        raise ts(error)
    desc = m.fetch(ldt, ts)
    if desc.user or desc.type != 2 or not desc.present:
        raise ts(error)
    m.ldtr = Segment(ldt, desc)


def load_segments(m, chosen):
    """CS, SS and the data segments."""
    if m.flags & VM:
        from machine import real_segment

        for name, value in chosen.items():
            m.seg[name] = real_segment(value)
        m.cpl = 3
        return
    cs, ss = chosen["cs"], chosen["ss"]
    m.cpl = cs & 3
    if not cs & 0xFFFC:
        raise ts(m.ext)
    cs_desc = m.fetch(cs, ts)
    error = cs & 0xFFFC | m.ext
    if not cs_desc.code or (cs_desc.dpl > cs & 3 if cs_desc.conforming else cs_desc.dpl != cs & 3):
        raise ts(error)
    if not cs_desc.present:
        raise np(error)
    if not ss & 0xFFFC:
        raise ts(m.ext)
    ss_desc = m.fetch(ss, ts)
    error = ss & 0xFFFC | m.ext
    if not ss_desc.writable or ss_desc.dpl != m.cpl or ss & 3 != m.cpl:
        raise ts(error)
    if not ss_desc.present:
        raise ss_fault(error)
    m.load("ss", ss, ss_desc)
    m.load("cs", cs, cs_desc)
    for name in ("ds", "es", "fs", "gs"):
        selector = chosen[name]
        if not selector & 0xFFFC:
            continue
        error = selector & 0xFFFC | m.ext
        desc = m.fetch(selector, ts)
        if not desc.readable or not desc.conforming and (desc.dpl < selector & 3 or desc.dpl < m.cpl):
            raise ts(error)
        if not desc.present:
            raise np(error)
        m.load(name, selector, desc)
