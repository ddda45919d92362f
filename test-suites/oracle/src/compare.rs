//! What two outcomes differ in, as lines for people; and which flags count.

use crate::layout::{ENTRY, End, Mode, Outcome, PAGE};
use crate::program::{Assembled, STATUS};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, Mnemonic, OpKind, RflagsBits};
use std::fmt::Write as _;

/// RFLAGS bits that programs can change: status flags and DF.
const FLAGS: u64 = 0xcd5;

/// The decoder's names for flags, and where they are in RFLAGS or (second) in the x87 status word.
const PLACES: [(u32, u64, u16); 10] = [
    (RflagsBits::CF, 1, 0),
    (RflagsBits::PF, 1 << 2, 0),
    (RflagsBits::AF, 1 << 4, 0),
    (RflagsBits::ZF, 1 << 6, 0),
    (RflagsBits::SF, 1 << 7, 0),
    (RflagsBits::OF, 1 << 11, 0),
    (RflagsBits::C0, 0, 1 << 8),
    (RflagsBits::C1, 0, 1 << 9),
    (RflagsBits::C2, 0, 1 << 10),
    (RflagsBits::C3, 0, 1 << 14),
];

/// The RFLAGS bits among the decoder's flag names.
pub fn rflags_bits(names: u32) -> u64 {
    PLACES.iter().filter(|(name, ..)| names & name != 0).fold(0, |bits, (_, bit, _)| bits | bit)
}

/// The status word's bits among the decoder's flag names.
pub fn x87_bits(names: u32) -> u16 {
    PLACES.iter().filter(|(name, ..)| names & name != 0).fold(0, |bits, (_, _, bit)| bits | bit)
}

/// What the manuals leave undefined where a program ended at this offset in its code.
pub fn undefined_at(assembled: &Assembled, undefined: &[u32], offset: u64) -> u32 {
    let mut reached = assembled.offsets.iter().enumerate().filter(|(_, at)| **at as u64 == offset).peekable();
    if reached.peek().is_none() {
        // A jump to somewhere else.
        return STATUS;
    }
    reached.map(|(n, _)| undefined.get(n).copied().unwrap_or(0)).fold(0, |all, names| all | names)
}

/// Where processors that the manuals allow differ from Umbra's model, by the instruction at which one side ended: the reason.
pub fn vendor_difference(mode: Mode, code: &[u8], host: &Outcome, ours: &Outcome) -> Option<&'static str> {
    let at = |outcome: &Outcome| {
        let offset = outcome.registers.rip.wrapping_sub(mode.code() + ENTRY) as usize;
        let bytes = code.get(offset..).unwrap_or_default();
        Decoder::new(mode.bits(), bytes, DecoderOptions::NONE).decode()
    };
    if mode == Mode::Bits64 && !crate::host_is_intels() && has_pause_with_rex_b(code) {
        return Some("F3 REX.B 90: PAUSE on Intel's processors, XCHG with R8 on AMD's");
    }
    let (h, o) = (at(host), at(ours));
    let sha = h.cpuid_features().contains(&CpuidFeature::SHA) && h.code().op_code().encoding() == EncodingKind::Legacy;
    if sha && host.end.vector == 13 {
        return Some("SHA with an operand that is not aligned: #GP on Intel's processors, none on AMD's (recorded)");
    }
    let stores_some = matches!(h.mnemonic(), Mnemonic::Enter | Mnemonic::Pusha | Mnemonic::Pushad);
    if stores_some && matches!(host.end.vector, 12 | 14) && host.end.vector == ours.end.vector {
        return Some("ENTER, PUSHA that fault: which of their pushes are stored is not defined; Umbra stores none");
    }
    let to_mmx = matches!(
        h.mnemonic(),
        Mnemonic::Cvtpi2ps | Mnemonic::Cvtps2pi | Mnemonic::Cvttps2pi | Mnemonic::Cvtpd2pi | Mnemonic::Cvttpd2pi
    );
    if to_mmx && host.end.vector == 19 && host.end.vector == ours.end.vector {
        return Some("conversions to and from MMX that raise #XM: whether the transition to MMX is made before it");
    }
    if h.mnemonic() == Mnemonic::Vcvtps2ph && host.end.vector == 19 && host.end.vector == ours.end.vector {
        return Some("VCVTPS2PH of a denormal with underflow unmasked: Intel's processors add PE to MXCSR");
    }
    if h.mnemonic() == Mnemonic::Cmpxchg16b && host.end.vector == 13 && ours.end.vector == 12 {
        return Some("CMPXCHG16B on the stack, neither aligned nor canonical: which exception comes first");
    }
    let gather = h.is_vsib() && h.encoding() == EncodingKind::VEX;
    if gather && !crate::host_is_intels() && matches!(host.end.vector, 12..=14) && host.end.vector == ours.end.vector {
        return Some(
            "gathers that fault: what is left of the mask, and whether its upper half is cleared (Intel's is compared)",
        );
    }
    let repeated = h.is_string_instruction() && (h.has_repe_prefix() || h.has_repne_prefix());
    let finds = repeated && h.rflags_written() != RflagsBits::NONE;
    let same_but_flags = host.end.vector == ours.end.vector
        && host.registers.rip == ours.registers.rip
        && host.registers.gpr == ours.registers.gpr;
    if finds && !crate::host_is_intels() && matches!(host.end.vector, 12..=14) && same_but_flags {
        return Some(
            "repeated CMPS and SCAS that fault after some elements: Intel's flags are those from before (SDM vol. 2, REP), AMD's the last element's",
        );
    }
    let mmx_store = h.op0_kind() == OpKind::Memory && (0..h.op_count()).any(|n| h.op_register(n).is_mm());
    if mmx_store && matches!(host.end.vector, 12..=14) && host.end.vector == ours.end.vector {
        return Some("stores of MMX registers that fault: whether the transition to MMX is made before it");
    }
    if mode != Mode::Bits64 && matches!(ours.end.vector, 12 | 13) && host.end.vector == 14 && host.end.cr2 > 0xffff_ff00
    {
        return Some(
            "an access around the end of a 4 GiB segment: which exception is the implementation's (SDM vol. 3, 5.3)",
        );
    }
    let prefetch = matches!(
        o.code(),
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    );
    if prefetch && ours.end.vector == 6 {
        return Some("PREFETCH of a register: #UD on AMD's processors (APM vol. 3), a no-operation on Intel's");
    }
    if host.end.vector == End::TIMEOUT && ours.end.vector == End::TIMEOUT {
        return Some("the program does not end: where each side gave up is not comparable");
    }
    None
}

