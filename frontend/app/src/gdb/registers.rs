//! What gdb sees as registers: one table for each width, from which the target description and the packets are made.
//!
//! The features `core`, `sse` and `segments` are gdb's own (GDB manual, appendix G.5.4); `system` holds what only a whole
//! machine has: control registers, hidden parts of segments, table and debug registers. `rip` (`eip`) is the *linear*
//! address of the next instruction, since gdb compares it with breakpoints and reads memory there; the offset in CS is `ip_offset`.

use umbra_machine::cpu::Vcpu;
use umbra_machine::cpu::state::{Seg, Segment};

/// The width in which gdb sees the processor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Width {
    /// x86-64: for everything from real mode to long mode.
    Bits64,
    /// i386.
    Bits32,
    /// i8086: as i386, disassembled as 16-bit code.
    Bits16,
}

/// One register.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reg {
    Gpr(u8),
    Ip,
    Flags,
    Selector(Seg),
    St(u8),
    Fpu(u8),
    Xmm(u8),
    Mxcsr,
    Base(Seg),
    Limit(Seg),
    Rights(Seg),
    IpOffset,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
    GdtBase,
    GdtLimit,
    IdtBase,
    IdtLimit,
    Ldtr,
    Tr,
    Dr(u8),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// gdb's name.
    pub name: String,
    /// Width in bits.
    pub bits: u32,
    /// gdb's type.
    pub kind: &'static str,
    /// What it is.
    pub reg: Reg,
}

/// The registers in gdb's order, by feature.
#[derive(Clone, Debug)]
pub struct Layout {
    /// In which width.
    pub width: Width,
    features: Vec<(&'static str, Vec<Row>)>,
}

const GPR_64: [(&str, u8); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
const GPR_32: [(&str, u8); 8] =
    [("eax", 0), ("ecx", 1), ("edx", 2), ("ebx", 3), ("esp", 4), ("ebp", 5), ("esi", 6), ("edi", 7)];
/// gdb's order of segment registers.
const SEGMENTS: [(&str, Seg); 6] =
    [("cs", Seg::Cs), ("ss", Seg::Ss), ("ds", Seg::Ds), ("es", Seg::Es), ("fs", Seg::Fs), ("gs", Seg::Gs)];
const FPU: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];

fn row(name: impl Into<String>, bits: u32, kind: &'static str, reg: Reg) -> Row {
    Row { name: name.into(), bits, kind, reg }
}

impl Layout {
    /// The layout for a width.
    pub fn new(width: Width) -> Layout {
        let wide = width == Width::Bits64;
        let word = if wide { 64 } else { 32 };
        let (gprs, vectors): (&[(&str, u8)], u8) = if wide { (&GPR_64, 16) } else { (&GPR_32, 8) };
        let mut core: Vec<Row> = Vec::new();
        for &(name, number) in gprs {
            let kind = match number {
                4 | 5 => "data_ptr",
                _ if wide => "int64",
                _ => "int32",
            };
            core.push(row(name, word, kind, Reg::Gpr(number)));
        }
        core.push(row(if wide { "rip" } else { "eip" }, word, "code_ptr", Reg::Ip));
        core.push(row("eflags", 32, "i386_eflags", Reg::Flags));
        core.extend(SEGMENTS.iter().map(|&(name, seg)| row(name, 32, "int32", Reg::Selector(seg))));
        core.extend((0..8).map(|n| row(format!("st{n}"), 80, "i387_ext", Reg::St(n))));
        core.extend((0..).zip(FPU).map(|(n, name)| row(name, 32, "int", Reg::Fpu(n))));
        let mut sse: Vec<Row> = (0..vectors).map(|n| row(format!("xmm{n}"), 128, "vec128", Reg::Xmm(n))).collect();
        sse.push(row("mxcsr", 32, "int", Reg::Mxcsr));
        let mut features = vec![("org.gnu.gdb.i386.core", core), ("org.gnu.gdb.i386.sse", sse)];
        let of_gdb = [("fs_base", Seg::Fs), ("gs_base", Seg::Gs)];
        if wide {
            let rows = of_gdb.map(|(name, seg)| row(name, 64, "int", Reg::Base(seg)));
            features.push(("org.gnu.gdb.i386.segments", rows.to_vec()));
        }
        let mut system = vec![row("ip_offset", 64, "uint64", Reg::IpOffset)];
        for (name, reg) in [
            ("cr0", Reg::Cr0),
            ("cr2", Reg::Cr2),
            ("cr3", Reg::Cr3),
            ("cr4", Reg::Cr4),
            ("cr8", Reg::Cr8),
            ("efer", Reg::Efer),
            ("gdt_base", Reg::GdtBase),
            ("gdt_limit", Reg::GdtLimit),
            ("idt_base", Reg::IdtBase),
            ("idt_limit", Reg::IdtLimit),
            ("ldtr", Reg::Ldtr),
            ("tr", Reg::Tr),
        ] {
            system.push(row(name, 64, "uint64", reg));
        }
        for (name, seg) in SEGMENTS {
            if !(wide && of_gdb.iter().any(|(_, known)| *known == seg)) {
                system.push(row(format!("{name}_base"), 64, "uint64", Reg::Base(seg)));
            }
            system.push(row(format!("{name}_limit"), 32, "uint32", Reg::Limit(seg)));
            system.push(row(format!("{name}_rights"), 32, "uint32", Reg::Rights(seg)));
        }
        for n in [0, 1, 2, 3, 6, 7] {
            system.push(row(format!("dr{n}"), 64, "uint64", Reg::Dr(n)));
        }
        features.push(("org.umbra.system", system));
        Layout { width, features }
    }

