//! Gates (SDM vol. 3, 5.8.3, 6.11, 6.14.1), typed once when they are decoded: what the guest wrote becomes a kind, a selector, an
//! offset and rights, each rechecked by whoever goes through the gate. Used by far transfers, event delivery and the monitor
//! tables.

use super::descriptor::{Descriptor, system};
use crate::state::flags;
use crate::uop::Width;

/// What a gate is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// A call gate, with its number of parameters.
    Call(u8),
    /// An interrupt gate: clears IF. In long mode with an interrupt stack table index, elsewhere with 0.
    Interrupt(u8),
    /// A trap gate: leaves IF. The index as before.
    Trap(u8),
    /// A task gate: the selector is a TSS's.
    Task,
}

/// A gate.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// What for.
    pub kind: GateKind,
    /// The code segment (or TSS).
    pub selector: u16,
    /// Where in it, cut to the gate's width.
    pub offset: u64,
    /// The width of a pushed item and of the offset: 16, 32 or 64 bits.
    pub width: Width,
    /// Descriptor privilege level.
    pub dpl: u8,
    /// Present.
    pub present: bool,
}

impl Gate {
    /// The gate in an IDT entry (the second half is 0 outside long mode), or nothing if an event cannot go through it.
    pub fn of_event(raw: [u64; 2], long: bool) -> Option<Gate> {
        let low = Descriptor(raw[0]);
        let ist = if long { low.gate_ist() } else { 0 };
        let kind = match low.kind() {
            _ if low.is_segment() => return None,
            system::INTERRUPT_GATE32 => GateKind::Interrupt(ist),
            system::TRAP_GATE32 => GateKind::Trap(ist),
            system::INTERRUPT_GATE16 if !long => GateKind::Interrupt(0),
            system::TRAP_GATE16 if !long => GateKind::Trap(0),
            system::TASK_GATE if !long => GateKind::Task,
            _ => return None,
        };
        Some(Gate::of(kind, raw, long))
    }

    /// The call gate that a descriptor (of that type) is; `upper` is its second half in long mode.
    pub fn of_call(low: Descriptor, upper: u64, long: bool) -> Gate {
        Gate::of(GateKind::Call(low.gate_parameters()), [low.0, upper], long)
    }

    fn of(kind: GateKind, [low, upper]: [u64; 2], long: bool) -> Gate {
        let low = Descriptor(low);
        let width = match (long, low.is_32bit_system()) {
            (true, _) => Width::B8,
            (false, true) => Width::B4,
            (false, false) => Width::B2,
        };
        let offset = (low.gate_offset() | upper << 32) & width.mask();
        Gate { kind, selector: low.gate_selector(), offset, width, dpl: low.dpl(), present: low.present() }
    }

    /// The flag that an event through this gate clears beside TF, NT, RF and VM.
    pub const fn clears(&self) -> u64 {
        if matches!(self.kind, GateKind::Interrupt(_)) { flags::IF } else { 0 }
    }

    /// The interrupt stack table index.
    pub const fn ist(&self) -> u8 {
        match self.kind {
            GateKind::Interrupt(ist) | GateKind::Trap(ist) => ist,
            GateKind::Call(_) | GateKind::Task => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_typed_by_mode() {
        // (type bits, in long mode, outside)
        let rows = [
            (0x4, None, None),
            (0x5, None, Some(GateKind::Task)),
            (0x6, None, Some(GateKind::Interrupt(0))),
            (0x7, None, Some(GateKind::Trap(0))),
            (0xc, None, None),
            (0xe, Some(GateKind::Interrupt(5)), Some(GateKind::Interrupt(0))),
            (0xf, Some(GateKind::Trap(5)), Some(GateKind::Trap(0))),
            (0x1e, None, None),
        ];
        for (kind, long, short) in rows {
            let raw = [0xdead_8005_0008_beef | kind << 40, 0x1_2345];
            let found = [true, false].map(|long| Gate::of_event(raw, long).map(|gate| gate.kind));
            assert_eq!(found, [long, short], "{kind:x}");
        }
        let raw = [0xdead_ee05_0008_beef, 0x1_2345];
        let gate = Gate::of_event(raw, true).expect("an interrupt gate");
        assert_eq!((gate.offset, gate.width, gate.dpl, gate.present), (0x1_2345_dead_beef, Width::B8, 3, true));
        let call = Gate::of_call(Descriptor(0x1234_8405_0008_5678), 0, false);
        assert_eq!((call.kind, call.offset, call.width), (GateKind::Call(5), 0x5678, Width::B2));
    }
}
