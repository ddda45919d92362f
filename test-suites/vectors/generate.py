#!/usr/bin/env python3
"""Writes the vectors of this folder: python3 generate.py

Each case is computed here, by a small model written from the SDM's descriptions, not by the emulator. The format is described
in ../conformance/docs/vectors.md. The output is committed, so that a plain `cargo test` needs no Python.
"""
import json
import os
import random

HERE = os.path.dirname(os.path.abspath(__file__))
CF, PF, AF, ZF, SF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x400, 0x800
STATUS = CF | PF | AF | ZF | SF | OF
MASK = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
         0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF]
rng = random.Random(386)


def value(width):
    v = rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(64)
    return v & MASK[width]


def signed(v, width):
    bits = 8 * width
    v &= MASK[width]
    return v - (1 << bits) if v >> (bits - 1) else v


def result_flags(r, width):
    r &= MASK[width]
    parity = bin(r & 0xFF).count("1") % 2 == 0
    return (PF if parity else 0) | (0 if r else ZF) | (SF if r >> (8 * width - 1) else 0)


def add(a, b, carry, width):
    total = a + b + carry
    r = total & MASK[width]
    over = not MASK[width] // 2 + 1 > signed(a, width) + signed(b, width) + carry >= -(MASK[width] // 2 + 1)
    f = result_flags(r, width) | (CF if total > MASK[width] else 0) | ((a ^ b ^ r) & AF) | (OF if over else 0)
    return r, f


def sub(a, b, borrow, width):
    total = a - b - borrow
    r = total & MASK[width]
    s = signed(a, width) - signed(b, width) - borrow
    over = not MASK[width] // 2 + 1 > s >= -(MASK[width] // 2 + 1)
    f = result_flags(r, width) | (CF if total < 0 else 0) | ((a ^ b ^ r) & AF) | (OF if over else 0)
    return r, f


def prefix(width):
    return {1: b"", 2: b"\x66", 4: b"", 8: b"\x48"}[width]


def merge(old, new, width):
    """What a register holds after a write of `width` bytes in 64-bit mode."""
    return new & MASK[4] if width == 4 else old & ~MASK[width] & MASK[8] | new & MASK[width]


class Suite:
    """One output file."""

    def __init__(self, name, about):
        self.name, self.about, self.lines = name, about, []

    def fixed(self, mode, code, text, regs=None, flags=None, out=None, out_flags=None, undefined=0, mem=None, mem_out=None, **extra):
        """A case in the fixed layout; `out` holds changed registers by number, `mem_out` a list of [index, bytes]."""
        width = 8 if mode == 64 else 4
        regs = dict(regs or {})
        flags = 0x202 | (flags or 0)
        i = {NAMES[n]: "%x" % (regs.get(n, 0) & MASK[width]) for n in range(8)}
        i["rsp"] = "%x" % regs.get(RSP, 0x30800)
        i["fl"] = "%x" % flags
        if mem is not None:
            i["mem"] = mem.hex()
        o = {NAMES[n]: "%x" % (v & MASK[width]) for n, v in (out or {}).items() if v & MASK[width] != regs.get(n, 0x30800 if n == RSP else 0) & MASK[width]}
        if out_flags is not None and out_flags != flags:
            o["fl"] = "%x" % out_flags
        if mem_out:
            o["mem"] = mem_out
        o.update(extra)
        if "exc" not in extra:
            o.setdefault("rip", len(code))
        else:
            o.setdefault("rip", 0)
        case = {"m": mode, "b": code.hex(), "n": text, "i": i, "o": o}
        if undefined:
            case["uf"] = "%x" % undefined
        self.lines.append(json.dumps(case, separators=(",", ":")))

    def free(self, mode, text, program, out, **keys):
        """A program at 1000h with one page of data at 5000h and one of stack below 8000h."""
        case = {"m": mode, "n": text}
        case["map"] = keys.pop("map", [["1000", 4096, "rx"], ["5000", 4096, "rw"], ["7000", 4096, "rw"]])
        case["load"] = [["1000", program.hex()]] + keys.pop("load", [])
        case["entry"] = "1000"
        case["i"] = dict({"rsp": "8000"}, **keys.pop("i", {}))
        case["o"] = out
        case.update(keys)
        self.lines.append(json.dumps(case, separators=(",", ":")))

    def write(self):
        with open(os.path.join(HERE, self.name + ".jsonl"), "w") as f:
            f.write("# %s Written by generate.py.\n" % self.about)
            f.write("\n".join(self.lines) + "\n")
        print("%-12s %5d cases" % (self.name, len(self.lines)))


