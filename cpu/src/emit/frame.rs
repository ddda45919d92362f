//! What emitted code reads and writes of a vCPU beside its state: never saved, at fixed offsets.

use super::block::Live;
use super::flags::SavedFlags;
use super::segment::{KNOWN, KnownLoad};
use super::site::Site;
use crate::state::Segment;
use crate::vcpu::{Link, Vcpu};
use std::mem::offset_of;
use umbra_mmu::VcpuMmu;
use umbra_mmu::attention::Attention;
use umbra_mmu::tlb::{HotTlbs, Memos};

/// A known target of indirect jumps.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct JumpEntry {
    /// RIP of the target.
    pub rip: u64,
    /// Its code.
    pub code: u64,
    /// The identity that the fetch TLB must have for its page.
    pub id: u64,
    /// Its mode bits; all ones: no entry.
    pub mode: u64,
}

impl JumpEntry {
    /// Nothing.
    pub const NONE: JumpEntry = JumpEntry { rip: 0, code: 0, id: 0, mode: u64::MAX };
}

/// Entries of the table of indirect jumps by which units are the host's (`Live::index`): with neither, the kernel's and most of
/// the programs' are in it.
pub const fn jumps(live: usize) -> usize {
    if live == 0 { 1 << 16 } else { 1 << 14 }
}

/// Bits of a target's page that are mixed in.
pub const JUMP_SHIFT: u32 = 16;

/// The index of a target.
pub const fn jump_index(rip: u64, live: usize) -> usize {
    ((rip ^ rip >> JUMP_SHIFT) & (jumps(live) as u64 - 1)) as usize
}

/// Instructions between two looks at attention, a few microseconds. What the vCPU itself causes is looked at by gates.
pub const TANK: u64 = 8192;

/// What [`Frame::patience`] starts with.
pub const PATIENCE: i32 = 64;

/// The fields.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// The status flags in the form that LAHF and SETO give.
    pub image: SavedFlags,
    /// Operands of recipes that are in no register: of shifts and products, of `Late` flags, and what
    /// registers held that have changed since.
    pub held: [u64; 5],
    /// Fuel when emitted code was left, or at a gate.
    pub fuel: i64,
    /// What is left of the budget beside `fuel`: emitted code takes `TANK` of it at a time, and looks at attention then.
    pub reserve: u64,
    /// Fuel + instructions retired, as the start of a block finds them: constant but for more fuel.
    pub base: u64,
    /// The site at which emitted code was left.
    pub site: u32,
    /// MXCSR of the host.
    pub host_mxcsr: u32,
    /// The linear address of a store on its slow path.
    pub linear: u64,
    /// The host address of an operand that a gate has found.
    pub operand: u64,
    /// The memory operand of an access on its slow path.
    pub buffer: Buffer,
    /// The attention word.
    pub attention: *const Attention,
    /// The tables of indirect jumps, by which units are the host's (`Live`).
    pub jumps: [*mut JumpEntry; Live::ALL],
    /// Memos that may still be filled again too soon, before the access that does it is given none.
    pub patience: i32,
    /// It is over.
    pub impatient: u32,
    /// Segment loads that are known.
    pub known_loads: [KnownLoad; KNOWN],
    /// FXSAVE has put the x87 unit into `fx`, and the state does not have it yet.
    pub fx_saved: u32,
    /// The x87 unit on its way between state and host.
    pub fx: FxImage,
    /// A transcendental function under way.
    pub function: FunctionCall,
    /// A store over the end of a page under way.
    pub straddle: Straddle,
}

/// Where the bytes of a store over the end of a page go.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C)]
pub struct Straddle {
    /// The host address of those in the first page.
    pub first: u64,
    /// Of the others.
    pub second: u64,
    /// How many are in the first page.
    pub in_first: u32,
    /// How many there are; 0: no such store is under way.
    pub bytes: u32,
}

/// The operands and the result of a transcendental function, between the x87 unit and Rust.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C)]
pub struct FunctionCall {
    /// ST(0) and ST(1), ten bytes each.
    pub operands: [[u64; 2]; 2],
    /// The result, cut to 64 bits.
    pub cut: [u64; 2],
    /// What is missing of it, as a double.
    pub missing: u64,
    /// The status word before or after the operands were taken.
    pub status: u16,
}

