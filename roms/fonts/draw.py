#!/usr/bin/env python3
"""Builds 8x16.bin, 8x14.bin and 8x8.bin from 8x16.txt (code page 437). With a folder as argument, they go there instead."""
import os, sys

here = os.path.dirname(os.path.abspath(__file__))
out = sys.argv[1] if len(sys.argv) > 1 else here
font = [[0] * 16 for _ in range(256)]
for line in open(os.path.join(here, "8x16.txt")):
    if line.strip() and not line.startswith("#"):
        code, first, *rows = line.split()
        rows = bytes.fromhex("".join(rows))
        for at, row in enumerate(rows, int(first)):
            font[int(code, 16)][at] = row
for code, inverse in [(0x08, 0x07), (0x0A, 0x09)]:
    font[code] = [row ^ 0xFF for row in font[inverse]]

# Accented letters: a base and a mark above it.
MARKS = {
    "acute": [0x0C, 0x18, 0x30], "grave": [0x60, 0x30, 0x18], "hat": [0x10, 0x38, 0x6C], "dots": [0xCC, 0xCC, 0],
    "ring": [0x38, 0x6C, 0x38], "tilde": [0x76, 0xDC, 0],
}
ACCENTED = {
    0x81: "u dots", 0x82: "e acute", 0x83: "a hat", 0x84: "a dots", 0x85: "a grave", 0x86: "a ring", 0x88: "e hat",
    0x89: "e dots", 0x8A: "e grave", 0x8B: "\u0131 dots", 0x8C: "\u0131 hat", 0x8D: "\u0131 grave", 0x8E: "A dots",
    0x8F: "A ring", 0x90: "E acute", 0x93: "o hat", 0x94: "o dots", 0x95: "o grave", 0x96: "u hat", 0x97: "u grave",
    0x98: "y dots", 0x99: "O dots", 0x9A: "U dots", 0xA0: "a acute", 0xA1: "\u0131 acute", 0xA2: "o acute",
    0xA3: "u acute", 0xA4: "n tilde", 0xA5: "N tilde",
}
for code, parts in ACCENTED.items():
    base, mark = parts.split()
    glyph = font[ord("i" if base == "\u0131" else base)][:]
    if base == "\u0131":
        glyph[0:5] = [0] * 5
    if base.isupper():
        # A capital gives up its second and third row to make room for the mark.
        glyph = [0, 0, 0] + glyph[2:4] + glyph[5:12] + [0, 0, 0, 0]
        glyph[0:3] = MARKS[mark]
    else:
        glyph[1:4] = MARKS[mark]
    font[code] = glyph

# Boxes: each arm is nothing, a single or a double line; left, right, up, down.
BOXES = {
    0xB3: "..11", 0xB4: "1.11", 0xB5: "2.11", 0xB6: "1.22", 0xB7: "1..2", 0xB8: "2..1", 0xB9: "2.22", 0xBA: "..22",
    0xBB: "2..2", 0xBC: "2.2.", 0xBD: "1.2.", 0xBE: "2.1.", 0xBF: "1..1", 0xC0: ".11.", 0xC1: "111.", 0xC2: "11.1",
    0xC3: ".111", 0xC4: "11..", 0xC5: "1111", 0xC6: ".211", 0xC7: ".122", 0xC8: ".22.", 0xC9: ".2.2", 0xCA: "222.",
    0xCB: "22.2", 0xCC: ".222", 0xCD: "22..", 0xCE: "2222", 0xCF: "221.", 0xD0: "112.", 0xD1: "22.1", 0xD2: "11.2",
    0xD3: ".12.", 0xD4: ".21.", 0xD5: ".2.1", 0xD6: ".1.2", 0xD7: "1122", 0xD8: "2211", 0xD9: "1.1.", 0xDA: ".1.1",
}
def box(left, right, up, down):
    dots = set()
    columns = lambda kind: [(3, 4)] if kind == "1" else [(2, 2), (5, 5)]
    rows = lambda kind: [7] if kind == "1" else [6, 8]
    # An arm reaches over the lines that cross it; between double lines it stops at the nearer one.
    across = [kind for kind in (up, down) if kind != "."]
    along = [kind for kind in (left, right) if kind != "."]
    for kind, start, end in ((left, 0, 5 if across == [] or "2" in across else 4), (right, 2 if "2" in across else 3, 7)):
        for row in rows(kind) if kind != "." else []:
            dots |= {(x, row) for x in range(start, end + 1)}
    for kind, start, end in ((up, 0, 8 if "2" in along else 7), (down, 6 if "2" in along else 7, 15)):
        for first, last in columns(kind) if kind != "." else []:
            dots |= {(x, y) for x in range(first, last + 1) for y in range(start, end + 1)}
    # The inside of a double crossing is open.
    if "2" in across and "2" in along:
        dots -= {(x, 7) for x in (3, 4)}
        if left == "2":
            dots -= {(x, 7) for x in (0, 1, 2)}
        if right == "2":
            dots -= {(x, 7) for x in (5, 6, 7)}
        for arm, ys in ((up, range(0, 6)), (down, range(9, 16))):
            if arm == "2":
                dots -= {(x, y) for x in (3, 4) for y in ys}
        if left == "2" and right == "2":
            for arm, row in ((up, 6), (down, 8)):
                if arm == "2":
                    dots -= {(x, row) for x in (3, 4)}
        if up == "2" and down == "2":
            for side, x in ((left, 2), (right, 5)):
                if side == "2":
                    dots -= {(x, 7)}
    return [sum(0x80 >> x for x in range(8) if (x, y) in dots) for y in range(16)]
for code, arms in BOXES.items():
    font[code] = box(*arms)
for code, rows in [(0xB0, [0x22, 0x88]), (0xB1, [0x55, 0xAA]), (0xB2, [0xDD, 0x77])]:
    font[code] = [rows[y % 2] for y in range(16)]
font[0xDB] = [0xFF] * 16
font[0xDC] = [0] * 8 + [0xFF] * 8
font[0xDD] = [0xF0] * 16
font[0xDE] = [0x0F] * 16
font[0xDF] = [0xFF] * 8 + [0] * 8

def shrink(glyph, height, code):
    if 0xB0 <= code <= 0xDF:
        return [glyph[y * 16 // height] for y in range(height)]
    if height == 14:
        return glyph[1:15]
    # Eight lines of the twelve that letters fill: neighbours are joined.
    body = glyph[1:15]
    lines = [body[0] | body[1]] + [body[y] for y in (2, 4, 6, 7)] + [body[9], body[10]] + [body[12] | body[13]]
    return lines
for height in (16, 14, 8):
    data = b"".join(bytes(g if height == 16 else shrink(g, height, code)) for code, g in enumerate(font))
    assert len(data) == 256 * height
    open(os.path.join(out, f"8x{height}.bin"), "wb").write(data)
