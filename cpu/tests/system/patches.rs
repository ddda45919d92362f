//! Code whose immediates are changed while it runs (`cache::patches`): by whatever store, every call sees what stands there; and
//! blocks that load their immediates stay, where emitted code is changed again and again at the same place.

use super::bench::*;
use super::engine;
use umbra_cpu::Exit;
use umbra_cpu::debug::{WatchFor, Watchpoint};
use umbra_cpu::state::slots;

/// Where the function is, and what it works on.
const FUNCTION: u64 = CODE + 0x180;
const DATA: u64 = 0x4_0000;
/// Calls after each change.
const CALLS: u8 = 6;

/// The stores that change code, by bytes written: MOV [EDI or RDI], AL, AX, EAX, RAX.
fn store(bytes: u64, wide: bool) -> &'static [u8] {
    match bytes {
        1 => &[0x88, 0x07],
        2 => &[0x66, 0x89, 0x07],
        4 => &[0x89, 0x07],
        _ if wide => &[0x48, 0x89, 0x07],
        _ => &[0x89, 0x07],
    }
}

/// A guest at level 3 with a function that changes EBX and memory, and its changer.
struct Patched {
    guest: Guest,
    wide: bool,
    /// Instructions of the function, RET among them.
    length: u64,
}

impl Patched {
    fn new(engine: &str, wide: bool, body: &[&[u8]]) -> Patched {
        let mut guest = if wide { Guest::long_user(&[]) } else { Guest::user(&[]) };
        engine::named(&mut guest.cpu, engine);
        guest.write(FUNCTION, &[body.concat(), vec![0xc3]].concat());
        Patched { guest, wide, length: body.len() as u64 + 1 }
    }
    /// Stores the low `bytes` of `value` at `at`, then calls the function [`CALLS`] times. Gives EBX and the data.
    fn change(&mut self, at: u64, bytes: u64, value: u64) -> (u64, u64) {
        let store = store(bytes, self.wide);
        let start = CODE + 0x20 * bytes;
        let call = start + store.len() as u64 + 5;
        let relative = (FUNCTION.wrapping_sub(call + 5) as u32).to_le_bytes();
        let rest = [&[0xbe, CALLS, 0, 0, 0, 0xe8], &relative[..], &[0x83, 0xee, 1, 0x75, 0xf6, 0xeb, 0xfe]].concat();
        let code = [store, &rest[..]].concat();
        if self.guest.quad(start) & 0xffff != u64::from(u16::from_le_bytes([code[0], code[1]])) {
            self.guest.write(start, &code);
        }
        self.guest.edit(|state| {
            state.rip = start;
            state.set_gpr(slots::RAX, value);
            state.set_gpr(slots::RDI, at);
        });
        let exit = self.guest.step(2 + u64::from(CALLS) * (self.length + 3));
        assert_eq!(exit, Exit::BudgetSpent);
        (self.guest.gpr(slots::RBX), self.guest.quad(DATA))
    }
    fn left(&self) -> u64 {
        self.guest.cpu.link.counters.patched
    }
}

/// Each kind of immediate, changed 40 times: sums as expected, and from the third change on nothing is lifted anew.
#[test]
fn every_kind_of_immediate_that_changes_is_loaded() {
    let data = (DATA as u32).to_le_bytes();
    let at_data = |head: &[u8], wide: bool| {
        // [disp32] is RIP-relative in 64-bit mode but for a SIB without base.
        let (modrm, rest) = head.split_last().expect("an opcode and a ModRM byte");
        if wide { [rest, &[modrm | 4, 0x25], &data].concat() } else { [rest, &[modrm | 5], &data].concat() }
    };
    type Sum = fn(u64, u64) -> u64;
    let add: Sum = |sum, value| (sum + value) & 0xffff_ffff;
    let low: Sum = |sum, value| sum & !0xff | (sum + value) & 0xff;
    let word: Sum = |sum, value| sum & !0xffff | (sum + value) & 0xffff;
    for wide in [false, true] {
        // Instruction, its immediate's offset and bytes, what a call does to EBX; whether it may be loaded.
        let rows: [(Vec<u8>, u64, Sum, bool); 6] = [
            (vec![0x81, 0xc3, 0, 0, 0, 0], 4, add, true),
            (vec![0x80, 0xc3, 0], 1, low, true),
            (vec![0x66, 0x81, 0xc3, 0, 0], 2, word, true),
            (vec![0x83, 0xc3, 0], 1, |sum, value| sum.wrapping_add(value as i8 as u64) & 0xffff_ffff, false),
            ([at_data(&[0xc7, 0], wide), vec![0; 4]].concat(), 4, |_, value| value, true),
            ([at_data(&[0x81, 0], wide), vec![0; 4]].concat(), 4, add, true),
        ];
        for engine in engines() {
            for (row, (insn, bytes, sum, loaded)) in rows.iter().enumerate() {
                let mut patched = Patched::new(engine, wide, &[insn]);
                let at = FUNCTION + insn.len() as u64 - bytes;
                let mut expected = 0;
                for n in 0..40u64 {
                    let value = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7 & (u64::MAX >> (64 - 8 * bytes));
                    let (register, memory) = patched.change(at, *bytes, value);
                    (0..CALLS).for_each(|_| expected = sum(expected, value));
                    let found = if row < 4 { register } else { memory };
                    assert_eq!(found, expected, "{engine}, wide {wide}, row {row}, change {n}");
                }
                let left = patched.left();
                assert_eq!(left > 30, *engine == "jit" && *loaded, "{engine}, wide {wide}, row {row}: {left} times");
            }
        }
    }
}