    /// All rows in the order of their numbers.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.features.iter().flat_map(|(_, rows)| rows)
    }
    /// The row with a number.
    pub fn row(&self, number: usize) -> Option<&Row> {
        self.rows().nth(number)
    }

    /// The target description (GDB manual, appendix G).
    pub fn target_xml(&self) -> String {
        let architecture = match self.width {
            Width::Bits64 => "i386:x86-64",
            Width::Bits32 => "i386",
            Width::Bits16 => "i8086",
        };
        let mut text = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
             <architecture>{architecture}</architecture>"
        );
        let mut number = 0;
        for (name, rows) in &self.features {
            text.push_str(&format!("<feature name=\"{name}\">"));
            match *name {
                "org.gnu.gdb.i386.core" => text.push_str(EFLAGS_XML),
                "org.gnu.gdb.i386.sse" => text.push_str(VECTORS_XML),
                _ => {}
            }
            for Row { name, bits, kind, .. } in rows {
                text.push_str(&format!(
                    "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
                ));
                number += 1;
            }
            text.push_str("</feature>");
        }
        text.push_str("</target>");
        text
    }

    /// All registers of a vCPU, as a `g` packet has them.
    pub fn read_all(&self, vcpu: &Vcpu) -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in self.rows() {
            bytes.extend_from_slice(row.bytes(vcpu).get(..row.bits as usize / 8).unwrap_or(&[]));
        }
        bytes
    }
    /// Sets all registers from a `G` packet. Only what differs is set, so that writing back what was read changes nothing.
    pub fn write_all(&self, vcpu: &mut Vcpu, bytes: &[u8]) {
        let mut rest = bytes;
        for row in self.rows() {
            let Some((value, after)) = rest.split_at_checked(row.bits as usize / 8) else { return };
            row.set(vcpu, value);
            rest = after;
        }
    }
}

impl Row {
    /// The register's value, little-endian.
    pub fn bytes(&self, vcpu: &Vcpu) -> [u8; 16] {
        get(vcpu, self.reg).to_le_bytes()
    }
    /// Sets the register if the value differs.
    pub fn set(&self, vcpu: &mut Vcpu, value: &[u8]) {
        let length = (self.bits as usize / 8).min(value.len());
        let (Some(new), old) = (value.get(..length), self.bytes(vcpu)) else { return };
        if old.get(..length) != Some(new) {
            let mut whole = [0; 16];
            whole[..length].copy_from_slice(new);
            put(vcpu, self.reg, u128::from_le_bytes(whole));
        }
    }
}

/// The place of ST(n) in the register file.
fn physical(vcpu: &Vcpu, n: u8) -> usize {
    (usize::from(vcpu.state.fpu.sw >> 11) + usize::from(n)) & 7
}

/// The full tag word (SDM vol. 1, 8.1.7) from the abridged one.
fn tag_word(vcpu: &Vcpu) -> u16 {
    let fpu = &vcpu.state.fpu;
    (0..8).fold(0, |word, n| {
        let st = fpu.regs[n];
        let tag = match (fpu.tags >> n & 1 != 0, st.sign_exponent & 0x7FFF, st.significand) {
            (false, ..) => 3,
            (_, 0, 0) => 1,
            (_, 0 | 0x7FFF, _) => 2,
            (_, _, significand) if significand >> 63 == 0 => 2,
            _ => 0,
        };
        word | tag << (2 * n)
    })
}

