//! The fw_cfg file `opt/umbra/monitor`: the monitor's counters for a guest that wants to show them (the demo guest).
//!
//! Little-endian 64-bit numbers, fresh each time the guest selects an item: monitor roots made, root hits, hidden faults, TLB
//! fills, guest page faults, guest table writes, device memory exits, instructions retired. A machine offers the file only
//! if it starts from a ROM, so that no other guest meets numbers that depend on the engine.

use super::Board;
use umbra_cpu::bus::Retired;
use umbra_mmu::FaultClass;

/// The file's name.
const NAME: &str = "opt/umbra/monitor";
/// How many numbers it has.
const NUMBERS: usize = 8;
/// The port that selects an item.
const SELECTOR: u16 = 0x510;

impl Board {
    /// Puts the file into the directory.
    pub fn offer_monitor_file(&mut self) {
        // A second offer finds the name taken, and the first file serves.
        if let Ok(key) = self.chips.fw_cfg().add_file(NAME, vec![0; 8 * NUMBERS]) {
            self.monitor_file = Some(key);
        }
    }
    /// Refreshes the file if this port access is about to select an item.
    pub(crate) fn before_port_write(&mut self, port: u16, at: Retired) {
        if port != SELECTOR {
            return;
        }
        let Some(key) = self.monitor_file else { return };
        let counters = self.memory.counters();
        let hidden = [
            FaultClass::NotShadowed,
            FaultClass::FrameOut,
            FaultClass::WriteTrack,
            FaultClass::DirtyTrack,
            FaultClass::CopyOnWrite,
        ];
        let hidden: u64 = hidden.into_iter().map(|class| counters.class(class)).sum();
        let numbers: [u64; NUMBERS] = [
            counters.root_misses,
            counters.root_hits,
            hidden,
            counters.class(FaultClass::Hit) + hidden,
            counters.class(FaultClass::GuestTrue),
            counters.tracked_stores,
            counters.class(FaultClass::Mmio),
            at.0,
        ];
        let bytes = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        self.chips.fw_cfg().add_item(key, bytes);
    }
}
