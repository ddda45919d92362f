//! FNSTENV, FLDENV, FNSAVE and FRSTOR with their four layouts (SDM vol. 1 8.1.10, figures 8-9 to 8-12).
//!
//! The pointers are the guest's own, kept by `note_pointers`, never those of the host's unit.

use super::{Args, Flow, control, report_pending, summarize};
use crate::fault::Fault;
use crate::helpers::Helper;
use crate::softfloat::F80;
use crate::state::Fpu;
use crate::state::slots::T0;
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::fault::Access;

/// FNSTENV; `width` is the operand size (2 or 4 bytes).
pub static STORE_ENVIRONMENT: Helper = Helper { name: "fnstenv", run: store_environment };
/// FLDENV.
pub static LOAD_ENVIRONMENT: Helper = Helper { name: "fldenv", run: load_environment };
/// FNSAVE.
pub static SAVE: Helper = Helper { name: "fnsave", run: save };
/// FRSTOR.
pub static RESTORE: Helper = Helper { name: "frstor", run: restore };

/// The longest image: 28 bytes of environment and eight registers.
const LONGEST: usize = 108;

/// One of the four layouts.
#[derive(Copy, Clone, Debug)]
struct Layout {
    /// Bytes of a field: 2 or 4.
    field: usize,
    /// Real-address or virtual-8086 mode: pointers are linear and FOP is always stored.
    linear: bool,
}

impl Layout {
    fn of(cpu: &Vcpu, args: Args) -> Layout {
        let field = if args.width == Width::B2 { 2 } else { 4 };
        Layout { field, linear: cpu.state.paragraph_segments() }
    }

    const fn environment(self) -> usize {
        7 * self.field
    }

    /// The seven fields, reserved parts of the 32-bit layouts as ones where processors store ones.
    fn fields(self, fpu: &Fpu) -> [u32; 7] {
        let reserved = 0xffff_0000;
        let control =
            [u32::from(fpu.cw) | reserved, u32::from(fpu.sw) | reserved, u32::from(fpu.tag_word()) | reserved];
        let pointers = if self.linear {
            let instruction = (u32::from(fpu.fcs) << 4).wrapping_add(fpu.fip as u32);
            let operand = (u32::from(fpu.fds) << 4).wrapping_add(fpu.fdp as u32);
            let high = |linear: u32| linear >> 16 << 12;
            [
                instruction & 0xffff | reserved,
                high(instruction) | u32::from(fpu.fop),
                operand & 0xffff | reserved,
                high(operand),
            ]
        } else {
            [
                fpu.fip as u32,
                u32::from(fpu.fcs) | u32::from(fpu.fop) << 16,
                fpu.fdp as u32,
                u32::from(fpu.fds) | reserved,
            ]
        };
        let [cw, sw, tags] = control;
        let [ip, cs, dp, ds] = pointers;
        [cw, sw, tags, ip, cs, dp, ds]
    }

    /// Writes the environment to the front of `bytes`.
    fn write(self, fpu: &Fpu, bytes: &mut [u8]) {
        for (chunk, field) in bytes.chunks_exact_mut(self.field).zip(self.fields(fpu)) {
            chunk.copy_from_slice(&field.to_le_bytes()[..self.field]);
        }
    }

    /// Takes over the environment at the front of `bytes`.
    fn read(self, fpu: &mut Fpu, bytes: &[u8]) {
        let mut fields = [0u32; 7];
        for (field, chunk) in fields.iter_mut().zip(bytes.chunks_exact(self.field)) {
            *field = chunk.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        }
        let [cw, sw, tags, ip, cs, dp, ds] = fields;
        fpu.cw = control::control_word(cw as u16);
        fpu.sw = sw as u16;
        fpu.set_tag_word(tags as u16);
        if self.linear {
            let linear = |low: u32, high: u32| u64::from(low & 0xffff | high >> 12 << 16);
            (fpu.fip, fpu.fcs) = (linear(ip, cs), 0);
            (fpu.fdp, fpu.fds) = (linear(dp, ds), 0);
            fpu.fop = cs as u16 & 0x7ff;
        } else {
            (fpu.fip, fpu.fcs) = (u64::from(ip), cs as u16);
            (fpu.fdp, fpu.fds) = (u64::from(dp), ds as u16);
            fpu.fop = (cs >> 16) as u16 & 0x7ff;
        }
    }
}

/// Stores `bytes` at the memory operand, all or nothing.
fn store(cpu: &mut Vcpu, args: Args, bytes: &[u8]) -> Result<(), Fault> {
    let linear = cpu.linear(args.seg, cpu.state.slots.get(T0), bytes.len() as u64, Access::Write)?;
    let view = cpu.view();
    cpu.store_bytes(linear, bytes, view)
}

fn load(cpu: &mut Vcpu, args: Args, bytes: &mut [u8]) -> Result<(), Fault> {
    let linear = cpu.linear(args.seg, cpu.state.slots.get(T0), bytes.len() as u64, Access::Read)?;
    let view = cpu.view();
    cpu.load_bytes(linear, bytes, view)
}

/// Afterwards all exceptions are masked.
fn store_environment(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let layout = Layout::of(cpu, args);
    let mut bytes = [0; LONGEST];
    layout.write(&cpu.state.fpu, &mut bytes);
    store(cpu, args, &bytes[..layout.environment()])?;
    cpu.state.fpu.cw |= 0x3f;
    Ok(summarize(cpu))
}

fn load_environment(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    let layout = Layout::of(cpu, args);
    let mut bytes = [0; LONGEST];
    load(cpu, args, &mut bytes[..layout.environment()])?;
    layout.read(&mut cpu.state.fpu, &bytes);
    Ok(summarize(cpu))
}

/// Afterwards the unit is as after FNINIT.
fn save(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let layout = Layout::of(cpu, args);
    let mut bytes = [0; LONGEST];
    let (environment, registers) = bytes.split_at_mut(layout.environment());
    layout.write(&cpu.state.fpu, environment);
    for (chunk, register) in registers.chunks_exact_mut(10).zip(0u8..8) {
        chunk.copy_from_slice(&cpu.state.fpu.read(register).to_bytes());
    }
    store(cpu, args, &bytes[..layout.environment() + 80])?;
    control::initialize_now(cpu);
    Ok(Flow::Next)
}

fn restore(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    let layout = Layout::of(cpu, args);
    let mut bytes = [0; LONGEST];
    load(cpu, args, &mut bytes[..layout.environment() + 80])?;
    let (environment, registers) = bytes.split_at(layout.environment());
    let fpu = &mut cpu.state.fpu;
    layout.read(fpu, environment);
    let tags = fpu.tags;
    for (chunk, register) in registers.chunks_exact(10).zip(0u8..8) {
        let mut ten = [0; 10];
        ten.copy_from_slice(chunk);
        fpu.set(register, F80::from_bytes(ten));
    }
    fpu.tags = tags;
    Ok(summarize(cpu))
}