def arithmetic():
    s = Suite("arithmetic", "ADD OR ADC SBB AND SUB XOR CMP, INC DEC NEG NOT, MUL DIV and their signed forms (SDM vol. 1, 5.1.2).")
    names = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]
    for op, name in enumerate(names):
        for width in (1, 2, 4, 8):
            for form in ("rr", "mr", "ri"):
                a, b, f = value(width), value(width), rng.getrandbits(12) & STATUS
                undefined = 0
                if form == "ri":
                    b = signed(rng.getrandbits(8), 1) & MASK[width]
                if name in ("or", "and", "xor"):
                    r = {"or": a | b, "and": a & b, "xor": a ^ b}[name]
                    fl, undefined = result_flags(r, width), AF
                elif name in ("add", "adc"):
                    r, fl = add(a, b, f & CF if name == "adc" else 0, width)
                else:
                    r, fl = sub(a, b, f & CF if name == "sbb" else 0, width)
                opcode = bytes([op << 3 | (width > 1)])
                high = rng.getrandbits(64)
                regs = {RAX: merge(high, a, width) if width < 4 else a, RBX: b, RDI: 0x21000}
                if form == "mr":
                    code = prefix(width) + opcode + b"\x1f"
                    mem = a.to_bytes(width, "little")
                    out = [] if name == "cmp" else [[n, "%02x" % x] for n, x in enumerate(r.to_bytes(width, "little")) if x != mem[n]]
                    s.fixed(64, code, "%s [rdi],rbx/%d" % (name, width), regs, f, {}, 0x202 | fl, undefined, mem=mem, mem_out=out)
                    continue
                if form == "ri":
                    code = prefix(width) + bytes([0x80 if width == 1 else 0x83, 0xC0 | op << 3, b & 0xFF])
                else:
                    code = prefix(width) + opcode + b"\xd8"
                out = {} if name == "cmp" else {RAX: merge(regs[RAX], r, width)}
                s.fixed(64, code, "%s rax,%s/%d" % (name, form, width), regs, f, out, 0x202 | fl, undefined)
    for digit, name in ((0, "inc"), (1, "dec"), (2, "not"), (3, "neg")):
        for width in (1, 2, 4, 8):
            for _ in range(2):
                a, f = value(width), rng.getrandbits(12) & STATUS
                if name == "inc":
                    r, fl = add(a, 1, 0, width)
                    fl = fl & ~CF | f & CF
                elif name == "dec":
                    r, fl = sub(a, 1, 0, width)
                    fl = fl & ~CF | f & CF
                elif name == "neg":
                    r, fl = sub(0, a, 0, width)
                else:
                    r, fl = ~a & MASK[width], f
                opcode = (0xFE if name in ("inc", "dec") else 0xF6) | (width > 1)
                code = prefix(width) + bytes([opcode, 0xC0 | digit << 3])
                s.fixed(64, code, "%s rax/%d" % (name, width), {RAX: a}, f, {RAX: merge(a, r, width)}, 0x202 | fl)
    for digit, name in ((4, "mul"), (5, "imul"), (6, "div"), (7, "idiv")):
        for width in (1, 2, 4, 8):
            for _ in range(4):
                multiply(s, digit, name, width)
    return s


