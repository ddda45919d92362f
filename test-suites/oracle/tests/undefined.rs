//! The table of undefined results (`umbra_cpu::undefined`) is complete, and each engine follows it.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic as M, OpKind, Register};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::flags::{self, AF, CF, OF, PF, SF, ZF};
use umbra_cpu::undefined::{self, Value};
use umbra_oracle::compare::rflags_bits;
use umbra_oracle::generate::Generator;
use umbra_oracle::layout::{DATA_PAGES, Mode, Outcome, PAGE, STACK_AT};
use umbra_oracle::ours::{Engine, Ours};
use umbra_oracle::program::{Item, Start, X87_CONDITIONS};

/// Every engine that there is.
const ENGINES: &[Engine] = if cfg!(all(target_arch = "x86_64", not(portable))) {
    &[Engine::Interpreter, Engine::Jit]
} else {
    &[Engine::Interpreter]
};
/// Random operands for each form.
const CASES: u64 = 12;

/// The bytes of the destination of an instruction after it ran, sign-extended to 64 bits with their width in bits.
fn result(insn: &Instruction, mode: Mode, start: &Start, after: &Outcome) -> Option<(u64, u32)> {
    let of_register = |register: Register| {
        let whole = after.registers.gpr[register.full_register().number()];
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        (if high { whole >> 8 } else { whole }, register.size() as u32 * 8)
    };
    match insn.mnemonic() {
        M::Mul | M::Imul if insn.op_count() == 1 => {
            let width = insn.op0_register().size().max(insn.memory_size().size()) as u32 * 8;
            Some((after.registers.gpr[0], width))
        }
        M::Aaa | M::Aas => Some((after.registers.gpr[0], 8)),
        _ if insn.op0_kind() == OpKind::Register => Some(of_register(insn.op0_register())),
        _ if insn.is_ip_rel_memory_operand() => None,
        _ => {
            let value = |register: Register, _: usize, _: usize| {
                if register.is_segment_register() {
                    return Some(0);
                }
                let whole = start.registers.gpr[register.full_register().number()];
                Some(if register.size() == 8 { whole } else { whole & u64::MAX >> (64 - 8 * register.size()) })
            };
            let linear = insn.virtual_address(0, 0, value)?;
            let at = if linear >= mode.stack() {
                (linear - mode.stack()) as usize + STACK_AT
            } else {
                linear.checked_sub(mode.data()).filter(|at| *at < (DATA_PAGES * PAGE) as u64)? as usize
            };
            let bytes = after.memory.get(at..at + insn.memory_size().size())?;
            let word = bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
            Some((word, insn.memory_size().size() as u32 * 8))
        }
    }
}

/// The count of a shift or rotate, masked; `None` for other instructions.
fn count(insn: &Instruction, start: &Start) -> Option<u64> {
    let shifts = [M::Shl, M::Sal, M::Shr, M::Sar, M::Rol, M::Ror, M::Rcl, M::Rcr, M::Shld, M::Shrd];
    if !shifts.contains(&insn.mnemonic()) {
        return None;
    }
    let last = insn.op_count() - 1;
    let count = if insn.op_kind(last) == OpKind::Register { start.registers.gpr[1] } else { insn.immediate(last) };
    let wide = insn.op0_register().size().max(insn.memory_size().size()) == 8;
    Some(count & if wide { 63 } else { 31 })
}

fn expected(value: Value, flag: u64, before: u64, after: u64, result: Option<(u64, u32)>) -> Option<bool> {
    let bit = |n: u32| result.map(|(word, width)| word >> (width - 1 - n) & 1 != 0);
    Some(match value {
        Value::Clear => false,
        Value::Kept => before & flag != 0,
        Value::OfResult => {
            let (word, width) = result?;
            match flag {
                SF => bit(0)?,
                ZF => word & u64::MAX >> (64 - width) == 0,
                PF => (word as u8).count_ones().is_multiple_of(2),
                _ => panic!("a result says nothing about flag {flag:x}"),
            }
        }
        Value::SignAgainstCarry => bit(0)? != (after & CF != 0),
        Value::UpperBits => bit(0)? != bit(1)?,
    })
}

#[test]
fn engines_follow_the_table() {
    let generator = Generator::new(&CpuModel::by_name("max").unwrap());
    for &engine in ENGINES {
        let mut ours = Ours::new("max", engine).unwrap();
        let (mut checked, mut conditions) = (0u64, 0u64);
        for mode in Mode::ALL {
            for form in 0..generator.table(mode).all().count() {
                for seed in 0..CASES {
                    let Some(program) = generator.single(mode, form, seed) else { continue };
                    let [Item::Plain { bytes, .. }, Item::Halt] = &program.items[..] else { continue };
                    let insn = Decoder::new(mode.bits(), bytes, DecoderOptions::NONE).decode();
                    let names = insn.rflags_undefined();
                    if names == 0 {
                        continue;
                    }
                    let assembled = program.assemble().unwrap();
                    let after = ours.run(mode, &assembled.code, &program.start);
                    let ended = after.registers.rip - program.start.registers.rip;
                    if ended != bytes.len() as u64 {
                        continue;
                    }
                    if names & X87_CONDITIONS != 0 {
                        // C0, C2 and C3 are kept, and C1 where it is undefined too; FFREE clears that.
                        let bits = umbra_oracle::compare::x87_bits(names);
                        let frees = matches!(insn.mnemonic(), M::Ffree | M::Ffreep);
                        let mut wanted = program.start.registers.sw;
                        if frees {
                            wanted &= !0x200;
                        }
                        assert_eq!((after.registers.sw ^ wanted) & bits, 0, "{insn}");
                        conditions += 1;
                    }
                    let (before, flags_after) = (program.start.registers.rflags, after.registers.rflags);
                    let found = result(&insn, mode, &program.start, &after);
                    let shift = count(&insn, &program.start);
                    for flag in [CF, PF, AF, ZF, SF, OF] {
                        if rflags_bits(names) & flag == 0 || shift == Some(1) && flag == OF {
                            continue;
                        }
                        let Some(mut value) = undefined::value(insn.mnemonic(), flag) else {
                            panic!("{insn}: no row for flag {flag:x}")
                        };
                        if shift == Some(0) {
                            value = Value::Kept;
                        }
                        let Some(wanted) = expected(value, flag, before, flags_after, found) else { continue };
                        assert_eq!(
                            flags_after & flag != 0,
                            wanted,
                            "{engine:?}: {insn} from {before:x} to {flags_after:x}, flag {flag:x} should be {value:?}"
                        );
                        checked += 1;
                    }
                }
            }
        }
        assert!(
            checked > 5_000 && conditions > 500,
            "only {checked} flags and {conditions} status words were compared"
        );
    }
    assert_eq!(flags::STATUS, CF | PF | AF | ZF | SF | OF);
}
