//! BMI1 and BMI2 by the host's own (`vector::bmi` is their meaning), and VZEROUPPER.
//!
//! Those that set flags run natively only while nobody sees AF and PF, which the manuals leave undefined. ADCX, ADOX and
//! operands that want more scratch registers than there are stay with their handlers.

use super::address::{Access, Value, Way};
use super::asm::{Form, Map, Rm};
use super::block::{Emitter, Live};
use super::registers::{S1, pinned, slot};
use crate::helpers::MEMORY;
use crate::mode::ModeBits;
use crate::state::flags;
use crate::state::slots::T0;
use crate::uop::{AddrKind, Mem, Uop, Width};

/// How an instruction is encoded.
struct Row {
    prefix: u8,
    opcode: u8,
    /// ModRM.reg is an opcode extension and VEX.vvvv the destination.
    extension: Option<u8>,
    /// It sets CF, ZF, SF and OF.
    flags: bool,
}

#[rustfmt::skip]
fn row(name: &str) -> Option<Row> {
    let row = |prefix, opcode, extension, flags| Some(Row { prefix, opcode, extension, flags });
    match name {
        "ANDN"   => row(0,    0xf2, None,    true),
        "BLSR"   => row(0,    0xf3, Some(1), true),
        "BLSMSK" => row(0,    0xf3, Some(2), true),
        "BLSI"   => row(0,    0xf3, Some(3), true),
        "BZHI"   => row(0,    0xf5, None,    true),
        "PDEP"   => row(0xf2, 0xf5, None,    false),
        "PEXT"   => row(0xf3, 0xf5, None,    false),
        "SHLX"   => row(0x66, 0xf7, None,    false),
        "SARX"   => row(0xf3, 0xf7, None,    false),
        "SHRX"   => row(0xf2, 0xf7, None,    false),
        "RORX"   => row(0xf2, 0xf0, None,    false),
        _ => None,
    }
}

impl Emitter<'_> {
    /// A BMI instruction, if it runs natively.
    pub(super) fn bmi_call(&mut self, uop: &Uop) -> bool {
        let Some(row) = uop.helper.and_then(|helper| row(helper.name)) else { return false };
        let memory = uop.src == MEMORY;
        let flat = self.context.key.mode.flat(uop.seg) && !self.context.key.mode.has(ModeBits::ALIGN);
        let second = pinned(uop.cond);
        let exact = flags::CF | flags::ZF | flags::SF | flags::OF;
        if memory && (!flat || second.is_none()) || row.flags && !self.suffices(exact) {
            return false;
        }
        if !row.flags {
            self.protect(uop.dst);
        }
        let source = if memory { self.bmi_operand(uop) } else { slot(uop.src) };
        let rotate = row.opcode == 0xf0;
        let second = match (row.extension, rotate) {
            (None, false) => second.unwrap_or_else(|| {
                self.asm.load(Width::B8, S1, slot(uop.cond));
                S1
            }),
            _ => 0,
        };
        let form = Form::new(if rotate { Map::M0f3a } else { Map::M0f38 }, row.opcode);
        let form = form.prefix(row.prefix).wide(uop.width == Width::B8);
        let form = if rotate { form.with(uop.imm, 1) } else { form };
        self.change(uop.dst, uop.width, false, |e, reg| match row.extension {
            Some(extension) => e.asm.op(form.vex(reg, false), extension, source),
            None => e.asm.op(form.vex(second, false), reg, source),
        });
        if row.flags {
            self.flags_are(None);
        }
        true
    }

    /// The operand in memory, whose offset lift has put into T0.
    fn bmi_operand(&mut self, uop: &Uop) -> Rm {
        let kind = if self.context.key.mode.has(ModeBits::L) { AddrKind::Flat64 } else { AddrKind::Flat32 };
        self.clobber();
        self.address(&Mem { kind, ..Mem::checked(T0) });
        let access =
            Access::plain(Form::sized(Map::One, 0x8b, uop.width), Value::Reg(S1), uop.width.bytes() as u8, Way::Load);
        self.access_at(uop, access);
        Rm::R(S1)
    }

    /// VZEROUPPER and VZEROALL, while vector registers are the host's.
    pub(super) fn zero_upper(&mut self, uop: &Uop) -> bool {
        if uop.helper.is_none_or(|helper| helper.name != "vzero") || !self.live.has(Live::VECTORS) {
            return false;
        }
        let all = uop.cond != 0;
        if uop.dst >= 16 {
            self.asm.raw(&[0xc5, if all { 0xfc } else { 0xf8 }, 0x77]);
            return true;
        }
        // Outside 64-bit mode the upper eight registers stay as they are: VMOVAPS or VXORPS of each.
        for n in 0..uop.dst {
            let form = Form::new(Map::M0f, if all { 0x57 } else { 0x28 });
            let second = if all { n } else { 0 };
            self.asm.op(form.vex(second, false), n, Rm::R(n));
        }
        true
    }
}