def multiply(s, digit, name, width):
    low, high, b = value(width), value(width), value(width)
    bits = 8 * width
    code = prefix(width) + bytes([0xF6 | (width > 1), 0xC0 | digit << 3 | RBX])
    text = "%s rbx/%d" % (name, width)
    if name in ("mul", "imul"):
        full = low * b if name == "mul" else signed(low, width) * signed(b, width)
        r = full & ((1 << 2 * bits) - 1)
        over = r >> bits != 0 if name == "mul" else full != signed(r & MASK[width], width)
        fl = (CF | OF) if over else 0
        regs = {RAX: low, RDX: high, RBX: b}
        out = {RAX: r} if width == 1 else {RAX: merge(low, r, width), RDX: merge(high, r >> bits, width)}
        s.fixed(64, code, text, regs, 0, out, 0x202 | fl, SF | ZF | AF | PF)
        return
    if rng.random() < 0.6 and b:
        high = high % b if name == "div" else (0 if rng.random() < 0.5 else MASK[width] if signed(low, width) < 0 else 0)
    dividend = high << bits | low
    regs = {RAX: dividend, RBX: b} if width == 1 else {RAX: low, RDX: high, RBX: b}
    if name == "idiv":
        dividend = dividend - (1 << 2 * bits) if dividend >> (2 * bits - 1) else dividend
        divisor = signed(b, width)
        limits = (-(1 << bits - 1), (1 << bits - 1) - 1)
    else:
        divisor, limits = b, (0, MASK[width])
    if divisor:
        q = abs(dividend) // abs(divisor) * (1 if (dividend < 0) == (divisor < 0) else -1)
        rest = dividend - q * divisor
    if not divisor or not limits[0] <= q <= limits[1]:
        s.fixed(64, code, text, regs, 0, undefined=STATUS, exc=0)
        return
    q, rest = q & MASK[width], rest & MASK[width]
    out = {RAX: rest << 8 | q} if width == 1 else {RAX: merge(low, q, width), RDX: merge(high, rest, width)}
    s.fixed(64, code, text, regs, 0, out, 0x202, STATUS)


def shifts():
    s = Suite("shifts", "Shifts and rotates by an immediate and by CL, SHLD, SHRD, bit tests and scans (SDM vol. 1, 5.1.4 to 5.1.6).")
    names = ["rol", "ror", "rcl", "rcr", "shl", "shr", None, "sar"]
    for digit, name in enumerate(names):
        for width in (1, 2, 4, 8) if name else ():
            for count in (0, 1, rng.randrange(2, 8), rng.randrange(8, 64)):
                a, f = value(width), rng.getrandbits(12) & STATUS
                r, fl, undefined = shift(name, a, count, f, width)
                code = prefix(width) + bytes([0xD2 | (width > 1), 0xC0 | digit << 3])
                regs = {RAX: a, RCX: count}
                text = "%s rax/%d,cl" % (name, width)
                out = {RAX: merge(a, r, width)}
                s.fixed(64, code, text, regs, f, out, 0x202 | fl, undefined)
                code = prefix(width) + bytes([0xC0 | (width > 1), 0xC0 | digit << 3, count])
                s.fixed(32 if width < 8 else 64, code, text[:-2] + str(count), {RAX: a}, f, out, 0x202 | fl, undefined)
    for width in (2, 4, 8):
        bits = 8 * width
        for _ in range(4):
            a, b, count = value(width), value(width), rng.randrange(1, bits)
            both = (a << bits | b) << count >> bits & MASK[width]
            carry = a >> (bits - count) & 1
            fl = result_flags(both, width) | carry
            fl |= OF if (both ^ a) >> (bits - 1) else 0
            undefined = AF | (OF if count > 1 else 0)
            code = prefix(width) + bytes([0x0F, 0xA4, 0xD8, count])
            s.fixed(64, code, "shld rax,rbx,%d/%d" % (count, width), {RAX: a, RBX: b}, 0, {RAX: both}, 0x202 | fl, undefined)
            both = (b << bits | a) >> count & MASK[width]
            fl = result_flags(both, width) | (a >> (count - 1) & 1)
            fl |= OF if (both ^ a) >> (bits - 1) else 0
            code = prefix(width) + bytes([0x0F, 0xAC, 0xD8, count])
            s.fixed(64, code, "shrd rax,rbx,%d/%d" % (count, width), {RAX: a, RBX: b}, 0, {RAX: both}, 0x202 | fl, undefined)
        for opcode, name in ((0xA3, "bt"), (0xAB, "bts"), (0xB3, "btr"), (0xBB, "btc")):
            a, n = value(width), rng.getrandbits(7)
            bit = 1 << n % bits
            r = {"bt": a, "bts": a | bit, "btr": a & ~bit, "btc": a ^ bit}[name]
            code = prefix(width) + bytes([0x0F, opcode, 0xD8])
            s.fixed(64, code, "%s rax,rbx/%d" % (name, width), {RAX: a, RBX: n}, 0, {RAX: merge(a, r, width)},
                    0x202 | (CF if a & bit else 0), OF | SF | AF | PF)
        for opcode, name in ((0xBC, "bsf"), (0xBD, "bsr")):
            b = value(width) or 1
            r = (b & -b).bit_length() - 1 if name == "bsf" else b.bit_length() - 1
            code = prefix(width) + bytes([0x0F, opcode, 0xC3])
            s.fixed(64, code, "%s rax,rbx/%d" % (name, width), {RBX: b}, 0, {RAX: r}, 0x202, CF | OF | SF | AF | PF)
        b = value(width)
        code = (b"\x66" if width == 2 else b"") + b"\xf3" + (b"\x48" if width == 8 else b"") + b"\x0f\xb8\xc3"
        r = bin(b).count("1")
        s.fixed(64, code, "popcnt rax,rbx/%d" % width, {RBX: b}, STATUS, {RAX: r}, 0x202 | (0 if b else ZF))
    return s