fn get(vcpu: &Vcpu, reg: Reg) -> u128 {
    let state = &vcpu.state;
    let (control, fpu) = (&state.control, &state.fpu);
    let word = match reg {
        Reg::Gpr(n) => state.gpr(n),
        Reg::Ip => vcpu.linear_rip(),
        Reg::IpOffset => state.rip,
        Reg::Flags => vcpu.flags(),
        Reg::Selector(seg) => state.segment(seg).selector.into(),
        Reg::St(n) => {
            let st = fpu.regs[physical(vcpu, n)];
            return u128::from(st.significand) | u128::from(st.sign_exponent) << 64;
        }
        Reg::Fpu(n) => match n {
            0 => fpu.cw.into(),
            1 => fpu.sw.into(),
            2 => tag_word(vcpu).into(),
            3 => fpu.fcs.into(),
            4 => fpu.fip & 0xFFFF_FFFF,
            5 => fpu.fds.into(),
            6 => fpu.fdp & 0xFFFF_FFFF,
            _ => fpu.fop.into(),
        },
        Reg::Xmm(n) => {
            let [low, high, ..] = state.vectors.regs[usize::from(n & 15)];
            return u128::from(low) | u128::from(high) << 64;
        }
        Reg::Mxcsr => state.vectors.mxcsr.into(),
        Reg::Base(seg) => state.segment(seg).base,
        Reg::Limit(seg) => state.segment(seg).limit.into(),
        Reg::Rights(seg) => state.segment(seg).rights.into(),
        Reg::Cr0 => control.cr0,
        Reg::Cr2 => control.cr2,
        Reg::Cr3 => control.cr3,
        Reg::Cr4 => control.cr4,
        // The task priority is the local APIC's: shown as zero, not set.
        Reg::Cr8 => 0,
        Reg::Efer => control.efer,
        Reg::GdtBase => state.gdtr.base,
        Reg::GdtLimit => state.gdtr.limit.into(),
        Reg::IdtBase => state.idtr.base,
        Reg::IdtLimit => state.idtr.limit.into(),
        Reg::Ldtr => state.ldtr.selector.into(),
        Reg::Tr => state.tr.selector.into(),
        Reg::Dr(n) => state.dr[usize::from(n & 7)],
    };
    word.into()
}

fn put(vcpu: &mut Vcpu, reg: Reg, value: u128) {
    vcpu.materialise_flags();
    let word = value as u64;
    let (paragraphs, cs_base) = (vcpu.state.paragraph_segments(), vcpu.state.segment(Seg::Cs).base);
    let (code64, at) = (vcpu.state.code64(), |n: u8, vcpu: &Vcpu| physical(vcpu, n));
    let state = &mut vcpu.state;
    match reg {
        Reg::Gpr(n) => state.set_gpr(n, word),
        Reg::Ip if code64 => state.rip = word,
        Reg::Ip => state.rip = word.wrapping_sub(cs_base) & 0xFFFF_FFFF,
        Reg::IpOffset => state.rip = word,
        Reg::Flags => state.rflags = word | 2,
        Reg::Selector(seg) => {
            let selector = word as u16;
            // A descriptor is not loaded: outside real mode only the visible part changes.
            let old = *state.segment(seg);
            let base = if paragraphs { u64::from(selector) << 4 } else { old.base };
            state.seg[seg as usize] = Segment { selector, base, ..old };
        }
        Reg::St(n) => {
            let index = at(n, vcpu);
            let st = &mut vcpu.state.fpu.regs[index];
            (st.significand, st.sign_exponent) = (word, (value >> 64) as u16);
        }
        Reg::Fpu(n) => {
            let fpu = &mut state.fpu;
            match n {
                0 => fpu.cw = word as u16,
                1 => fpu.sw = word as u16,
                2 => fpu.tags = (0..8).fold(0, |tags, n| tags | u8::from(word >> (2 * n) & 3 != 3) << n),
                3 => fpu.fcs = word as u16,
                4 => fpu.fip = word,
                5 => fpu.fds = word as u16,
                6 => fpu.fdp = word,
                _ => fpu.fop = word as u16 & 0x7FF,
            }
        }
        Reg::Xmm(n) => {
            let register = &mut state.vectors.regs[usize::from(n & 15)];
            (register[0], register[1]) = (word, (value >> 64) as u64);
        }
        Reg::Mxcsr => state.vectors.mxcsr = word as u32 & 0xFFFF,
        Reg::Base(seg) => state.seg[seg as usize].base = word,
        Reg::Limit(seg) => state.seg[seg as usize].limit = word as u32,
        Reg::Rights(seg) => state.seg[seg as usize].rights = word as u16,
        Reg::Cr0 => state.control.cr0 = word,
        Reg::Cr2 => state.control.cr2 = word,
        Reg::Cr3 => state.control.cr3 = word,
        Reg::Cr4 => state.control.cr4 = word,
        Reg::Cr8 => {}
        Reg::Efer => state.control.efer = word,
        Reg::GdtBase => state.gdtr.base = word,
        Reg::GdtLimit => state.gdtr.limit = word as u16,
        Reg::IdtBase => state.idtr.base = word,
        Reg::IdtLimit => state.idtr.limit = word as u16,
        Reg::Ldtr => state.ldtr.selector = word as u16,
        Reg::Tr => state.tr.selector = word as u16,
        Reg::Dr(n) => state.dr[usize::from(n & 7)] = word,
    }
    let state = vcpu.state.clone();
    vcpu.set_state(state);
}

