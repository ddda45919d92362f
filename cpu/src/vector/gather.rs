//! Loads and stores of selected elements: VMASKMOVPS, VPMASKMOVD and their kin, gathers (SDM vol. 2).
//!
//! Elements whose mask sign is clear are not accessed. A gather commits element by element: when one faults, the earlier
//! ones are in the destination and their mask elements cleared.

use super::{set_ymm, ymm};
use crate::fault::Fault;
use crate::helpers::{Args, Flow, Helper};
use crate::state::slots::T0;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The elements of a vector, of 4 or 8 bytes.
#[derive(Copy, Clone)]
struct Elements {
    value: [u128; 2],
    width: Width,
}

impl Elements {
    fn position(self, i: usize) -> (usize, u32) {
        let bit = i as u32 * self.width.bits();
        ((bit >> 7) as usize & 1, bit & 127)
    }
    fn get(self, i: usize) -> u64 {
        let (half, shift) = self.position(i);
        (self.value[half] >> shift) as u64 & self.width.mask()
    }
    fn set(&mut self, i: usize, element: u64) {
        let (half, shift) = self.position(i);
        let mask = u128::from(self.width.mask()) << shift;
        self.value[half] = self.value[half] & !mask | u128::from(element) << shift & mask;
    }
    /// Whether the element's sign is set: whether it is accessed.
    fn selected(self, i: usize) -> bool {
        self.get(i) >> (self.width.bits() - 1) != 0
    }
    /// The element as a signed number.
    fn signed(self, i: usize) -> i64 {
        match self.width {
            Width::B8 => self.get(i) as i64,
            _ => i64::from(self.get(i) as i32),
        }
    }
}

fn load(cpu: &mut Vcpu, args: Args, offset: u64) -> Result<u64, Fault> {
    match args.width {
        Width::B8 => cpu.load(args.seg, offset),
        _ => cpu.load::<u32>(args.seg, offset).map(u64::from),
    }
}

/// Address wrap-around: 32-bit addresses outside 64-bit mode.
fn wrap(cpu: &Vcpu, offset: u64) -> u64 {
    if cpu.state.code64() { offset } else { offset & 0xffff_ffff }
}

/// Vector `a` = the elements of `width` at offset T0 that mask `b` selects, others zero; `imm` is the size in bytes.
pub static MASKED_LOAD: Helper = Helper {
    name: "masked_load",
    run: |cpu, args| {
        let mask = Elements { value: ymm(cpu, args.b), width: args.width };
        let mut result = Elements { value: [0; 2], width: args.width };
        let offset = cpu.state.slots.get(T0);
        for i in 0..(args.imm / args.width.bytes()) as usize {
            if mask.selected(i) {
                let at = wrap(cpu, offset.wrapping_add(i as u64 * args.width.bytes()));
                result.set(i, load(cpu, args, at)?);
            }
        }
        set_ymm(cpu, args.a, result.value);
        Ok(Flow::Next)
    },
};

/// Stores the elements of vector `a` that mask `b` selects at offset T0: all or none.
pub static MASKED_STORE: Helper = Helper {
    name: "masked_store",
    run: |cpu, args| {
        let mask = Elements { value: ymm(cpu, args.b), width: args.width };
        let value = Elements { value: ymm(cpu, args.a), width: args.width };
        let (offset, bytes) = (cpu.state.slots.get(T0), args.width.bytes());
        let count = (args.imm / bytes) as usize;
        let chosen = move |i: &usize| mask.selected(*i);
        for i in (0..count).filter(chosen) {
            let at = wrap(cpu, offset.wrapping_add(i as u64 * bytes));
            cpu.reserve(args.seg, at, bytes)?;
        }
        for i in (0..count).filter(chosen) {
            let at = wrap(cpu, offset.wrapping_add(i as u64 * bytes));
            match args.width {
                Width::B8 => cpu.store(args.seg, at, value.get(i))?,
                _ => cpu.store(args.seg, at, value.get(i) as u32)?,
            }
        }
        Ok(Flow::Next)
    },
};

