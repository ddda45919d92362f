"""Paging without long mode: two levels, 4 MiB pages, PSE-36, PAE; rights × WP × SMEP × SMAP × AC × NX × CPL × access; reserved
bits; accessed and dirty bits; accesses and instructions across two pages; the processor's own accesses to its tables.

The model walks as SDM vol. 3, 4.3 to 4.8 says. Where a fault leaves it open which accessed bits of upper entries have been
set, the case sets them before.
"""

from layout import *
from machine import Fault, Machine as Base

FRAME_IMAGE = "frame32.frame"
SIZE = 0x4000
DIRECTORY, POINTERS, TABLE, IDENTITY = 0x1000, 0x1F00, 0x2000, 0x3000
TEST = 0x00C40000  # the page under test; its frame is the arena's first page
LARGE = 0x00C00000  # the same in a large page
ALIAS = 0x00200000  # the same frame for the supervisor: tables, TSS and stacks of ring 0
P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
PG, WP = 1 << 31, 1 << 16
PSE, PAE, SMEP, SMAP = 1 << 4, 1 << 5, 1 << 20, 1 << 21
NXE = 1 << 11


class Machine(Base):
    """With paging for addresses from TEST on; everything below is mapped to itself, ALIAS to 0."""

    def __init__(self, case):
        self.efer = case.reg(EFER)
        super().__init__(case)

    def read(self, at, size):
        at &= 0xFFFFFFFF
        if at < LARGE:
            return super().read(at & 0xFFFFF, size)
        value = 0
        for n, place in enumerate(self.places(at, size, "read", False, True)):
            value |= self.mem[place] << 8 * n
        return value

    def write(self, at, value, size):
        at &= 0xFFFFFFFF
        if at < LARGE:
            super().write(at & 0xFFFFF, value, size)
            return
        for n, place in enumerate(self.places(at, size, "write", False, True)):
            self.mem[place] = value >> 8 * n & 0xFF

    def code_fetched(self, at, size):
        if at >= LARGE:
            self.explicit(at, size, "fetch")

    def explicit(self, at, size, access):
        """Where the bytes of an access with the rights of the CPL lie."""
        return self.places(at, size, access, self.cpl == 3, False)

    def places(self, at, size, access, user, implicit):
        """Translates each page once; a fault on either commits nothing."""
        pages = sorted({at >> 12, at + size - 1 >> 12})
        walks = {page: self.walk(max(at, page << 12), access, user, implicit) for page in pages}
        for page in pages:
            walks[page][1]()
        return [walks[(at + n) >> 12][0] + ((at + n) & 0xFFF) for n in range(size)]

    def walk(self, at, access, user, implicit):
        """The frame of a linear address, and what sets the accessed and dirty bits."""
        wide = self.cr4 & PAE
        size = 8 if wide else 4
        if wide:
            index = (DIRECTORY + (at >> 21 & 511) * 8, lambda base: base + (at >> 12 & 511) * 8)
        else:
            index = (DIRECTORY + (at >> 22) * 4, lambda base: base + (at >> 12 & 1023) * 4)
        fetch = access == "fetch"
        error = (2 if access == "write" else 0) | (4 if user else 0)
        if fetch and (self.efer & NXE and wide or self.cr4 & SMEP):
            error |= 16
        used, rights, no_execute = [], W | U, False
        place = index[0]
        for level in (1, 0):
            entry = Base.read(self, place, size)
            if not entry & P:
                raise page_fault(at, error)
            large = level and entry & PS and (wide or self.cr4 & PSE)
            if entry & self.reserved(level, large, wide):
                raise page_fault(at, error | 9)
            rights &= entry
            no_execute |= bool(wide and self.efer & NXE and entry & NX)
            used.append(place)
            if large or not level:
                break
            place = index[1](entry & 0xFFFFF000)
        if large:
            frame = entry & (0xFFE00000 if wide else 0xFFC00000) | at & (0x1FF000 if wide else 0x3FF000)
        else:
            frame = entry & 0xFFFFF000
        assert frame < 0x10000, f"{self.case.name}: frame {frame:x}"
        if not allowed(self, rights, no_execute, access, user, implicit):
            raise page_fault(at, error | 1)

        def commit():
            for n, where in enumerate(used):
                bits = A | (D if access == "write" and n == len(used) - 1 else 0)
                self.mem[where] |= bits

        return frame, commit

    def reserved(self, level, large, wide):
        """The bits that must be zero in an entry."""
        if not wide:
            return 1 << 21 if large else 0
        bits = 0x7FF << 52 | (0 if self.efer & NXE else NX)
        return bits | (0x1FE000 if large else 0)


