//! Runs given code on the host's processor and prints what it did as a line of the vector format:
//! `record MODE HEX [REGISTER=VALUE…]`, with rax…r15, fl, cw, sw, tag, mxcsr, vN and mem (hexadecimal bytes), values in
//! hexadecimal. RSI and RDI point to `mem`, RSP into the stack.

use umbra_oracle::host::Host;
use umbra_oracle::layout::{DATA_MIDDLE, ENTRY, Mode, STACK_MIDDLE};
use umbra_oracle::program::{Item, Program, Start};
use umbra_oracle::{compare, vector_case};

fn bytes(hex: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16)).collect()
}

fn set(start: &mut Start, name: &str, value: &str) -> Result<(), Box<dyn std::error::Error>> {
    let r = &mut start.registers;
    if let Some(n) = vector_case::NAMES.iter().position(|known| *known == name) {
        r.gpr[n] = u64::from_str_radix(value, 16)?;
    } else if let Some(n) = name.strip_prefix('v') {
        let words = &mut r.vectors[n.parse::<usize>()? & 15];
        for (word, part) in words.iter_mut().zip(bytes(value)?.chunks(8)) {
            *word = part.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        }
    } else if let Some(n) = name.strip_prefix("st") {
        let all = bytes(value)?;
        let word = |part: &[u8]| part.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        r.st[n.parse::<usize>()? & 7] = (word(&all[..8]), word(&all[8..]) as u16);
    } else {
        let number = u64::from_str_radix(value, 16).unwrap_or(0);
        match name {
            "fl" => r.rflags = number,
            "cw" => r.cw = number as u16,
            "sw" => r.sw = number as u16,
            "tag" => r.tags = number as u16,
            "mxcsr" => r.mxcsr = number as u32,
            "mem" => {
                let all = bytes(value)?;
                start.memory[DATA_MIDDLE as usize..][..all.len()].copy_from_slice(&all);
            }
            _ => return Err(format!("{name} is no register").into()),
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, code, settings @ ..] = &arguments[..] else { return Err("MODE HEX [REGISTER=VALUE…]".into()) };
    let mode = Mode::ALL.into_iter().find(|m| m.bits().to_string() == *mode).ok_or("the mode is 64, 32 or 16")?;
    let code = bytes(code)?;
    let mut start = Start::default();
    let r = &mut start.registers;
    (r.rflags, r.cw, r.mxcsr, r.rip) = (0x202, 0x37f, 0x1f80, mode.code() + ENTRY);
    r.gpr[4] = mode.stack() + STACK_MIDDLE;
    (r.gpr[6], r.gpr[7]) = (mode.data() + DATA_MIDDLE, mode.data() + DATA_MIDDLE);
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("settings are REGISTER=VALUE")?;
        set(&mut start, name, value)?;
    }
    let items = vec![Item::Plain { bytes: code.clone(), rip: None }, Item::Halt];
    let program = Program { mode, items, start };
    let outcome = Host::start()?.run(mode, &code, &program.start)?;
    let assembled = program.assemble().ok_or("the code does not fit")?;
    let undefined = program.undefined_flags().unwrap_or_default();
    let offset = outcome.registers.rip.wrapping_sub(mode.code() + ENTRY);
    let names = compare::undefined_at(&assembled, &undefined, offset);
    println!("{}", vector_case::line(&program, &code, &outcome, names, ""));
    Ok(())
}