/// The flags register's type.
const EFLAGS_XML: &str = "<flags id=\"i386_eflags\" size=\"4\">\
    <field name=\"\" start=\"22\" end=\"31\"/><field name=\"ID\" start=\"21\" end=\"21\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>\
    <field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VM\" start=\"17\" end=\"17\"/>\
    <field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"\" start=\"15\" end=\"15\"/><field name=\"NT\" start=\"14\" end=\"14\"/>\
    <field name=\"IOPL\" start=\"12\" end=\"13\"/><field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"DF\" start=\"10\" end=\"10\"/>\
    <field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"SF\" start=\"7\" end=\"7\"/>\
    <field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"\" start=\"5\" end=\"5\"/><field name=\"AF\" start=\"4\" end=\"4\"/>\
    <field name=\"\" start=\"3\" end=\"3\"/><field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"\" start=\"1\" end=\"1\"/>\
    <field name=\"CF\" start=\"0\" end=\"0\"/></flags>";
/// The vector registers' type.
const VECTORS_XML: &str = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
    <vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
    <vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/><union id=\"vec128\">\
    <field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>\
    <field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>\
    <field name=\"uint128\" type=\"uint128\"/></union>";

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_machine::Machine;
    use umbra_machine::builder::FlatStart;
    use umbra_machine::load::flat::FlatMode;
    use umbra_machine::mmu::GuestPhys;

    fn machine() -> Machine {
        let start = FlatStart { at: GuestPhys(0x10_0000), mode: FlatMode::Protected32 };
        Machine::builder().memory(16 << 20).flat("hlt", vec![0xF4], start).build().unwrap()
    }

    #[test]
    fn gdb_s_own_features_come_in_gdb_s_order() {
        for (width, first, ip, count) in [(Width::Bits64, "rax", 16, 40), (Width::Bits32, "eax", 8, 32)] {
            let layout = Layout::new(width);
            let names: Vec<&str> = layout.rows().map(|row| row.name.as_str()).collect();
            assert_eq!((names[0], &names[ip][1..], names[ip + 1]), (first, "ip", "eflags"));
            assert_eq!((names[count - 1], names[count]), ("fop", "xmm0"));
            let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
            let xml = layout.target_xml();
            assert!(
                xml.contains(&format!("name=\"dr7\" bitsize=\"64\" type=\"uint64\" regnum=\"{}\"", names.len() - 1))
            );
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut machine = machine();
        let vcpu = &mut machine.vcpus_mut()[0];
        for width in [Width::Bits64, Width::Bits32] {
            let layout = Layout::new(width);
            let before = vcpu.state.clone();
            let all = layout.read_all(vcpu);
            layout.write_all(vcpu, &all);
            assert_eq!(vcpu.state, before, "writing back what was read changes nothing");
            for row in layout.rows().filter(|row| row.reg != Reg::Cr8) {
                // A pattern that each register can hold.
                let pattern: [u8; 16] = match row.reg {
                    Reg::Flags => 0x246u128.to_le_bytes(),
                    Reg::Cr0 | Reg::Cr4 | Reg::Efer | Reg::Cr3 => row.bytes(vcpu),
                    Reg::Rights(_) | Reg::Fpu(1 | 2) => row.bytes(vcpu),
                    Reg::Fpu(_) | Reg::Selector(_) | Reg::Tr | Reg::Ldtr => 0x123u128.to_le_bytes(),
                    Reg::GdtLimit | Reg::IdtLimit | Reg::Mxcsr => 0x1F80u128.to_le_bytes(),
                    _ => 0x0123_4567u128.to_le_bytes(),
                };
                let length = row.bits as usize / 8;
                row.set(vcpu, &pattern[..length]);
                assert_eq!(row.bytes(vcpu)[..length], pattern[..length], "{}", row.name);
            }
            vcpu.set_state(before);
        }
    }
}
