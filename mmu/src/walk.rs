//! The guest's page walk (SDM vol. 3, 5.3–5.7): what the processor would do with the guest's own tables.
//!
//! Pure: memory comes through [`GuestTables`], nothing is written. Only the monitor's fill and sync code and the
//! debugger may walk: a walk takes a [`FillScope`], which nobody else can make.
//!
//! ```compile_fail
//! let scope = umbra_mmu::walk::FillScope::new(); // private: the engine translates through monitor tables only
//! ```

use crate::addr::{GuestPhys, Linear};
use crate::fault::{Access, PageFault, View, error_code};
use crate::pte::{self, Mode, Rules, rule};
use serde::{Deserialize, Serialize};

/// Permission to read guest tables.
#[derive(Debug)]
pub struct FillScope(());

impl FillScope {
    /// For the monitor's fill and sync code and the debugger.
    pub(crate) fn new() -> FillScope {
        FillScope(())
    }
}

/// Where guest paging-structure entries are read from.
pub trait GuestTables {
    /// Reads an entry of 4 or 8 bytes, which is naturally aligned.
    fn entry(&mut self, at: GuestPhys, bytes: u64) -> u64;
}

impl<F: FnMut(GuestPhys, u64) -> u64> GuestTables for F {
    fn entry(&mut self, at: GuestPhys, bytes: u64) -> u64 {
        self(at, bytes)
    }
}

/// The root of a guest's tables.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestRoot {
    /// The guest-physical address of the top table (CR3 without its flags); 0 with paging off.
    Table(GuestPhys),
    /// The four PDPTE registers of PAE paging.
    Pdptes([u64; 4]),
}

/// One entry that a walk read.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// 4 (PML4E) down to 1 (PTE).
    pub level: u8,
    /// Where the entry lies. 0 for a PDPTE register.
    pub at: GuestPhys,
    /// Its value.
    pub value: u64,
}

/// What the levels together allow, before CPL, WP, SMEP and SMAP.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rights(pub u8);

impl Rights {
    /// Writable at every level.
    pub const W: u8 = 1;
    /// User at every level.
    pub const U: u8 = 2;
    /// Executable at every level.
    pub const X: u8 = 4;
    /// Everything.
    pub const ALL: Rights = Rights(7);

    /// What remains after one more entry.
    #[must_use]
    pub const fn through(self, entry: u64) -> Rights {
        let mut left = self.0;
        if entry & pte::RW == 0 {
            left &= !Rights::W;
        }
        if entry & pte::US == 0 {
            left &= !Rights::U;
        }
        if entry & pte::NX != 0 {
            left &= !Rights::X;
        }
        Rights(left)
    }
    /// Whether a bit is there.
    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
    /// Whether these rights permit an access (SDM vol. 3, 5.6.1).
    pub const fn permit(self, rules: Rules, access: Access, view: View) -> bool {
        let user_page = self.has(Rights::U);
        match (view, access) {
            (View::User, Access::Read) => user_page,
            (View::User, Access::Write) => user_page && self.has(Rights::W),
            (View::User, Access::Fetch) => user_page && self.has(Rights::X),
            (_, Access::Fetch) => self.has(Rights::X) && !(user_page && rules.has(rule::SMEP)),
            (View::Supervisor, _) if user_page && rules.has(rule::SMAP) => false,
            (_, Access::Read) => true,
            (_, Access::Write) => self.has(Rights::W) || !rules.has(rule::WP),
        }
    }
}

/// A successful walk.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The guest-physical address of the linear address, A20 applied.
    pub phys: GuestPhys,
    /// What the levels together allow.
    pub rights: Rights,
    /// The level of the entry that maps the page: 1, or 2 and 3 for large pages. 0 with paging off.
    pub leaf_level: u8,
    steps: [Step; 4],
    count: u8,
}

impl Walk {
    /// The entries read, top first.
    pub fn steps(&self) -> &[Step] {
        self.steps.get(..self.count as usize).unwrap_or(&[])
    }
    /// Replaces what a step read, after its A or D bit was set.
    pub(crate) fn set_step(&mut self, number: usize, step: Step) {
        if let Some(slot) = self.steps.get_mut(number) {
            *slot = step;
        }
    }
    /// Whether the leaf entry is dirty (always, with paging off).
    pub fn dirty(&self) -> bool {
        self.steps().last().is_none_or(|step| step.value & pte::D != 0)
    }
}

/// Which check of a walk failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WalkCheck {
    /// The last entry's P bit is clear.
    Present,
    /// The last entry has reserved bits set.
    Reserved,
    /// A write, and an entry's R/W bit is clear.
    Writable,
    /// A user access, and an entry's U/S bit is clear.
    User,
    /// A fetch, and an entry's XD bit is set.
    Executable,
    /// A supervisor fetch from a user page, under SMEP.
    Smep,
    /// A supervisor access to a user page, under SMAP.
    Smap,
}

impl WalkCheck {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            WalkCheck::Present => "not present",
            WalkCheck::Reserved => "reserved bits set",
            WalkCheck::Writable => "not writable",
            WalkCheck::User => "not for users",
            WalkCheck::Executable => "not executable",
            WalkCheck::Smep => "SMEP: a user page",
            WalkCheck::Smap => "SMAP: a user page",
        }
    }
}