def allowed(m, rights, no_execute, access, user, implicit):
    """Section 4.6: access rights."""
    if access == "fetch":
        if no_execute:
            return False
        if user:
            return bool(rights & U)
        return not (m.cr4 & SMEP and rights & U)
    if user:
        return bool(rights & U) and (access == "read" or bool(rights & W))
    if m.cr4 & SMAP and rights & U and (implicit or not m.flags & AC):
        return False
    return access == "read" or bool(rights & W) or not m.cr0 & WP


def page_fault(linear, error):
    """#PF."""
    fault = Fault(14, error)
    fault.linear = linear
    return fault


def paged(cr4=0, cr0=0, efer=0):
    """The usual case with paging on. What the processor reaches by itself lies in the supervisor's alias."""
    base = usual(SIZE)
    for selector, at, access in ((TSS_A_SEL, TSS_A, 0x8B), (LDT_SEL, LDT, 0x82)):
        base.gdt(selector, descriptor(ALIAS + at, 0x7F, access))
    base.table(GDTR, ALIAS + GDT, GDT_LIMIT)
    base.table(IDTR, ALIAS + IDT, IDT_LIMIT)
    for ring in range(3):
        base.put(TSS_A + 4 + 8 * ring, ALIAS + STACKS[ring])
    base.set(CR0, 0x11 | PG | cr0)
    base.set(CR4, cr4)
    base.set(EFER, efer)
    size, low = (8, P) if cr4 & PAE else (4, P | W | U | A | D)
    low = P | W | A | D
    base.set(CR3, POINTERS if cr4 & PAE else DIRECTORY)
    if cr4 & PAE:
        base.put(POINTERS, DIRECTORY | P, 8)
        base.put(DIRECTORY + 8, TABLE | P | W | A, 8)
        base.put(TABLE, low, 8)
    else:
        base.put(IDENTITY + size * (ALIAS >> 12 & 1023), low)
    base.put(DIRECTORY, IDENTITY | P | W | U | A, size)
    for n in range(0x100):
        base.put(IDENTITY + size * n, n << 12 | low, size)
    for at in (TEST, LARGE):
        base.ops[at + LAND] = base.ops[LAND]
    for n in range(0, 0x80, 4):
        base.put(DATA + n, 0x03020100 + 0x04040404 * (n // 4))
    return base


def begin(base, cpl, eflags=2):
    """Starts in a ring: the first page is the user's or the supervisor's."""
    case = base.copy()
    case.start(cpl, eflags=eflags)
    if cpl == 3:
        case.mem[IDENTITY] |= U
        case.set(ESP, ALIAS + FRAME)
    return case


def entries(case, upper, leaf, second=None):
    """The entries under test; `upper` is a large page's if it says so."""
    size = 8 if case.reg(CR4) & PAE else 4
    index = TEST >> (21 if size == 8 else 22)
    case.put(DIRECTORY + size * index, upper if upper & PS else upper | TABLE, size)
    case.put(TABLE + size * (TEST >> 12 & 511), leaf, size)
    if second is not None:
        case.put(TABLE + size * ((TEST >> 12 & 511) + 1), second, size)


def access(case, how, at, size=4):
    """Places an access to a linear address."""
    where = at.to_bytes(4, "little")
    if how == "fetch":
        # JMP rel32
        def op(m):
            m.eip = at

        case.code(CODE, b"\xe9" + (at - CODE - 5 & 0xFFFFFFFF).to_bytes(4, "little"), op)
        return
    code = ACCESSES[how, size] + where

    def op(m):
        places = m.explicit(at, size, "read" if how == "read" else "write")
        value = int.from_bytes(bytes(m.mem[place] for place in places), "little")
        if how == "read":
            if size <= 4:
                mask = (1 << 8 * size) - 1
                m.r["ecx"] = m.r["ecx"] & ~mask | value
            elif size == 8:
                pass
        else:
            value = ~value if how == "rmw" else m.r["ecx"] if size <= 4 else 0
            for n, place in enumerate(places):
                m.mem[place] = value >> 8 * n & 0xFF
        m.eip = m.next

    case.code(CODE, code, op)
    case.land(CODE + len(code))


ACCESSES = {
    ("read", 1): b"\x8a\x0d", ("read", 2): b"\x66\x8b\x0d", ("read", 4): b"\x8b\x0d", ("read", 8): b"\xdd\x05",
    ("write", 1): b"\x88\x0d", ("write", 2): b"\x66\x89\x0d", ("write", 4): b"\x89\x0d",
    ("rmw", 1): b"\xf6\x15", ("rmw", 2): b"\x66\xf7\x15", ("rmw", 4): b"\xf0\xf7\x15",
}  # fmt: skip
HOWS = ("read", "write", "rmw", "fetch")


def target(how, at=TEST):
    """Where an access goes."""
    return at + (LAND if how == "fetch" else DATA)


def modes():
    """(CR4, CR0, AC) of all combinations of WP, SMEP and SMAP."""
    for wp in (0, WP):
        for smep in (0, SMEP):
            for smap in (0, SMAP):
                for ac in (0, AC) if smap else (0,):
                    yield smep | smap, wp, ac


def rights(_):
    """Two levels, 4 KiB pages: both entries' rights × access × CPL × WP × SMEP × SMAP × AC."""
    for cr4, cr0, ac in modes():
        base = paged(cr4, cr0)
        for cpl in (0, 3):
            for how in HOWS:
                for upper in range(8):
                    for leaf in range(8):
                        case = begin(base, cpl, 2 | ac)
                        entries(case, upper | A, leaf | A | D)
                        access(case, how, target(how))
                        yield case


def rights_large(_):
    """Large pages of 4 MiB (PSE) and 2 MiB (PAE); without PSE the bit means nothing in two levels."""
    for mode in (0, PSE, PAE, PAE | PSE):
        for cr4, cr0, ac in modes():
            base = paged(cr4 | mode, cr0)
            for cpl in (0, 3):
                for how in HOWS:
                    for upper in range(8):
                        case = begin(base, cpl, 2 | ac)
                        large = mode != 0
                        entries(case, upper | A | D | PS if large else upper | A | PS | TABLE, 7 | A | D)
                        access(case, how, target(how, LARGE if large else TEST))
                        yield case


def rights_pae(_):
    """PAE, 4 KiB pages: the same with NX in either entry, NXE on."""
    for cr4, cr0, ac in modes():
        if ac or cr4 & SMAP and not cr4 & SMEP:
            continue
        base = paged(cr4 | PAE, cr0, NXE)
        for cpl in (0, 3):
            for how in HOWS:
                for upper in range(8):
                    for leaf in range(8):
                        for nx in range(4):
                            if nx and how != "fetch" and upper & leaf & 7 != 7:
                                continue
                            case = begin(base, cpl, 2 | ac)
                            entries(case, upper | A | (NX if nx & 1 else 0), leaf | A | D | (NX if nx & 2 else 0))
                            access(case, how, target(how))
                            yield case


def accessed_and_dirty(_):
    """When the bits are set, and that nothing else is: every state before × access × CPL × kind of page."""
    for mode in (0, PSE, PAE, PAE | PSE):
        for cr0 in (0, WP):
            base = paged(mode, cr0)
            for cpl in (0, 3):
                for how in HOWS:
                    for upper in (0, A):
                        for leaf in (0, A, D, A | D):
                            for low in (P | U | W, P | U, P):
                                case = begin(base, cpl)
                                fine = how in ("read", "fetch") and (low & U or cpl == 0)
                                fine |= how in ("write", "rmw") and (low & W or cpl == 0 and not cr0) and (low & U or cpl == 0)
                                entries(case, P | W | U | (upper if fine else A), low | (leaf if fine or upper else A | D))
                                access(case, how, target(how))
                                if fine or upper:
                                    yield case
                    if mode:
                        for bits in (0, A, D, A | D):
                            for other in (0, 1 << 8, 1 << 9, 0xE00):
                                case = begin(base, cpl)
                                entries(case, P | W | U | PS | bits | other, 0)
                                access(case, how, target(how, LARGE))
                                yield case


def reserved(_):
    """Reserved bits at each level; where the entry is not present they mean nothing."""
    for cr4, efer, bits, large in (
        (PSE, 0, (21,), True), (0, 0, (21,), False),
        (PAE, 0, (*range(52, 64),), False), (PAE, NXE, (*range(52, 64),), False),
        (PAE, 0, (*range(13, 21), *range(52, 64)), True), (PAE, NXE, (*range(13, 21), *range(52, 64)), True),
    ):  # fmt: skip
        base = paged(cr4, 0, efer)
        for bit in bits:
            for level in (0, 1):
                if large and not level or not cr4:
                    continue
                for present in (0, P):
                    for cpl in (0, 3):
                        for how in HOWS:
                            for low in (W | U, W, U):
                                case = begin(base, cpl)
                                upper = P | W | U | A | ((PS | D | low) if large else 0)
                                upper, leaf = upper & ~(W | U) | low, low | P | A | D
                                if level:
                                    upper = upper & ~P | present | 1 << bit
                                else:
                                    leaf = leaf & ~P | present | 1 << bit
                                entries(case, upper, leaf)
                                access(case, how, target(how, LARGE if large else TEST))
                                yield case


def pointers(_):
    """PDPTE registers: loaded by MOV CR3, #GP(0) for reserved bits of present ones, not reloaded by a write to the table."""
    base = paged(PAE)
    for entry in range(4):
        for bit in (0, 1, 2, 3, 4, *range(5, 12), *range(52, 64)):
            for present in (0, P):
                case = begin(base, 0)
                at = POINTERS + 0x40
                case.put(at, DIRECTORY | P, 8)
                case.put(at + 8 * entry, (DIRECTORY if entry == 0 else 0) | 1 << bit | present, 8)
                if entry == 0 and not (present or bit == 0):
                    continue  # nothing would be mapped any more

                def op(m, at=at):
                    for n in range(4):
                        value = Base.read(m, at + 8 * n, 8)
                        if value & P and value & (0xFFF << 52 | 0x1E6):
                            raise Fault(13, 0)
                    m.cr3 = at
                    m.eip = m.next

                case.set(EAX, at)
                case.code(CODE, b"\x0f\x22\xd8", op)
                case.land(CODE + 3)
                yield case


def straddling(_):
    """Accesses and instructions across two pages: which page faults, CR2, and that nothing is written before."""
    for mode in (0, PAE):
        base = paged(mode, WP)
        for cpl in (0, 3):
            for how in HOWS:
                for size in (2, 4, 8) if how == "read" else (2, 4):
                    for split in range(1, size):
                        for first in (0, 1, 3, 5, 7):
                            for second in (0, 1, 3, 5, 7):
                                case = begin(base, cpl)
                                entries(case, P | W | U | A, first | A | D, second | A | D)
                                at = TEST + 0x1000 - split
                                if how == "fetch":
                                    if size != 2:
                                        continue
                                    # INT 20h with its second byte on the second page
                                    case.put(0xFFF, 0xCD, 1)
                                    case.put(0, 0x20, 1)
                                    case.ops[at] = case.ops[LAND]
                                access(case, how, at, size)
                                yield case


def implicit(_):
    """The processor's own accesses (here to the LDT) are the supervisor's at any CPL, SMAP applies whatever AC says, and the
    accessed bit of a descriptor is a write."""
    for cr4, cr0, ac in modes():
        base = paged(cr4, cr0)
        base.gdt(LDT_SEL, descriptor(TEST + LDT, LDT_LIMIT, 0x82))
        for cpl in (0, 3):
            for upper in range(1, 8, 2):
                for leaf in range(8):
                    for marked in (0, 1):
                        case = begin(base, cpl, 2 | ac)
                        entries(case, upper | A, leaf | A | D)
                        case.gdt(0x0C, descriptor(0, 0xFFFFF, 0xF2 | marked, 0xC))
                        case.set(EAX, 0x0C | cpl)

                        def op(m):
                            from transfers import load_segment

                            load_segment(m, "ds", m.r["eax"])
                            m.eip = m.next

                        case.code(CODE, b"\x8e\xd8", op)
                        case.land(CODE + 2)
                        yield case


FAMILIES = (rights, rights_large, rights_pae, accessed_and_dirty, reserved, pointers, straddling, implicit)


def cases():
    """All of them."""
    for family in FAMILIES:
        for case in family(None):
            case.name = family.__name__
            yield case
