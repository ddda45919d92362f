//! What people do to the board: serial ports, keyboard, mouse, tablet, power button.

use super::Board;
use crate::wiring::Slot;
use umbra_devices::acpi_pm::PmEvent;
use umbra_devices::device::Ctx;
use umbra_devices::pci::virtio::tablet::Report;
use umbra_devices::ps2::{KeyCode, MouseButtons, Stroke};

impl Board {
    /// Bytes from outside for a serial port.
    pub fn serial_input(&mut self, port: usize, bytes: &[u8]) {
        let now = self.now;
        if let Some(slot) = Slot::SERIAL.get(port).copied()
            && let Some(uart) = self.chips.uart(slot)
        {
            uart.receive(now, bytes);
            self.touch(slot);
        }
    }
    /// Bytes given to a serial port that the guest has not read yet.
    pub fn serial_unread(&mut self, port: usize) -> usize {
        Slot::SERIAL.get(port).and_then(|&slot| self.chips.uart(slot)).map_or(0, |uart| uart.unread())
    }

    /// A key does something.
    pub fn key(&mut self, key: KeyCode, stroke: Stroke) {
        let now = self.now;
        self.chips.keyboard().key(now, key, stroke);
        self.touch(Slot::Keyboard);
    }
    /// Keys that the guest has not read yet.
    pub fn keys_waiting(&mut self) -> usize {
        self.chips.keyboard().keys_waiting()
    }
    /// The mouse moves by (x, y, wheel), with these buttons down.
    pub fn mouse(&mut self, delta: [i32; 3], buttons: MouseButtons) {
        let now = self.now;
        self.chips.keyboard().mouse_move(now, delta, buttons);
        self.touch(Slot::Keyboard);
    }
    /// The tablet's pointer is somewhere.
    pub fn tablet(&mut self, report: Report) {
        if let Some(tablet) = self.chips.tablet() {
            tablet.report(&mut Ctx { now: self.now, dma: &mut self.dma }, report);
        }
        self.touch(Slot::Pci);
    }
    /// Whether the guest has a driver for the tablet and listens to it.
    pub fn hears_tablet(&mut self) -> bool {
        self.chips.tablet().is_some_and(|tablet| tablet.is_running())
    }
    /// Asks the guest to give up memory until so many pages of 4 KiB are in its balloon, if it has one.
    pub fn ask_for_pages(&mut self, pages: u32) {
        if let Some(balloon) = self.chips.balloon() {
            balloon.ask_for(&mut Ctx { now: self.now, dma: &mut self.dma }, pages);
        }
        self.touch(Slot::Pci);
    }
    /// Pages that the guest is asked for, and that are in its balloon; `None`: there is none.
    pub fn balloon_pages(&mut self) -> Option<(u32, u32)> {
        self.chips.balloon().map(|balloon| balloon.pages())
    }
    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        if let Some(power) = self.chips.power() {
            power.pm.raise(PmEvent::PowerButton);
        }
        self.touch(Slot::Pci);
    }
}