/// A walk that did not permit the access, with what it read up to there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the guest gets.
    pub fault: PageFault,
    /// Which check failed.
    pub check: WalkCheck,
    steps: [Step; 4],
    count: u8,
}

impl Refusal {
    fn of(walk: &Walk, fault: PageFault, check: WalkCheck) -> Refusal {
        Refusal { fault, check, steps: walk.steps, count: walk.count }
    }
    /// The entries read, top first.
    pub fn steps(&self) -> &[Step] {
        self.steps.get(..self.count as usize).unwrap_or(&[])
    }
    /// The number among [`Refusal::steps`] of the entry that refused: the first that does for a right that every level must give.
    /// `None`: a PDPTE register.
    pub fn refused_by(&self) -> Option<usize> {
        let last = self.steps().len().checked_sub(1)?;
        let first = |refuses: fn(u64) -> bool| self.steps().iter().position(|step| refuses(step.value));
        match self.check {
            WalkCheck::Writable => first(|value| value & pte::RW == 0),
            WalkCheck::User => first(|value| value & pte::US == 0),
            WalkCheck::Executable => first(|value| value & pte::NX != 0),
            WalkCheck::Present | WalkCheck::Reserved | WalkCheck::Smep | WalkCheck::Smap => Some(last),
        }
    }
}

/// Which check refuses an access that the levels together do not permit.
fn refused(rights: Rights, rules: Rules, access: Access, view: View) -> WalkCheck {
    match (view, access) {
        (View::User, _) if !rights.has(Rights::U) => WalkCheck::User,
        (_, Access::Fetch) if !rights.has(Rights::X) => WalkCheck::Executable,
        (View::User, _) => WalkCheck::Writable,
        (_, Access::Fetch) => WalkCheck::Smep,
        (View::Supervisor, _) if rights.has(Rights::U) && rules.has(rule::SMAP) => WalkCheck::Smap,
        _ => WalkCheck::Writable,
    }
}

/// Walks the guest's tables for one access. A and D bits are the caller's business.
pub fn walk(
    scope: &FillScope,
    tables: &mut dyn GuestTables,
    space: (Rules, GuestRoot),
    linear: Linear,
    access: Access,
    view: View,
) -> Result<Walk, PageFault> {
    walk_or_refusal(scope, tables, space, linear, access, view).map_err(|refusal| refusal.fault)
}

/// The same, and where it ended.
#[inline]
pub fn walk_or_refusal(
    _scope: &FillScope,
    tables: &mut dyn GuestTables,
    (rules, root): (Rules, GuestRoot),
    linear: Linear,
    access: Access,
    view: View,
) -> Result<Walk, Refusal> {
    let mut walk =
        Walk { phys: GuestPhys(0), rights: Rights::ALL, leaf_level: 0, steps: [Step::default(); 4], count: 0 };
    if rules.mode == Mode::Off {
        walk.phys = GuestPhys(rules.gate(linear.0));
        return Ok(walk);
    }
    let fault = |cause: u32| PageFault { linear, error_code: cause | access_code(rules, access, view) };
    let (mut level, mut table) = match root {
        GuestRoot::Table(at) => (rules.top_level(), rules.gate(at.0)),
        GuestRoot::Pdptes(registers) => {
            // PDPTE registers have neither rights nor A bits, and their reserved bits were checked when they were loaded.
            let value = registers[rules.index(3, linear.0)];
            if value & pte::P == 0 {
                return Err(Refusal::of(&walk, fault(0), WalkCheck::Present));
            }
            (2, rules.target(3, value & !pte::PS))
        }
    };
    loop {
        let at = GuestPhys(table + rules.index(level, linear.0) as u64 * rules.entry_bytes());
        let value = tables.entry(at, rules.entry_bytes());
        if let Some(step) = walk.steps.get_mut(walk.count as usize) {
            *step = Step { level, at, value };
            walk.count += 1;
        }
        if value & pte::P == 0 {
            return Err(Refusal::of(&walk, fault(0), WalkCheck::Present));
        }
        if value & rules.reserved(level, value) != 0 {
            let fault = fault(error_code::PRESENT | error_code::RESERVED);
            return Err(Refusal::of(&walk, fault, WalkCheck::Reserved));
        }
        walk.rights = walk.rights.through(value);
        let target = rules.target(level, value);
        if level == 1 || rules.is_large(level, value) {
            let within = (1u64 << rules.shift(level)) - 1;
            walk.phys = GuestPhys(rules.gate(target | linear.0 & within));
            walk.leaf_level = level;
            let permitted = walk.rights.permit(rules, access, view);
            if permitted {
                return Ok(walk);
            }
            return Err(Refusal::of(&walk, fault(error_code::PRESENT), refused(walk.rights, rules, access, view)));
        }
        table = target;
        level -= 1;
    }
}

/// The error-code bits that describe the access itself (SDM vol. 3, 5.7).
fn access_code(rules: Rules, access: Access, view: View) -> u32 {
    let mut code = 0;
    if access == Access::Write {
        code |= error_code::WRITE;
    }
    if view == View::User {
        code |= error_code::USER;
    }
    let reports_fetch = rules.has(rule::SMEP) || rules.has(rule::NXE) && rules.mode != Mode::TwoLevel;
    if access == Access::Fetch && reports_fetch {
        code |= error_code::FETCH;
    }
    code
}