def shift(name, a, count, f, width):
    bits = 8 * width
    masked = count & (63 if width == 8 else 31)
    if masked == 0:
        return a, f, 0
    undefined = OF if masked > 1 else 0
    top = lambda v: v >> (bits - 1) & 1
    if name in ("rol", "ror"):
        n = masked % bits
        r = (a << n | a >> (bits - n)) & MASK[width] if name == "rol" else (a >> n | a << (bits - n)) & MASK[width]
        carry = r & 1 if name == "rol" else top(r)
        over = top(r) ^ carry if name == "rol" else top(r) ^ (r >> (bits - 2) & 1)
        fl = f & ~(CF | OF) | carry | (OF if over else 0)
        return r, fl, undefined
    if name in ("rcl", "rcr"):
        n = masked % (bits + 1)
        wide, size = (f & CF) << bits | a, bits + 1
        full = (1 << size) - 1
        wide = (wide << n | wide >> (size - n)) & full if name == "rcl" else (wide >> n | wide << (size - n)) & full
        r, carry = wide & MASK[width], wide >> bits
        over = top(r) ^ carry if name == "rcl" else top(r) ^ (r >> (bits - 2) & 1)
        return r, f & ~(CF | OF) | carry | (OF if over else 0), undefined
    undefined |= AF
    if name == "shl":
        r, carry = a << masked & MASK[width], a >> (bits - masked) & 1 if masked <= bits else 0
        over = top(r) ^ carry
    elif name == "shr":
        r, carry = a >> masked, a >> (masked - 1) & 1
        over = top(a)
    else:
        r, carry = signed(a, width) >> masked & MASK[width], signed(a, width) >> (masked - 1) & 1
        over = 0
    if masked >= bits and name != "sar":
        undefined |= CF
    return r, result_flags(r, width) | carry | (OF if over else 0), undefined


