//! The only door out of the processor: ports, memory-mapped regions, interrupt acknowledge, the APIC's registers.
//!
//! The board implements [`Bus`]; this crate knows no port number and no physical address.

use umbra_mmu::addr::RegionId;

/// When an access is made: instructions that this vCPU has retired before the one that makes it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retired(pub u64);

/// An MSR that the board does not have, or a value that it refuses: the guest gets #GP(0).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MsrRefused;

/// The time-stamp counter as a straight line over the host's own, for a while: what [`Bus::tsc`] would say.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TscLine {
    /// The host's count at which the line begins.
    pub host: u64,
    /// Host counts that it is good for; 0: for none.
    pub span: u64,
    /// What the counter shows at its begin.
    pub tsc: u64,
    /// Counts for 2³² of the host's.
    pub rate: u64,
}

impl TscLine {
    /// Says nothing.
    pub const NONE: TscLine = TscLine { host: 0, span: 0, tsc: 0, rate: 0 };
    /// What the counter shows at a count of the host's, if the line reaches there.
    pub fn at(&self, host: u64) -> Option<u64> {
        let since = host.wrapping_sub(self.host);
        (since < self.span).then(|| self.tsc + self.beyond(since))
    }
    /// What the counter adds in `since` host counts.
    pub fn beyond(&self, since: u64) -> u64 {
        ((u128::from(since) * u128::from(self.rate)) >> 32) as u64
    }
}

/// What a vCPU can ask of the board. Widths are in bytes: 1, 2, 4 (ports) and up to 8 (MMIO).
///
/// An access that brings the next event nearer, or raises an interrupt, sets bits in the vCPU's attention word; the
/// vCPU leaves its block after the instruction that made the access, so that the event falls at its exact count.
pub trait Bus: Send {
    /// Reads a port.
    fn port_read(&mut self, at: Retired, port: u16, width: u8) -> u32;
    /// Writes a port.
    fn port_write(&mut self, at: Retired, port: u16, width: u8, value: u32);
    /// Reads from a memory-mapped region.
    fn mmio_read(&mut self, at: Retired, region: RegionId, offset: u64, width: u8) -> u64;
    /// Writes to a memory-mapped region.
    fn mmio_write(&mut self, at: Retired, region: RegionId, offset: u64, width: u8, value: u64);
    /// INTA: takes the vector of the interrupt that made the board set `attention::bits::INTR`. `None`: it went away.
    fn acknowledge_interrupt(&mut self, at: Retired) -> Option<u8>;
    /// Takes the vector of the start-up IPI behind `attention::bits::SIPI`.
    fn take_startup_vector(&mut self) -> u8;
    /// The time-stamp counter, before IA32_TSC_ADJUST is added.
    fn tsc(&mut self, at: Retired) -> u64;
    /// How [`Self::tsc`] goes on by itself, until the vCPU leaves [`Vcpu::run`](crate::vcpu::Vcpu::run) at the latest.
    fn tsc_line(&mut self) -> TscLine {
        TscLine::NONE
    }
    /// Reads an MSR that belongs to the local APIC (1Bh, 6E0h, 800h–8FFh).
    fn msr_read(&mut self, at: Retired, msr: u32) -> Result<u64, MsrRefused>;
    /// Writes an MSR that belongs to the local APIC.
    fn msr_write(&mut self, at: Retired, msr: u32, value: u64) -> Result<(), MsrRefused>;
    /// CR8, the local APIC's task priority bits 7–4.
    fn cr8(&mut self, at: Retired) -> u8;
    /// Writes CR8.
    fn set_cr8(&mut self, at: Retired, priority: u8);
    /// FERR#: an unmasked x87 error with CR0.NE = 0 (the board routes it to IRQ 13).
    fn set_ferr(&mut self, at: Retired, asserted: bool);
    /// The initial local APIC id, for CPUID leaf 1 and Bh.
    fn apic_id(&self) -> u32;
}

/// A board with nothing on it: reads give all ones. For tests that need no devices.
#[derive(Debug, Default)]
pub struct OpenBus;

impl Bus for OpenBus {
    fn port_read(&mut self, _: Retired, _: u16, width: u8) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(width.clamp(1, 4)))
    }
    fn port_write(&mut self, _: Retired, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: Retired, _: RegionId, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: Retired, _: RegionId, _: u64, _: u8, _: u64) {}
    fn acknowledge_interrupt(&mut self, _: Retired) -> Option<u8> {
        None
    }
    fn take_startup_vector(&mut self) -> u8 {
        0
    }
    fn tsc(&mut self, at: Retired) -> u64 {
        at.0
    }
    fn msr_read(&mut self, _: Retired, _: u32) -> Result<u64, MsrRefused> {
        Err(MsrRefused)
    }
    fn msr_write(&mut self, _: Retired, _: u32, _: u64) -> Result<(), MsrRefused> {
        Err(MsrRefused)
    }
    fn cr8(&mut self, _: Retired) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: Retired, _: u8) {}
    fn set_ferr(&mut self, _: Retired, _: bool) {}
    fn apic_id(&self) -> u32 {
        0
    }
}
