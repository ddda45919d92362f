//! The local APIC (SDM vol. 3, chapter 10), in xAPIC and x2APIC form: one per processor.
//!
//! The board gives it the 4 KiB window at [`LocalApic::window`] (MMIO window 0) and the MSRs that
//! [`LocalApic::owns_msr`] names. It knows no other local APIC: inter-processor interrupts and EOI broadcasts are queued
//! for the board ([`LocalApic::take_ipis`], [`LocalApic::take_eois`]), and messages arrive through
//! [`LocalApic::accepts`] and [`LocalApic::deliver`]. Towards its processor: [`LocalApic::pending`] is the INTR pin,
//! [`LocalApic::acknowledge`] the interrupt-acknowledge cycle, [`LocalApic::take_signals`] everything edge-like.
//!
//! Left out: the corrected-machine-check LVT entry, remote read, focus processor checking (the bit is kept), and the
//! arbitration of the old three-wire bus. The APIC ID is read-only, as since Nehalem.

mod base;
mod icr;
mod lvt;
mod priority;
mod registers;
#[cfg(test)]
mod tests;
mod timer;

use crate::apic::{DeliveryMode, DestinationMode, Trigger};
use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use lvt::{Lvt, LvtEntry};
use priority::Vectors;
use serde::{Deserialize, Serialize};
use timer::Timer;

pub use base::{Features, IA32_APIC_BASE, IA32_TSC_DEADLINE, MsrFault};
pub use icr::{Ipi, IpiTarget};
pub use lvt::{Lint, LocalSource};

/// How a local APIC is built; never changes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The initial APIC ID (bits 7–0 are the xAPIC ID, all bits the x2APIC ID).
    pub id: u32,
    /// Whether this is the bootstrap processor's (IA32_APIC_BASE bit 8).
    pub bootstrap: bool,
    /// What CPUID promises.
    pub features: Features,
    /// The width of a guest-physical address in bits, for the reserved bits of IA32_APIC_BASE.
    pub physical_bits: u8,
    /// The timer's input clock before its divider.
    pub bus_rate: Rate,
    /// The rate of the time-stamp counter, for deadlines.
    pub tsc_rate: Rate,
}

impl Config {
    /// A local APIC with x2APIC and TSC deadline, a bus clock and TSC of 1 GHz, and 40-bit addresses.
    pub const fn new(id: u32) -> Config {
        Config {
            id,
            bootstrap: id == 0,
            features: Features { x2apic: true, tsc_deadline: true },
            physical_bits: 40,
            bus_rate: Rate::new(1, 1),
            tsc_rate: Rate::new(1, 1),
        }
    }
}

/// What the local APIC asks of its processor other than by INTR; each stays until it is taken.
///
/// A processor that finds several acts on `init` first, then on `start_up`, `smi` and `nmi`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// INIT: reset, then wait for a start-up message. The local APIC has already reset itself.
    pub init: bool,
    /// A start-up message with this vector; ignored by a processor that is not waiting for one.
    pub start_up: Option<u8>,
    /// A system-management interrupt.
    pub smi: bool,
    /// A non-maskable interrupt.
    pub nmi: bool,
}

/// The volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// IA32_APIC_BASE.
    base: u64,
    tpr: u8,
    /// LDR bits 31–24 of the xAPIC.
    logical_id: u8,
    /// DFR bits 31–28.
    destination_format: u8,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    /// Errors since the last write to ESR, and what that write latched.
    errors: u32,
    esr: u32,
    icr: u64,
    lvt: Lvt,
    timer: Timer,
    tsc_offset: u64,
    /// The levels of LINT0 and LINT1.
    lint: [bool; 2],
    /// An ExtINT message came and was not acknowledged yet.
    ext_int_message: bool,
    signals: Signals,
    ipis: Vec<Ipi>,
    eois: Vec<u8>,
}

impl State {
    fn new(config: &Config) -> State {
        State {
            base: base::reset_value(config),
            tpr: 0,
            logical_id: 0,
            destination_format: 0xF,
            svr: registers::SVR_RESET,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            errors: 0,
            esr: 0,
            icr: 0,
            lvt: Lvt::default(),
            timer: Timer::default(),
            tsc_offset: 0,
            lint: [false; 2],
            ext_int_message: false,
            signals: Signals::default(),
            ipis: Vec::new(),
            eois: Vec::new(),
        }
    }
}

/// One processor's local APIC.
#[derive(Debug)]
pub struct LocalApic {
    // Configuration.
    config: Config,
    // Wires: none of its own; LINT0 and LINT1 come in through `set_lint`.
    // Volatile state.
    state: State,
}

impl LocalApic {
    /// A local APIC after power-on.
    pub fn new(config: Config) -> LocalApic {
        let state = State::new(&config);
        LocalApic { config, state }
    }

    /// INTR: whether a vector waits that is above the processor priority.
    pub fn pending(&self) -> bool {
        self.deliverable().is_some()
    }

    /// Whether the 8259's INTR reaches the processor through this local APIC (LINT0 in virtual-wire mode, or the APIC
    /// disabled) or an ExtINT message waits. It comes after [`Self::pending`]. The vector is the 8259's to give.
    pub fn ext_int(&self) -> bool {
        self.state.ext_int_message || self.ext_int_pin()
    }