/// The address of a gather, packed into an immediate.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Slot of the base register.
    pub base: u8,
    /// Index shift, 0–3.
    pub scale: u8,
    /// Displacement.
    pub disp: i32,
    /// Width of an index.
    pub index: Width,
    /// Number of elements.
    pub count: u8,
    /// Address width.
    pub address: Width,
}

const WIDTHS: [Width; 4] = [Width::B1, Width::B2, Width::B4, Width::B8];

impl Gather {
    /// As an immediate.
    pub fn pack(self) -> u64 {
        u64::from(self.disp as u32)
            | u64::from(self.base) << 32
            | u64::from(self.scale & 3) << 40
            | (self.index as u64) << 42
            | (self.address as u64) << 44
            | u64::from(self.count) << 48
    }
    /// From an immediate.
    pub fn unpack(imm: u64) -> Gather {
        Gather {
            disp: imm as i32,
            base: (imm >> 32) as u8,
            scale: (imm >> 40 & 3) as u8,
            index: WIDTHS[(imm >> 42 & 3) as usize],
            address: WIDTHS[(imm >> 44 & 3) as usize],
            count: (imm >> 48) as u8,
        }
    }
}

/// Gathers: destination `a`, mask `b`, indices `c`, element `width`, address in `imm` ([`Gather`]).
pub static GATHER: Helper = Helper {
    name: "gather",
    run: |cpu, args| {
        let gather = Gather::unpack(args.imm);
        let mut mask = Elements { value: ymm(cpu, args.b), width: args.width };
        let mut result = Elements { value: ymm(cpu, args.a), width: args.width };
        let indices = Elements { value: ymm(cpu, args.c), width: gather.index };
        let base = cpu.state.slots.get(gather.base).wrapping_add(i64::from(gather.disp) as u64);
        // What a fault shows: whole elements in the mask (SDM vol. 2, VGATHERDPS and VGATHERQPS, operation).
        for i in 0..(32 / args.width.bytes()) as usize {
            let selected = mask.selected(i);
            mask.set(i, if selected { u64::MAX } else { 0 });
        }
        let short = u64::from(gather.count) * args.width.bytes().max(gather.index.bytes()) <= 16;
        if short {
            mask.value[1] = 0;
        }
        // The first element of a VEX.128 form clears what lies above XMM.
        let mut begun = false;
        let mut fault = None;
        for i in 0..usize::from(gather.count) {
            if mask.selected(i) {
                let at = base.wrapping_add((indices.signed(i) as u64) << gather.scale) & gather.address.mask();
                match load(cpu, args, at) {
                    Ok(element) => {
                        begun = true;
                        result.set(i, element);
                    }
                    Err(f) => {
                        fault = Some(f);
                        break;
                    }
                }
            }
            mask.set(i, 0);
        }
        if let Some(fault) = fault {
            if begun && short {
                result.value[1] = 0;
            }
            set_ymm(cpu, args.a, result.value);
            set_ymm(cpu, args.b, mask.value);
            return Err(fault);
        }
        // Only the elements of the operation remain.
        let size = u32::from(gather.count) * args.width.bits();
        let keep = [if size >= 128 { u128::MAX } else { (1 << size) - 1 }, if size > 128 { u128::MAX } else { 0 }];
        set_ymm(cpu, args.a, [result.value[0] & keep[0], result.value[1] & keep[1]]);
        set_ymm(cpu, args.b, [0; 2]);
        Ok(Flow::Next)
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_packing() {
        let gather = Gather { base: 13, scale: 3, disp: -40, index: Width::B4, count: 8, address: Width::B8 };
        assert_eq!(Gather::unpack(gather.pack()), gather);
    }

    #[test]
    fn elements_are_set_in_either_half() {
        let mut x = Elements { value: [0; 2], width: Width::B4 };
        x.set(5, 0x8000_0001);
        assert_eq!(
            (x.value[1], x.get(5), x.selected(5), x.signed(5)),
            (0x8000_0001 << 32, 0x8000_0001, true, -0x7fff_ffff)
        );
    }
}