/// A 64-bit constant, as trampolines have it.
#[test]
fn a_wide_constant_that_changes_is_loaded() {
    for engine in engines() {
        let mut patched = Patched::new(engine, true, &[&[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0], &[0x48, 0x01, 0xc3]]);
        let mut expected = 0u64;
        for n in 0..40u64 {
            let value = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            expected = expected.wrapping_add(value.wrapping_mul(CALLS.into()));
            assert_eq!(patched.change(FUNCTION + 2, 8, value).0, expected, "{engine}, change {n}");
        }
        assert_eq!(patched.left() > 30, *engine == "jit", "{engine}: {} times", patched.left());
    }
}

/// Three instructions ADD, SUB or XOR EBX with an immediate each, of which random bytes are written, opcodes among them, by the
/// guest or by somebody else: as on a machine that decodes each byte at each call.
#[test]
fn whatever_is_written_is_seen() {
    const OPCODES: [u8; 3] = [0xc3, 0xeb, 0xf3];
    for engine in engines() {
        for wide in [false, true] {
            let insn: &[u8] = &[0x81, 0xc3, 1, 0, 0, 0];
            let mut patched = Patched::new(engine, wide, &[insn; 3]);
            let mut bytes: Vec<u8> = insn.repeat(3);
            let (mut random, mut sum) = (0x1234_5678_9abc_def1u64, 0u32);
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 11) % below
            };
            for round in 0..3000 {
                // Mostly the same immediate, else another place.
                let n = if next(4) != 0 { 1 } else { next(3) };
                let (offset, len, value) = match next(16) {
                    0 => (6 * n + 1, 1, u64::from(OPCODES[next(3) as usize])),
                    1 => (6 * n + 2 + next(4), 1, next(256)),
                    2 => (6 * n + 2 + 2 * next(2), 2, next(1 << 16)),
                    _ => (6 * n + 2, 4, next(1 << 32)),
                };
                let range = offset as usize..(offset + len) as usize;
                bytes[range].copy_from_slice(&value.to_le_bytes()[..len as usize]);
                if next(16) == 0 {
                    patched.guest.write(FUNCTION + offset, &value.to_le_bytes()[..len as usize]);
                    patched.change(DATA + 16, 1, 0);
                } else {
                    patched.change(FUNCTION + offset, len, value);
                }
                for _ in 0..CALLS {
                    for insn in bytes.chunks(6) {
                        let value = u32::from_le_bytes([insn[2], insn[3], insn[4], insn[5]]);
                        sum = match insn[1] {
                            0xc3 => sum.wrapping_add(value),
                            0xeb => sum.wrapping_sub(value),
                            _ => sum ^ value,
                        };
                    }
                }
                assert_eq!(patched.guest.gpr(slots::RBX) as u32, sum, "{engine}, wide {wide}, round {round}");
            }
            assert_eq!(patched.left() > 500, *engine == "jit", "{engine}: {} times", patched.left());
        }
    }
}

/// To execute an instruction is not to read its immediate.
#[test]
fn a_watchpoint_on_an_immediate_sees_no_fetch() {
    for engine in engines() {
        let mut patched = Patched::new(engine, true, &[&[0x81, 0xc3, 0, 0, 0, 0]]);
        for n in 0..10 {
            patched.change(FUNCTION + 2, 4, n);
        }
        patched.guest.cpu.watch(Watchpoint { linear: FUNCTION + 2, len: 4, sees: WatchFor::Reads });
        for n in 0..10 {
            // Would stop.
            patched.change(FUNCTION + 2, 4, n);
        }
    }
}

/// Somebody who wants it so has all code made anew.
#[test]
fn it_can_be_switched_off() {
    for engine in engines() {
        let mut patched = Patched::new(engine, true, &[&[0x81, 0xc3, 0, 0, 0, 0]]);
        patched.guest.cpu.link.cache.forget_patches();
        for n in 0..20 {
            patched.change(FUNCTION + 2, 4, n);
        }
        assert_eq!(patched.left(), 0, "{engine}");
    }
}
