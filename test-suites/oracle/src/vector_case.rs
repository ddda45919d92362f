//! A program with the host's outcome as one line of the vector format (`test-suites/conformance/docs/vectors.md`).

use crate::compare::rflags_bits;
use crate::layout::{ARENA, DATA_PAGES, ENTRY, Mode, Outcome, PAGE, STACK_AT};
use crate::program::Program;
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use std::fmt::Write as _;

/// The names of general registers in the format.
pub const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// The text of code, an instruction after another.
pub fn disassembly(mode: Mode, code: &[u8]) -> String {
    let mut decoder = Decoder::with_ip(mode.bits(), code, mode.code() + ENTRY, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    while decoder.can_decode() {
        let insn = decoder.decode();
        let mut one = String::new();
        formatter.format(&insn, &mut one);
        let _ = write!(text, "{}{one}", if text.is_empty() { "" } else { "; " });
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// (linear, bytes) of the runs of bytes in an arena image that `pick` chooses.
fn runs(mode: Mode, image: &[u8], pick: impl Fn(usize) -> bool) -> Vec<String> {
    let linear =
        |at: usize| if at < STACK_AT { mode.data() + at as u64 } else { mode.stack() + (at - STACK_AT) as u64 };
    let mut out = Vec::new();
    let mut at = 0;
    while at < ARENA {
        if !pick(at) {
            at += 1;
            continue;
        }
        let from = at;
        while at < ARENA && at - from < 64 && pick(at) && (at == from || at != STACK_AT) {
            at += 1;
        }
        out.push(format!(r#"["{:x}","{}"]"#, linear(from), hex(&image[from..at])));
    }
    out
}

/// The line: free layout, with everything that the host left behind but the flags in `undefined`.
pub fn line(program: &Program, code: &[u8], host: &Outcome, undefined: u32, comment: &str) -> String {
    let mode = program.mode;
    let (start, end) = (&program.start.registers, &host.registers);
    let register_mask = mode.register_mask();
    let page = PAGE as u64;
    let entry = mode.code() + ENTRY;
    let map = [
        (mode.code(), page, "rx"),
        (mode.data(), DATA_PAGES as u64 * page, "rw"),
        (mode.data() + DATA_PAGES as u64 * page, page, "r"),
        (mode.stack(), page, "rw"),
    ];
    let map: Vec<String> = map.iter().map(|(at, len, rights)| format!(r#"["{at:x}",{len},"{rights}"]"#)).collect();
    let mut load = vec![format!(r#"["{entry:x}","{}f4"]"#, hex(code))];
    load.extend(runs(mode, &program.start.memory, |at| program.start.memory[at] != 0));
    let mut i = String::new();
    let mut o = String::new();
    for (n, name) in NAMES.iter().enumerate().take(mode.registers()) {
        let (before, after) = (start.gpr[n] & register_mask, end.gpr[n] & register_mask);
        if before != 0 {
            let _ = write!(i, r#""{name}":"{before:x}","#);
        }
        let after = if n == 4 && mode == Mode::Bits16 { after & 0xffff | before & 0xffff_0000 } else { after };
        let _ = write!(o, r#""{name}":"{after:x}","#);
        let vector = |v: &[u64; 4]| hex(&v.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>());
        if start.vectors[n] != [0; 4] {
            let _ = write!(i, r#""v{n}":"{}","#, vector(&start.vectors[n]));
        }
        if end.vectors[n] != start.vectors[n] {
            let _ = write!(o, r#""v{n}":"{}","#, vector(&end.vectors[n]));
        }
    }
    for (text, registers) in [(&mut i, start), (&mut o, end)] {
        let _ = write!(text, r#""fl":"{:x}","mxcsr":"{:x}","#, registers.rflags & 0xcd5 | 0x202, registers.mxcsr);
        let st = registers.st.iter().map(|(s, e)| format!("{}{}", hex(&s.to_le_bytes()), hex(&e.to_le_bytes())));
        let st = st.collect::<Vec<_>>().join(" ");
        let _ = write!(text, r#""fpu":"cw {:x} sw {:x} tag {:x} {st}","#, registers.cw, registers.sw, registers.tags);
    }
    let changed = runs(mode, &host.memory, |at| host.memory[at] != program.start.memory[at]);
    if !changed.is_empty() {
        let _ = write!(o, r#""mem":[{}],"#, changed.join(","));
    }
    let at = end.rip.wrapping_sub(entry);
    let halted = host.end.vector == 13 && code.get(at as usize).is_none_or(|b| *b == 0xf4);
    if !halted {
        let _ = write!(o, r#""exc":{},"#, host.end.vector);
        if host.end.vector == 14 {
            // Linux tells every user access to its half as one to a page that is there.
            let error = if host.end.cr2 >= 1 << 47 { host.end.error & !1 } else { host.end.error };
            let _ = write!(o, r#""err":{error},"cr2":"{:x}","#, host.end.cr2);
        }
    }
    let _ = write!(o, r#""rip":{}"#, if at < 0x800 { at.to_string() } else { format!("\"{:x}\"", end.rip) });
    let flags = match rflags_bits(undefined) {
        0 => String::new(),
        bits => format!(r#","uf":{bits}"#),
    };
    let comment = if comment.is_empty() { String::new() } else { format!(r#","comment":"{comment}""#) };
    let text = disassembly(mode, code.strip_suffix(&[0xf4]).unwrap_or(code)).replace('"', "'");
    format!(
        r#"{{"m":{},"n":"{text}"{comment},"map":[{}],"load":[{}],"entry":"{entry:x}","max":100000{flags},"i":{{{}}},"o":{{{o}}}}}"#,
        mode.bits(),
        map.join(","),
        load.join(","),
        i.trim_end_matches(','),
    )
}
