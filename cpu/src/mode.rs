//! Mode bits: every bit of state that changes what instruction bytes mean. Part of a block's key.

use crate::state::control::{cr0, cr4};
use crate::state::{Seg, State, flags};
use serde::{Deserialize, Serialize};

/// The mode bits of a vCPU, recomputed whenever one of their sources changes (`Vcpu::update_mode`).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct ModeBits(pub u32);

impl ModeBits {
    /// CS.D: 32-bit default operand and address size.
    pub const D: u32 = 1 << 0;
    /// 64-bit mode.
    pub const L: u32 = 1 << 1;
    /// SS.B: 32-bit stack pointer.
    pub const SS_B: u32 = 1 << 2;
    /// CPL = 3.
    pub const USER: u32 = 1 << 3;
    /// CR0.PE.
    pub const PE: u32 = 1 << 4;
    /// EFLAGS.VM.
    pub const VM: u32 = 1 << 5;
    /// CR0.TS.
    pub const TS: u32 = 1 << 6;
    /// CR0.EM.
    pub const EM: u32 = 1 << 7;
    /// CR0.MP.
    pub const MP: u32 = 1 << 8;
    /// CR4.OSFXSR.
    pub const OSFXSR: u32 = 1 << 9;
    /// CR4.OSXSAVE.
    pub const OSXSAVE: u32 = 1 << 10;
    /// Alignment checks are on (CPL 3, CR0.AM, EFLAGS.AC): every access is checked.
    pub const ALIGN: u32 = 1 << 11;
    /// VEX-encoded vector instructions are enabled: CR4.OSXSAVE, and XCR0 has the SSE and AVX states.
    pub const AVX: u32 = 1 << 18;
    /// Bit `12 + seg`: the segment is flat and (but for CS) writable, so its accesses need no check.
    pub const FLAT_SHIFT: u32 = 12;

    /// Computes the mode bits of a state.
    pub fn of(state: &State) -> ModeBits {
        let mut bits = 0;
        let mut set = |condition: bool, bit: u32| {
            if condition {
                bits |= bit;
            }
        };
        let (c, code64) = (&state.control, state.code64());
        set(!code64 && state.segment(Seg::Cs).big(), Self::D);
        set(code64, Self::L);
        set(code64 || state.segment(Seg::Ss).big(), Self::SS_B);
        set(state.cpl == 3, Self::USER);
        set(c.cr0 & cr0::PE != 0, Self::PE);
        set(state.v86(), Self::VM);
        set(c.cr0 & cr0::TS != 0, Self::TS);
        set(c.cr0 & cr0::EM != 0, Self::EM);
        set(c.cr0 & cr0::MP != 0, Self::MP);
        set(c.cr4 & cr4::OSFXSR != 0, Self::OSFXSR);
        set(c.cr4 & cr4::OSXSAVE != 0, Self::OSXSAVE);
        set(c.cr4 & cr4::OSXSAVE != 0 && c.xcr0 & 6 == 6, Self::AVX);
        let align = state.cpl == 3 && c.cr0 & cr0::AM != 0 && state.rflags & flags::AC != 0;
        set(align, Self::ALIGN);
        for seg in Seg::ALL {
            let s = state.segment(seg);
            let flat = match seg {
                _ if align => false,
                Seg::Cs => code64 || s.flat(),
                // Never, whatever the base: a kernel's code would be made anew for every base that it runs with.
                Seg::Fs | Seg::Gs if code64 => false,
                _ => code64 || s.flat() && s.writable(),
            };
            set(flat, 1 << (Self::FLAT_SHIFT + seg as u32));
        }
        ModeBits(bits)
    }
    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
    /// Whether accesses through `seg` need no check.
    pub const fn flat(self, seg: Seg) -> bool {
        self.has(1 << (Self::FLAT_SHIFT + seg as u32))
    }
    /// 16, 32 or 64: what the decoder must assume.
    pub const fn bitness(self) -> u32 {
        if self.has(Self::L) {
            64
        } else if self.has(Self::D) {
            32
        } else {
            16
        }
    }
}