fn has_pause_with_rex_b(code: &[u8]) -> bool {
    code.windows(2).any(|pair| pair[0] & 0xf1 == 0x41 && pair[1] == 0x90) && code.contains(&0xf3)
}

/// A line for each difference; empty if there is none. `undefined` holds the decoder's flag names.
pub fn differences(mode: Mode, undefined: u32, host: &Outcome, ours: &Outcome) -> String {
    let mut out = String::new();
    let mut ended = ours.end;
    let arena = mode.data()..mode.stack() + PAGE as u64;
    if host.end.vector == 14 && (host.end.cr2 >= (1 << 47) - PAGE as u64 || arena.contains(&host.end.cr2)) {
        // Linux tells every user access to its half, and to the last page below, as one to a page that is there, and fills page
        // tables when it likes.
        ended.error = ended.error & !1 | host.end.error & 1;
    }
    if host.end != ended {
        let _ = writeln!(out, "end: ours {:x?}, host {:x?}", ours.end, host.end);
    }
    let (h, o) = (&host.registers, &ours.registers);
    if h.rip != o.rip {
        let _ = writeln!(out, "rip: ours {:x}, host {:x}", o.rip, h.rip);
    }
    for n in 0..mode.registers() {
        // A 16-bit stack leaves the upper half of ESP to whoever returned to it.
        let mask = if mode == Mode::Bits16 && n == 4 { 0xffff } else { mode.register_mask() };
        if (h.gpr[n] ^ o.gpr[n]) & mask != 0 {
            let _ = writeln!(out, "r{n}: ours {:x}, host {:x}", o.gpr[n] & mask, h.gpr[n] & mask);
        }
    }
    let flags = FLAGS & !rflags_bits(undefined);
    if (h.rflags ^ o.rflags) & flags != 0 {
        let wrong = (h.rflags ^ o.rflags) & flags;
        let _ = writeln!(out, "flags: ours {:x}, host {:x}, wrong {wrong:x}", o.rflags & flags, h.rflags & flags);
    }
    for n in 0..mode.registers() {
        if h.vectors[n] != o.vectors[n] {
            let _ = writeln!(out, "ymm{n}: ours {:016x?}, host {:016x?}", o.vectors[n], h.vectors[n]);
        }
    }
    for (n, (ours, host)) in o.st.iter().zip(&h.st).enumerate() {
        if ours != host {
            let _ = writeln!(out, "st{n}: ours {:04x}.{:016x}, host {:04x}.{:016x}", ours.1, ours.0, host.1, host.0);
        }
    }
    let words = [
        ("mxcsr", o.mxcsr, h.mxcsr),
        ("cw", o.cw.into(), h.cw.into()),
        ("sw", o.sw.into(), h.sw.into()),
        ("tags", o.tags.into(), h.tags.into()),
    ];
    for (name, ours, host) in words {
        if ours != host {
            let _ = writeln!(out, "{name}: ours {ours:x}, host {host:x}");
        }
    }
    let bytes = ours.memory.iter().zip(&host.memory).enumerate().filter(|(_, (o, h))| o != h);
    for (at, (ours, host)) in bytes.take(16) {
        let _ = writeln!(out, "arena [{at:x}]: ours {ours:02x}, host {host:02x}");
    }
    out
}