// SAFETY: the pointers lead to the attention word that the vCPU holds by reference count, and into the tables of its own JIT;
// both move with it and are only followed by the thread that runs it.
#[allow(unsafe_code, reason = "see above")]
unsafe impl Send for Frame {}

/// The area of FXSAVE (SDM vol. 1, 10.5.1).
#[derive(Copy, Clone, Debug)]
#[repr(C, align(16))]
pub struct FxImage(pub [u8; 512]);

/// 32 bytes for one operand.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C, align(32))]
pub struct Buffer(pub [u8; 32]);

impl Default for Frame {
    fn default() -> Frame {
        Frame {
            image: SavedFlags(0),
            held: [0; 5],
            fuel: 0,
            reserve: 0,
            base: 0,
            site: 0,
            host_mxcsr: 0x1f80,
            linear: 0,
            operand: 0,
            buffer: Buffer::default(),
            attention: std::ptr::null(),
            jumps: [std::ptr::null_mut(); Live::ALL],
            patience: PATIENCE,
            impatient: 0,
            known_loads: [KnownLoad::default(); KNOWN],
            fx_saved: 0,
            fx: FxImage([0; 512]),
            function: FunctionCall::default(),
            straddle: Straddle::default(),
        }
    }
}

impl Frame {
    /// The instructions retired: at the start of a site's block, or at its end for the ways out there.
    pub fn retired(&self, site: &Site) -> u64 {
        self.base.wrapping_sub(self.fuel as u64).wrapping_sub(u64::from(site.charged))
    }
    /// Notes a data segment load at level 0 from the GDT, with the descriptor as it is in memory now.
    pub fn note_load(&mut self, descriptor: u64, segment: Segment) {
        let (selector, flat) = (u32::from(segment.selector), u32::from(segment.flat() && segment.writable()));
        self.known_loads[KnownLoad::index(segment.selector)] = KnownLoad { descriptor, selector, flat, segment };
    }
}

/// Offset of a field of the frame in the vCPU.
macro_rules! frame {
    ($($field:tt)*) => {
        std::mem::offset_of!(crate::vcpu::Vcpu, link) + std::mem::offset_of!(crate::vcpu::Link, frame)
            + std::mem::offset_of!(crate::emit::frame::Frame, $($field)*)
    };
}
pub(crate) use frame;

const HOT: usize = offset_of!(Vcpu, link) + offset_of!(Link, mmu);
const _: () = assert!(align_of::<VcpuMmu>() >= 8);

/// Offsets of the TLB's fields in the vCPU (the mmu's first field; a test of the mmu holds that).
pub const DATA: usize = HOT + offset_of!(HotTlbs, data);
/// The mask of the data TLB.
pub const DATA_MASK: usize = HOT + offset_of!(HotTlbs, data_mask);
/// The rights that a leaf word must have for reads and writes.
pub const RIGHTS: usize = HOT + offset_of!(HotTlbs, rights);
/// Pointers to leaf tables.
pub const LEAVES: usize = HOT + offset_of!(HotTlbs, leaves);
/// The page of each frame.
pub const OWNERS: usize = HOT + offset_of!(HotTlbs, owners);
/// The host address of frame 0.
pub const POOL: usize = HOT + offset_of!(HotTlbs, pool);
/// Counters.
pub const REFILLS: usize = HOT + offset_of!(HotTlbs, refills);
/// As above.
pub const CONFLICTS: usize = HOT + offset_of!(HotTlbs, conflicts);
/// The fetch TLB.
pub const FETCH: usize = HOT + offset_of!(HotTlbs, fetch);
/// Its mask.
pub const FETCH_MASK: usize = HOT + offset_of!(HotTlbs, fetch_mask);
/// The memos of access sites.
pub const MEMOS: usize = HOT + offset_of!(HotTlbs, memos) + offset_of!(Memos, entries);
/// Which of them may have been filled.
pub const MEMOS_USED: usize = HOT + offset_of!(HotTlbs, memos) + offset_of!(Memos, used);
/// The mode bits.
pub const MODE: usize = offset_of!(Vcpu, link) + offset_of!(Link, mode);