    /// The processor runs an acknowledge cycle for [`Self::ext_int`].
    pub fn acknowledge_ext_int(&mut self) {
        self.state.ext_int_message = false;
    }

    /// The processor acknowledges: the best vector moves from IRR to ISR. If none is above the processor priority any
    /// more, gives the spurious vector; `None` if the APIC is disabled in IA32_APIC_BASE.
    pub fn acknowledge(&mut self) -> Option<u8> {
        if !self.is_enabled() {
            return None;
        }
        let Some(vector) = self.deliverable() else { return Some(self.state.svr as u8) };
        self.state.irr.clear(vector);
        self.state.isr.set(vector);
        Some(vector)
    }

    /// The vector that [`Self::acknowledge`] would give, without a change.
    fn deliverable(&self) -> Option<u8> {
        let vector = self.state.irr.highest()?;
        (self.is_enabled() && vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Accepts a fixed interrupt into IRR; a vector below 16 is an error, and a software-disabled APIC drops it.
    pub fn inject(&mut self, vector: u8, trigger: Trigger) {
        if !self.takes_interrupts() {
            return;
        }
        if vector < 16 {
            self.error(registers::ESR_RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.state.irr.set(vector);
        match trigger {
            Trigger::Edge => self.state.tmr.clear(vector),
            Trigger::Level => self.state.tmr.set(vector),
        }
    }

    /// Takes a message that [`Self::accepts`] agreed to. For lowest priority the board has picked this one.
    pub fn deliver(&mut self, delivery: DeliveryMode, vector: u8, trigger: Trigger) {
        if !self.is_enabled() {
            return;
        }
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.inject(vector, trigger),
            DeliveryMode::Smi => self.state.signals.smi = true,
            DeliveryMode::Nmi => self.state.signals.nmi = true,
            DeliveryMode::Init => {
                self.init_reset();
                self.state.signals = Signals { init: true, ..Signals::default() };
            }
            DeliveryMode::StartUp => self.state.signals.start_up = Some(vector),
            DeliveryMode::ExtInt => self.state.ext_int_message = true,
        }
    }

    /// Whether a message to `destination` is for this local APIC.
    pub fn accepts(&self, destination: u32, mode: DestinationMode) -> bool {
        self.is_enabled() && (destination == icr::EVERYONE || self.matches(destination, mode))
    }

    /// Whether a fixed or lowest-priority interrupt would be accepted (enabled in IA32_APIC_BASE and in SVR).
    pub fn takes_interrupts(&self) -> bool {
        self.is_enabled() && self.state.svr & registers::SVR_ENABLE != 0
    }

    /// INIT as the local APIC sees it: registers as after power-on, except its ID, IA32_APIC_BASE and the TSC offset.
    pub fn init_reset(&mut self) {
        let old = std::mem::replace(&mut self.state, State::new(&self.config));
        self.state.base = old.base;
        self.state.tsc_offset = old.tsc_offset;
        self.state.lint = old.lint;
        self.state.ipis = old.ipis;
        self.state.eois = old.eois;
    }

    /// Puts the APIC in virtual-wire mode (SVR on, LINT0 ExtINT, LINT1 NMI), as firmware does before it boots a system.
    /// For boards that start a kernel without firmware.
    pub fn enter_virtual_wire(&mut self) {
        self.state.svr = registers::SVR_RESET | registers::SVR_ENABLE;
        self.state.lvt.set(LvtEntry::Lint0, (DeliveryMode::ExtInt as u32) << 8);
        self.state.lvt.set(LvtEntry::Lint1, (DeliveryMode::Nmi as u32) << 8);
    }

    /// CR8: the high half of the task priority.
    pub fn cr8(&self) -> u8 {
        self.state.tpr >> 4
    }

    /// Writes CR8; the low half of the task priority becomes 0.
    pub fn set_cr8(&mut self, value: u8) {
        self.state.tpr = value << 4;
    }

    /// Takes what waits for the processor besides INTR.
    pub fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.state.signals)
    }

    /// Whether [`Self::take_signals`] would give anything.
    pub fn has_signals(&self) -> bool {
        self.state.signals != Signals::default()
    }

    /// Takes the inter-processor interrupts written since the last call, oldest first.
    pub fn take_ipis(&mut self) -> Vec<Ipi> {
        std::mem::take(&mut self.state.ipis)
    }

    /// Takes the vectors whose level-triggered service ended since the last call, for the I/O APICs.
    pub fn take_eois(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.eois)
    }

    /// Whether [`Self::take_ipis`] or [`Self::take_eois`] would give anything.
    pub fn has_output(&self) -> bool {
        !self.state.ipis.is_empty() || !self.state.eois.is_empty()
    }

    /// The initial APIC ID.
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Makes every change of the timer that is due.
    pub fn advance(&mut self, now: Tick) {
        if self.state.timer.is_due(now) {
            self.expire(now);
        }
    }
}

impl Device for LocalApic {
    fn name(&self) -> &'static str {
        "lapic"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        let lint = self.state.lint;
        self.state = State { lint, ..State::new(&self.config) };
    }

    fn mmio_read(&mut self, cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        self.window_read(cx.now, offset, width)
    }

    fn mmio_write(
        &mut self,
        cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        self.window_write(cx.now, offset, width, value)
    }

    fn next_event(&self) -> Option<Tick> {
        self.timer_event()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx.now);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.state = restore_state(self.name(), state)?;
        Ok(())
    }
}
