//! The architectural state of one vCPU: plain data, no pointers, saved and compared as it stands.
//!
//! Laid out `repr(C)` with the slots first, so that emitted code reaches the general registers with short displacements.

pub mod control;
pub mod flags;
pub mod fpu;
pub mod segment;
pub mod slots;

use crate::exit::Activity;
pub use control::{Control, Msrs};
pub use fpu::{Fpu, Vectors};
pub use segment::{Seg, Segment, TableRegister};
use serde::{Deserialize, Serialize};
pub use slots::Slots;

/// Instructions during which some events are held back (SDM vol. 3, 6.8.3).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptShadow {
    /// Nothing is held back.
    #[default]
    None,
    /// One instruction after STI: maskable interrupts wait.
    Sti,
    /// One instruction after a load of SS: interrupts, NMI and debug traps wait.
    MovSs,
}

/// Everything that a guest could tell two processors apart by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct State {
    /// General registers (slots 0–15) and the executors' temporaries.
    pub slots: Slots,
    /// RIP of the next instruction, always at a boundary; zero-extended outside 64-bit mode.
    pub rip: u64,
    /// RFLAGS. The status flags in it are current only when `Vcpu::lazy` is empty: use `Vcpu::flags`.
    pub rflags: u64,
    /// Segment registers, indexed by [`Seg`].
    pub seg: [Segment; 6],
    /// The local descriptor table register.
    pub ldtr: Segment,
    /// The task register.
    pub tr: Segment,
    /// The global descriptor table register.
    pub gdtr: TableRegister,
    /// The interrupt descriptor table register.
    pub idtr: TableRegister,
    /// Control registers, EFER, XCR0, PDPTEs.
    pub control: Control,
    /// Debug registers DR0–DR3, (4, 5 unused), DR6, DR7.
    pub dr: [u64; 8],
    /// Model-specific registers that are the processor's own.
    pub msr: Msrs,
    /// The x87 unit.
    pub fpu: Fpu,
    /// XMM/YMM registers and MXCSR.
    pub vectors: Vectors,
    /// What the processor does between instructions.
    pub activity: Activity,
    /// The interrupt shadow of the last instruction.
    pub shadow: InterruptShadow,
    /// An NMI is being handled (until IRET): further NMIs stay latched.
    pub nmi_blocked: bool,
    /// Debug traps (bits of DR6) that the last instruction caused and that are due before the next.
    pub pending_debug: u64,
    /// The REP CMPS or SCAS that is in its midst, if one is.
    pub compare: Option<RepeatedCompare>,
    /// Current privilege level.
    pub cpl: u8,
    /// Instructions (and REP elements) completed since power-on.
    pub retired: u64,
}

/// A REP CMPS or SCAS between two of its elements, where no event came between: a fault restores the status flags that it
/// found (SDM vol. 2, REP), wherever a run of elements happened to be split.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepeatedCompare {
    /// The offset of the instruction.
    pub rip: u64,
    /// RFLAGS from before its first element.
    pub rflags: u64,
}

impl State {
    /// The state after power-on or RESET# (SDM vol. 3, table 9-1). `signature` is what EDX holds: CPUID 1 EAX.
    pub fn power_on(signature: u32) -> State {
        let mut state = State {
            slots: Slots::default(),
            rip: 0xfff0,
            rflags: flags::FIXED,
            seg: [Segment::real(0); 6],
            ldtr: Segment { rights: 0x82, limit: 0xffff, ..Segment::default() },
            tr: Segment { rights: 0x8b, limit: 0xffff, ..Segment::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            control: Control::default(),
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            msr: Msrs::default(),
            fpu: Fpu::default(),
            vectors: Vectors::default(),
            activity: Activity::Running,
            shadow: InterruptShadow::None,
            nmi_blocked: false,
            pending_debug: 0,
            compare: None,
            cpl: 0,
            retired: 0,
        };
        state.seg[Seg::Cs as usize] = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, rights: 0x9b };
        state.slots.set(slots::RDX, u64::from(signature));
        state
    }

    /// The general register `n` (0–15), all 64 bits.
    pub fn gpr(&self, n: u8) -> u64 {
        self.slots.get(n & 15)
    }
    /// Sets the general register `n` (0–15), all 64 bits.
    pub fn set_gpr(&mut self, n: u8, value: u64) {
        self.slots.set(n & 15, value);
    }
    /// One segment register.
    pub fn segment(&self, seg: Seg) -> &Segment {
        &self.seg[seg as usize]
    }
    /// CR0.PE = 1.
    pub fn protected(&self) -> bool {
        self.control.cr0 & control::cr0::PE != 0
    }
    /// EFLAGS.VM = 1.
    pub fn v86(&self) -> bool {
        self.rflags & flags::VM != 0
    }
    /// Real-address or virtual-8086 mode: selectors are paragraphs.
    pub fn paragraph_segments(&self) -> bool {
        !self.protected() || self.v86()
    }
    /// EFER.LMA = 1 (64-bit or compatibility mode).
    pub fn long_mode(&self) -> bool {
        self.control.efer & control::efer::LMA != 0
    }
    /// 64-bit mode: EFER.LMA and CS.L.
    pub fn code64(&self) -> bool {
        self.long_mode() && self.segment(Seg::Cs).long()
    }
    /// EFLAGS.IOPL, 0–3.
    pub fn iopl(&self) -> u8 {
        (self.rflags >> 12 & 3) as u8
    }
}
