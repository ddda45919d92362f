//! Which family of instructions a case belongs to, after the summary of the SDM (vol. 1, chapter 5).
//!
//! The text of a case decides: its mnemonic without prefixes, and for vector instructions its operands. A case without an
//! instruction of its own (a program, a ROM, a guest) belongs to its suite. Called by `suite`; the HTML page has a row each.

use crate::case::Case;

/// (family, mnemonics; `*` at the end stands for any ending). The first row that has it wins.
#[rustfmt::skip]
const TABLE: &[(&str, &[&str])] = &[
    ("Random number, misc (5.1.13-5.1.14)", &["nop", "ud*", "cpuid", "lea", "xlat*", "movbe", "prefetch*", "rdrand", "rdseed", "wait", "fwait", "pause", "rdtsc*", "rdpid", "clflush*", "crc32", "lfence", "mfence", "sfence", "endbr*", "serialize"]),
    ("System (5.20)",                       &["lgdt", "sgdt", "lldt", "sldt", "ltr", "str", "lidt", "sidt", "lmsw", "smsw", "clts", "arpl", "lar", "lsl", "verr", "verw", "invd", "wbinvd", "invlpg", "invpcid", "hlt", "rsm", "rdmsr", "wrmsr", "rdpmc", "sysenter", "sysexit", "syscall", "sysret*", "swapgs", "*fsbase", "*gsbase", "xsave*", "xrstor*", "xgetbv", "xsetbv", "fxsave*", "fxrstor*", "storeall", "loadall*", "clac", "stac", "monitor*", "mwait*", "vmcall", "vmmcall"]),
    ("x87 (5.2)",                           &["f*"]),
    ("Decimal arithmetic (5.1.3)",          &["aaa", "aad", "aam", "aas", "daa", "das"]),
    ("BMI1, BMI2, ADX (5.1.15-5.1.16)",     &["andn", "bextr", "blsi", "blsmsk", "blsr", "bzhi", "lzcnt", "mulx", "pdep", "pext", "rorx", "sarx", "shlx", "shrx", "tzcnt", "adcx", "adox"]),
    ("Binary arithmetic (5.1.2)",           &["add", "adc", "sub", "sbb", "imul", "mul", "idiv", "div", "inc", "dec", "neg", "cmp"]),
    ("Logical (5.1.4)",                     &["and", "or", "xor", "not"]),
    ("Shift and rotate (5.1.5)",            &["sar", "shr", "sal", "shl", "shrd", "shld", "ror", "rol", "rcr", "rcl", "setmo*"]),
    ("Bit and byte (5.1.6)",                &["bt", "bts", "btr", "btc", "bsf", "bsr", "set*", "test", "popcnt"]),
    ("I/O (5.1.9)",                         &["in", "out", "ins", "insb", "insw", "insd", "outs", "outsb", "outsw", "outsd"]),
    ("String (5.1.8)",                      &["movsb", "movsw", "movsq", "cmpsb", "cmpsw", "cmpsq", "scas*", "lods*", "stosb", "stosw", "stosd", "stosq"]),
    ("Control transfer (5.1.7)",            &["j*", "loop*", "call*", "ret*", "iret*", "int*", "bound", "enter*", "leave*"]),
    ("Flag control (5.1.11)",               &["stc", "clc", "cmc", "std", "cld", "lahf", "sahf", "pushf*", "popf*", "sti", "cli", "salc"]),
    ("Segment register (5.1.12)",           &["lds", "les", "lfs", "lgs", "lss"]),
    ("Data transfer (5.1.1)",               &["mov", "movabs", "cmov*", "xchg", "bswap", "xadd", "cmpxchg*", "push*", "pop*", "cbw", "cwd*", "cdq*", "cqo", "movsx*", "movzx", "movnti"]),
    ("AES, SHA, PCLMULQDQ (5.12, 5.18)",    &["aes*", "sha1*", "sha256*", "pclmul*"]),
    ("FMA (5.15)",                          &["vfm*", "vfnm*"]),
    ("F16C (5.14)",                         &["vcvtph2ps", "vcvtps2ph"]),
];
/// Words before a mnemonic.
const PREFIXES: [&str; 18] = [
    "rep", "repe", "repne", "repz", "repnz", "lock", "es", "cs", "ss", "ds", "fs", "gs", "data16", "data32", "addr16",
    "addr32", "xacquire", "xrelease",
];

/// The family of a case of this suite.
pub fn of_case(case: &Case, suite: &str) -> String {
    if case.code.is_empty() || case.text.is_empty() {
        return format!("Suite {suite}");
    }
    of_text(&case.text).map_or_else(|| format!("Suite {suite}"), str::to_owned)
}

/// The family of an instruction's text.
pub fn of_text(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let mut words = lower.split_whitespace().skip_while(|word| PREFIXES.contains(&word.trim_end_matches(':')));
    let mnemonic = words.next()?;
    let operands: String = words.collect();
    let wide = operands.contains("ymm") || operands.contains("xmm");
    let has = |names: &[&str]| {
        names.iter().any(|name| match (name.strip_suffix('*'), name.strip_prefix('*')) {
            (Some(start), _) => mnemonic.starts_with(start),
            (_, Some(end)) => mnemonic.ends_with(end),
            _ => mnemonic == *name,
        })
    };
    let row = TABLE.iter().find(|(_, names)| has(names)).map(|(family, _)| *family);
    // The name of a string instruction is also that of SSE2's scalar moves and compares.
    let double = matches!(mnemonic, "movsd" | "cmpsd");
    match row {
        None if double => Some(if wide { "SSE to SSE4.2 (5.5-5.10)" } else { "String (5.1.8)" }),
        Some(family) if !wide || family.starts_with("AES") || family.starts_with("F") => Some(family),
        _ if mnemonic.starts_with('v') => Some("AVX, AVX2 (5.13, 5.16)"),
        _ if wide || matches!(mnemonic, "ldmxcsr" | "stmxcsr") => Some("SSE to SSE4.2 (5.5-5.10)"),
        _ if mnemonic == "emms" || operands.contains("mm") => Some("MMX (5.4)"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let table = [
            ("add al,5", "Binary arithmetic (5.1.2)"),
            ("lock add [rdi],eax", "Binary arithmetic (5.1.2)"),
            ("rep movsb", "String (5.1.8)"),
            ("es movsd", "String (5.1.8)"),
            ("movsd xmm0,xmm1", "SSE to SSE4.2 (5.5-5.10)"),
            ("movd mm0,eax", "MMX (5.4)"),
            ("movq xmm0,mm0", "SSE to SSE4.2 (5.5-5.10)"),
            ("vpaddb ymm0,ymm1,ymm2", "AVX, AVX2 (5.13, 5.16)"),
            ("vfmadd132ps xmm0,xmm1,xmm2", "FMA (5.15)"),
            ("fsin", "x87 (5.2)"),
            ("aesenc xmm0,xmm1", "AES, SHA, PCLMULQDQ (5.12, 5.18)"),
            ("pextrw eax,mm0,1", "MMX (5.4)"),
            ("shlx rax,rbx,rcx", "BMI1, BMI2, ADX (5.1.15-5.1.16)"),
            ("imul ax,[bx],5", "Binary arithmetic (5.1.2)"),
            ("int3", "Control transfer (5.1.7)"),
            ("rdfsbase rax", "System (5.20)"),
        ];
        for (text, family) in table {
            assert_eq!(of_text(text), Some(family), "{text}");
        }
        assert_eq!((of_text(""), of_text("lock")), (None, None));
    }
}