def transfer():
    s = Suite("transfer", "MOV with extension, CMOVcc, SETcc, Jcc, XCHG, XADD, CMPXCHG, BSWAP, LEA, CBW and their like (SDM vol. 1, 5.1.1).")
    conditions = [lambda f: f & OF, lambda f: f & CF, lambda f: f & ZF, lambda f: f & (CF | ZF), lambda f: f & SF, lambda f: f & PF,
                  lambda f: bool(f & SF) != bool(f & OF), lambda f: f & ZF or bool(f & SF) != bool(f & OF)]
    for number in range(16):
        for _ in range(3):
            f = rng.getrandbits(12) & STATUS
            holds = bool(conditions[number >> 1](f)) != bool(number & 1)
            b = rng.getrandbits(64)
            s.fixed(64, bytes([0x48, 0x0F, 0x40 | number, 0xC3]), "cmov%x rax,rbx" % number, {RBX: b}, f, {RAX: b if holds else 0})
            s.fixed(64, bytes([0x0F, 0x90 | number, 0xC0]), "set%x al" % number, {RAX: 0xFFFF}, f, {RAX: 0xFF00 | holds})
            s.fixed(32, bytes([0x70 | number, 0x20]), "j%x +20h" % number, {}, f, rip=0x22 if holds else 2)
            s.fixed(32, bytes([0x0F, 0x80 | number, 0x30, 0, 0, 0]), "j%x +30h" % number, {}, f, rip=0x36 if holds else 6)
    for opcode, name, source in ((0xB6, "movzx", 1), (0xB7, "movzx", 2), (0xBE, "movsx", 1), (0xBF, "movsx", 2)):
        for width in (2, 4, 8):
            b = value(8)
            r = b & MASK[source] if name == "movzx" else signed(b, source)
            code = prefix(width) + bytes([0x0F, opcode, 0xC3])
            s.fixed(64, code, "%s rax/%d,rbx/%d" % (name, width, source), {RAX: MASK[8], RBX: b}, 0, {RAX: merge(MASK[8], r & MASK[8], width)})
    for width in (1, 2, 4, 8):
        a, b = value(width), value(width)
        regs = {RAX: a, RBX: b}
        s.fixed(64, prefix(width) + bytes([0x86 | (width > 1), 0xD8]), "xchg rax,rbx/%d" % width, regs, 0,
                {RAX: merge(a, b, width), RBX: merge(b, a, width)})
        r, fl = add(a, b, 0, width)
        s.fixed(64, prefix(width) + bytes([0x0F, 0xC0 | (width > 1), 0xD8]), "xadd rax,rbx/%d" % width, regs, 0,
                {RBX: merge(b, a, width), RAX: merge(a, r, width)}, 0x202 | fl)
        for same in (True, False):
            d = a if same else (a + 1) & MASK[width]
            _, fl = sub(a, d, 0, width)
            out = {RCX: merge(d, b, width)} if same else {RAX: merge(a, d, width)}
            s.fixed(64, prefix(width) + bytes([0x0F, 0xB0 | (width > 1), 0xD9]), "cmpxchg rcx,rbx/%d" % width,
                    {RAX: a, RBX: b, RCX: d}, 0, out, 0x202 | fl)
    for width in (4, 8):
        a = rng.getrandbits(8 * width)
        r = int.from_bytes(a.to_bytes(width, "little"), "big")
        s.fixed(64, prefix(width) + b"\x0f\xc8", "bswap rax/%d" % width, {RAX: a}, 0, {RAX: r})
    for width in (2, 4, 8):
        a = value(8)
        half = signed(a, width // 2) & MASK[width]
        s.fixed(64, prefix(width) + b"\x98", "cbw/%d" % width, {RAX: a}, 0, {RAX: merge(a, half, width)})
        spread = MASK[width] if signed(a, width) < 0 else 0
        s.fixed(64, prefix(width) + b"\x99", "cwd/%d" % width, {RAX: a}, 0, {RDX: merge(0, spread, width)})
        base, index = value(8), value(8)
        r = base + index * 4 + 0x12
        s.fixed(64, prefix(width) + b"\x8d\x44\x8b\x12", "lea rax/%d,[rbx+rcx*4+12h]" % width, {RBX: base, RCX: index}, 0,
                {RAX: merge(0, r & MASK[8], width)})
    return s


def programs():
    s = Suite("programs", "Programs with a memory map of their own: strings, stacks, widths, rights, faults (SDM vol. 1, 5.1.8 and vol. 3, 5.6).")
    hlt = b"\xf4"
    for m in (16, 32, 64):
        # mov cx,5; mov al,'*'; mov di,5000h; cld; rep stosb
        wide = {16: b"\xb9\x05\x00\xb0\x2a\xbf\x00\x50", 32: b"\xb9\x05\0\0\0\xb0\x2a\xbf\0\x50\0\0", 64: b"\xb9\x05\0\0\0\xb0\x2a\xbf\0\x50\0\0"}[m]
        program = wide + b"\xfc\xf3\xaa" + hlt
        s.free(m, "rep stosb", program, {"mem": [["5000", "2a2a2a2a2a00"]], "rcx": 0, "rdi": "5005", "rip": len(program) - 1})
        # rep movsb backwards over itself
        s.free(m, "std; rep movsb", b"\xfd\xf3\xa4" + hlt, {"mem": [["5000", "0102010203"]], "rcx": 0, "rsi": "4fff", "rdi": "5001"},
               load=[["5000", "0102030000"]], i={"rcx": 3, "rsi": "5002", "rdi": "5004"})
        # repne scasb finds the fourth byte
        s.free(m, "repne scasb", b"\xfc\xf2\xae" + hlt, {"rcx": 4, "rdi": "5004", "fl": "246"}, load=[["5000", "0102030405"]],
               i={"rax": 4, "rcx": 8, "rdi": "5000"})
        # repe cmpsb stops at the difference: 3 - 4
        s.free(m, "repe cmpsb", b"\xfc\xf3\xa6" + hlt, {"rcx": 1, "rsi": "5003", "rdi": "5103", "fl": "297"},
               load=[["5000", "01020305"], ["5100", "01020405"]], i={"rcx": 4, "rsi": "5000", "rdi": "5100"})
        # call +1; hlt; pop rax; push rax; ret
        call = {16: b"\xe8\x01\x00", 32: b"\xe8\x01\0\0\0", 64: b"\xe8\x01\0\0\0"}[m]
        s.free(m, "call, pop, push, ret", call + hlt + b"\x58\x50\xc3", {"rax": "%x" % (0x1000 + len(call)), "rsp": "8000", "rip": len(call)})
        # mov ax,1; loop: add ax,ax; loop loop
        s.free(m, "loop", b"\x01\xc0\xe2\xfc" + hlt, {"rax": "%x" % (3 << 10), "rcx": 0, "rip": 4}, i={"rax": 3, "rcx": 10})
        # enter 8,0; leave
        s.free(m, "enter, leave", b"\xc8\x08\x00\x00\xc9" + hlt, {"rsp": "8000", "rbp": "1234", "rip": 5}, i={"rbp": "1234"})
        # a page that is not mapped, one that is read-only, one that is not executable
        write, store = 2, b"\x88\x07" if m != 16 else b"\x88\x05"
        user = 4
        s.free(m, "store to a page that is not there", store + hlt, {"exc": 14, "err": user | write, "cr2": "6000", "rip": 0}, i={"rdi": "6000"})
        s.free(m, "store to a read-only page", store + hlt, {"exc": 14, "err": user | write | 1, "cr2": "1008", "rip": 0}, i={"rdi": "1008"})
        s.free(m, "store to a supervisor page", store + hlt, {"exc": 14, "err": user | write | 1, "cr2": "6000", "rip": 0}, i={"rdi": "6000"},
               map=[["1000", 4096, "rx"], ["6000", 4096, "rws"]])
        jump = b"\xff\xe7"
        s.free(m, "jump to a page without execute rights", jump, {"exc": 14, "err": user | 16 | 1, "cr2": "5010", "rip": "5010"}, i={"rdi": "5010"})
        # a store over the end of the page faults on the second page and stores nothing
        word = {16: b"\x66\x89\x05", 32: b"\x89\x07", 64: b"\x89\x07"}[m]
        s.free(m, "a store that straddles into nothing", word + hlt,
               {"exc": 14, "err": user | write, "cr2": "6000", "rip": 0, "mem": [["5ffe", "0000"]]}, i={"rax": "ffffffff", "rdi": "5ffe"})
        s.free(m, "a store that straddles", word + hlt, {"mem": [["5ffe", "44332211"]]}, i={"rax": "11223344", "rdi": "5ffe"},
               map=[["1000", 4096, "rx"], ["5000", 8192, "rw"]])
        # rep movsb that runs into a missing page has done what it could
        s.free(m, "rep stosb into a missing page", b"\xfc\xf3\xaa" + hlt,
               {"exc": 14, "err": user | write, "cr2": "6000", "rcx": 5, "rdi": "6000", "rip": 1, "mem": [["5ffd", "2a2a2a"]]},
               i={"rax": "2a", "rcx": 8, "rdi": "5ffd"})
        s.free(m, "hlt at CPL 0", hlt, {"rip": 0}, cpl=0, map=[["1000", 4096, "rx"]])
        s.free(m, "cli at CPL 3", b"\xfa" + hlt, {"exc": 13, "err": 0, "rip": 0})
        s.free(m, "cli, sti, pushf at CPL 0", b"\xfa\x9c\xfb\x9c" + hlt, {"rip": 4, "fl": "202"}, cpl=0)
        s.free(m, "int3", b"\x90\xcc" + hlt, {"exc": 3, "rip": 2})
        s.free(m, "int 40h", b"\xcd\x40" + hlt, {"exc": 13, "err": 0x202, "rip": 0})
        s.free(m, "ud2", b"\x0f\x0b" + hlt, {"exc": 6, "rip": 0})
        s.free(m, "divide by zero in a loop", b"\xff\xc8\x75\xfc\xf7\xf0" + hlt if m == 64 else b"\x48\x75\xfd\xf7\xf0" + hlt,
               {"exc": 0, "rax": 0}, i={"rax": 9})
        # fs and gs have bases
        load = {16: b"\x64\xa0\x10\x00\x65\x8a\x26\x20\x00", 32: b"\x64\xa0\x10\0\0\0\x65\x8a\x25\x20\0\0\0",
                64: b"\x64\x8a\x04\x25\x10\0\0\0\x65\x8a\x24\x25\x20\0\0\0"}[m]
        s.free(m, "fs and gs bases", load + hlt, {"rax": "bbaa"}, fs="5000", gs="5100", load=[["5010", "aa"], ["5120", "bb"]])
    # self-modifying code: the immediate of the mov behind the store is replaced
    smc = b"\xc6\x05\x01\x00\x00\x00\x07" + b"\xb0\x05" + hlt
    s.free(64, "code that writes the next instruction", smc, {"rax": 7}, map=[["1000", 4096, "rwx"]])
    # code that straddles two pages
    s.free(64, "an instruction over a page boundary", b"\xe9\xf9\x0f\x00\x00", {"rax": "11223344", "rip": "2003"}, map=[["1000", 8192, "rx"]],
           load=[["1ffe", "b844332211f4"]])
    s.free(64, "an instruction into a missing page", b"\xe9\xf9\x0f\x00\x00", {"exc": 14, "err": 20, "cr2": "2000", "rip": "1ffe"}, load=[["1ffe", "b844"]])
    s.free(64, "a non-canonical load", b"\x8a\x07" + hlt, {"exc": 13, "err": 0, "rip": 0}, i={"rdi": "800000000000"})
    s.free(64, "a non-canonical push", b"\x50" + hlt, {"exc": 12, "err": 0, "rip": 0}, i={"rsp": "800000000008"})
    s.free(64, "fifteen bytes", b"\x66" * 14 + b"\x90" + hlt, {"rip": 15})
    s.free(64, "sixteen bytes", b"\x66" * 15 + b"\x90" + hlt, {"exc": 13, "err": 0, "rip": 0})
    s.free(64, "fld1, fld1, faddp", b"\xd9\xe8\xd9\xe8\xde\xc1" + hlt, {"st0": "00000000000000800040", "tag": "80", "sw": "3800", "cw": "37f"})
    s.free(64, "paddd mm0,mm1", b"\x0f\xfe\xc1" + hlt, {"mm0": "0500000008000000", "tag": "ff"}, i={"mm0": "0100000002000000", "mm1": "0400000006000000"})
    s.free(64, "paddb xmm1,xmm2", b"\x66\x0f\xfc\xca" + hlt, {"v1": "03" * 16}, i={"v1": "01" * 16, "v2": "02" * 16})
    s.free(64, "a hang is stopped", b"\xeb\x01\xf4\x90" + hlt, {"rip": 4}, max=100)
    return s


for build in (arithmetic, shifts, transfer, programs):
    build().write()
