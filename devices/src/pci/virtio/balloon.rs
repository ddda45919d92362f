//! A memory balloon (VIRTIO 1.2, 5.5): the guest tells which of its pages it does not need. It fills the balloon as far as it is asked
//! to, and reports what it has free by itself.
//!
//! Queue 0 takes pages into the balloon, queue 1 lets them out again, queue 2 reports free pages. What is in the balloon or reported
//! is given up through [`Dma::discard`]; a page that comes back is zero.
//!
//! Leaves out: statistics, hints of free pages for migration, and page poison (a guest that wants poison reports nothing).

use super::queue::{Broken, Queue};
use super::{Virtio, VirtioDevice};
use crate::device::Ctx;
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

/// Feature bit 5: the guest reports free pages.
const REPORTING: u64 = 1 << 5;
/// The balloon counts in pages of 4 KiB, whatever the guest's are.
const PAGE_SHIFT: u32 = 12;
/// Bytes of page numbers, 32 bits each, that one buffer may hold.
const MOST_NUMBERS: usize = 1 << 16;

/// The balloon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Balloon {
    /// Pages that the guest is asked to put into it.
    wanted: u32,
    /// Pages that the guest says are in it.
    actual: u32,
}

impl Balloon {
    /// The registers: wanted, then actual.
    fn registers(&self) -> [u8; 8] {
        let [wanted, actual] = [self.wanted, self.actual].map(u32::to_le_bytes);
        std::array::from_fn(|at| if at < 4 { wanted[at] } else { actual[at - 4] })
    }
}

/// Gives pages up that are listed by number, those that follow each other in one go.
fn give_up(dma: &mut dyn Dma, numbers: &[u8]) {
    let numbers: Vec<u32> = numbers.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
    for run in numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        if let Some(first) = run.first() {
            dma.discard(GuestPhys(u64::from(*first) << PAGE_SHIFT), (run.len() as u64) << PAGE_SHIFT);
        }
    }
}

impl VirtioDevice for Balloon {
    const NAME: &'static str = "virtio_balloon";
    const ID: u16 = 5;
    // Another memory controller.
    const CLASS: u32 = 0x05_8000;
    const QUEUES: &'static [u16] = &[128, 128, 128];
    const CONFIG_BYTES: u32 = 8;
    const FEATURES: u64 = REPORTING;

    fn new() -> Balloon {
        Balloon { wanted: 0, actual: 0 }
    }

    /// What is wanted is wanted of the next driver, too.
    fn restart(&mut self) {
        self.actual = 0;
    }

    fn config_read(&self, offset: u32) -> u8 {
        self.registers().get(offset as usize).copied().unwrap_or(0)
    }

    fn config_write(&mut self, offset: u32, value: u8) {
        if let 4..8 = offset {
            let shift = 8 * (offset - 4);
            self.actual = self.actual & !(0xFF << shift) | u32::from(value) << shift;
        }
    }

    fn serve(&mut self, queues: &mut [Queue], dma: &mut dyn Dma) -> Result<(), Broken> {
        let [inflate, deflate, report] = queues else { return Ok(()) };
        while let Some(chain) = inflate.take(dma)? {
            let numbers = chain.read(dma, MOST_NUMBERS)?;
            give_up(dma, &numbers);
            inflate.give_back(dma, &chain, 0)?;
        }
        // Whoever touches them next has them again.
        while let Some(chain) = deflate.take(dma)? {
            deflate.give_back(dma, &chain, 0)?;
        }
        while let Some(chain) = report.take(dma)? {
            for (at, bytes) in chain.writable() {
                dma.discard(at, bytes.into());
            }
            report.give_back(dma, &chain, 0)?;
        }
        Ok(())
    }

    fn sanitise(&mut self) {}
}

impl Virtio<Balloon> {
    /// Asks the guest to have so many pages of 4 KiB in the balloon.
    pub fn ask_for(&mut self, cx: &mut Ctx<'_>, pages: u32) {
        if self.device().wanted != pages {
            self.with_device(cx, |balloon| balloon.wanted = pages);
            self.config_changed();
        }
    }
    /// Pages that the guest is asked for, and those that it says are in the balloon.
    pub fn pages(&self) -> (u32, u32) {
        (self.device().wanted, self.device().actual)
    }
}
