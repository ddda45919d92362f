//! A vCPU's door to the board: the processor's [`Bus`], which takes the board's lock for each access.
//!
//! The board first advances to the access's time. Afterwards, if an event has come nearer than what the run loop counts
//! on, the vCPU (virtual clock) or the timekeeper (real clock) is told.

use crate::board::{Board, SharedBoard};
use crate::time::GuestClock;
use std::sync::Arc;
use umbra_cpu::bus::{Bus, MsrRefused, Retired, TscLine};
use umbra_devices::clock::Tick;
use umbra_mmu::addr::RegionId;
use umbra_mmu::attention::bits;

/// One vCPU's bus.
pub struct VcpuBus {
    /// Which vCPU.
    pub vcpu: usize,
    /// The board.
    pub board: Arc<SharedBoard>,
    /// The machine's clock.
    pub clock: Arc<GuestClock>,
}

impl VcpuBus {
    fn now(&self, at: Retired) -> Tick {
        self.clock.now(self.vcpu, at)
    }
    /// Runs `call` on the board at the time of the access.
    fn with<R>(&self, at: Retired, call: impl FnOnce(&mut Board) -> R) -> R {
        let mut board = self.board.lock();
        board.note_retired(self.vcpu, at.0);
        board.advance(self.now(at));
        let result = call(&mut board);
        if board.horizon_is_late() || board.has_request() {
            if self.clock.is_virtual() {
                board.alert(self.vcpu, bits::STOP);
            } else {
                self.board.changed.notify_all();
            }
        }
        result
    }
}

impl Bus for VcpuBus {
    fn port_read(&mut self, at: Retired, port: u16, width: u8) -> u32 {
        self.with(at, |board| {
            let value = board.port_read(port, width);
            board.note_access([at.0, u64::from(port), u64::from(width), u64::from(value)]);
            value
        })
    }
    fn port_write(&mut self, at: Retired, port: u16, width: u8, value: u32) {
        self.with(at, |board| {
            board.before_port_write(port, at);
            board.note_access([at.0, u64::from(port), 0x100 | u64::from(width), u64::from(value)]);
            board.port_write(port, width, value);
        });
    }
    fn mmio_read(&mut self, at: Retired, region: RegionId, offset: u64, width: u8) -> u64 {
        self.with(at, |board| {
            let value = board.mmio_read(self.vcpu, region, offset, width);
            board.note_access([at.0, offset, u64::from(region.0) << 32 | u64::from(width), value]);
            value
        })
    }
    fn mmio_write(&mut self, at: Retired, region: RegionId, offset: u64, width: u8, value: u64) {
        self.with(at, |board| {
            board.note_access([at.0, offset, u64::from(region.0) << 32 | 0x100 | u64::from(width), value]);
            board.mmio_write(self.vcpu, region, offset, width, value);
        });
    }
    fn acknowledge_interrupt(&mut self, at: Retired) -> Option<u8> {
        self.with(at, |board| board.acknowledge(self.vcpu))
    }
    fn take_startup_vector(&mut self) -> u8 {
        self.board.lock().start_up_vector(self.vcpu)
    }
    fn tsc(&mut self, at: Retired) -> u64 {
        self.now(at).0
    }
    fn tsc_line(&mut self) -> TscLine {
        self.clock.tsc_line()
    }
    fn msr_read(&mut self, at: Retired, msr: u32) -> Result<u64, MsrRefused> {
        let value = self.with(at, |board| board.with_lapic(self.vcpu, |lapic, now| lapic.read_msr(now, msr)));
        value.and_then(Result::ok).ok_or(MsrRefused)
    }
    fn msr_write(&mut self, at: Retired, msr: u32, value: u64) -> Result<(), MsrRefused> {
        let done = self.with(at, |board| board.with_lapic(self.vcpu, |lapic, now| lapic.write_msr(now, msr, value)));
        done.and_then(Result::ok).ok_or(MsrRefused)
    }
    fn cr8(&mut self, at: Retired) -> u8 {
        self.with(at, |board| board.with_lapic(self.vcpu, |lapic, _| lapic.cr8()).unwrap_or(0))
    }
    fn set_cr8(&mut self, at: Retired, priority: u8) {
        self.with(at, |board| board.with_lapic(self.vcpu, |lapic, _| lapic.set_cr8(priority)));
    }
    fn set_ferr(&mut self, at: Retired, asserted: bool) {
        self.with(at, |board| board.set_ferr(self.vcpu, asserted));
    }
    fn apic_id(&self) -> u32 {
        self.vcpu as u32
    }
}
