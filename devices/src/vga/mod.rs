//! A VGA with the Bochs VBE extension, as PCI function 1234:1111 (IBM PS/2 Hardware Interface Technical Reference, video
//! subsystem; FreeVGA; QEMU, "Standard VGA").
//!
//! Windows: 0 is the linear framebuffer (BAR 0), 2 the registers in memory (BAR 2: VGA ports at 400h, VBE registers at
//! 500h), 6 the option ROM; 8, 9, 10 the ports 3B0h–3BBh, 3C0h–3DFh and 1CEh–1D0h. The legacy window A0000h–BFFFFh is window
//! [`LEGACY_WINDOW`]. The board maps display memory itself where [`Vga::view`] says, so that the guest's stores are as fast
//! as those to RAM; every other access comes here.
//!
//! `registers`, `dac`, `dispi` hold the state; `timing` says where the beam is; `planes` and `window` are the processor's way
//! to memory; `render` makes pictures and `text` characters of a [`Shown`].
//!
//! Leaves out: the command register's enable bits for the legacy ports and window (a guest without firmware has a screen),
//! palette snooping, interrupts, hardware cursor, DDC.

mod dac;
pub mod dispi;
mod planes;
pub mod registers;
pub mod render;
pub mod text;
mod timing;
mod window;

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::pci::{Bar, ConfigSpace, Identity, Mapping, PciFunction, Registers as ConfigRegisters, Space};
use dispi::DispiEffect;
use parking_lot::Mutex;
use registers::Registers;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use umbra_mmu::video::{Generation, VideoMemory};

pub use window::{BYTES as LEGACY_BYTES, Legacy};

/// The legacy window's number for [`Device`] calls.
pub const LEGACY_WINDOW: u8 = 16;
/// The linear framebuffer's window.
pub const FRAMEBUFFER_WINDOW: u8 = 0;
const REGISTER_WINDOW: u8 = 2;
const ROM_WINDOW: u8 = 6;
const MONO_PORTS: u8 = 8;
const COLOR_PORTS: u8 = 9;
const DISPI_PORTS: u8 = 10;
/// First port and number of ports of windows 8–10.
const PORTS: [(u64, u64); 3] = [(0x3B0, 0x0C), (0x3C0, 0x20), (0x1CE, 3)];
/// The registers' window: where the VGA ports and the VBE registers begin.
const REGISTERS_BYTES: u32 = 0x1000;
const MMIO_PORTS: u64 = 0x400;
const MMIO_DISPI: u64 = 0x500;
/// A font: 256 characters of 32 lines in plane 2.
const FONT_LINES: usize = 32;
/// The card's memory.
pub const MEMORY_BYTES: u64 = 16 << 20;

/// What a card is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Display memory, a power of two from 512 KiB on.
    pub memory: Arc<VideoMemory>,
    /// Memory for the legacy window while it is RAM: [`LEGACY_BYTES`].
    pub window: Arc<VideoMemory>,
    /// The option ROM; empty if there is none.
    pub rom: Arc<[u8]>,
    /// The font that is in plane 2 after a reset: 256 characters of 16 bytes, or nothing.
    pub font: &'static [u8],
}

/// Which display memory the board is to map where.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The legacy window.
    pub legacy: Legacy,
    /// The framebuffer window is display memory itself; else every access to it comes here.
    pub linear: bool,
}

/// What is shown at one moment: enough, with display memory, to draw the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// All registers.
    pub registers: Registers,
    /// The number of the frame, for whatever blinks.
    pub frame: u64,
}

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    config: ConfigRegisters,
    /// The pages of display memory that are not zero.
    pages: Vec<(u32, Vec<u8>)>,
}

/// The card.
#[derive(Debug)]
pub struct Vga {
    // Configuration.
    config: Config,
    // Volatile state.
    space: ConfigSpace,
    registers: Registers,
    /// What is mapped now, if that is known.
    view: Option<View>,
    /// Up to when the staged window was carried over.
    carried: Mutex<Generation>,
}

const UNMAPPED: View = View { legacy: Legacy::Logic, linear: false };

impl Vga {
    /// A card after power-on.
    pub fn new(config: Config) -> Vga {
        let identity = Identity { vendor: 0x1234, device: 0x1111, class: 0x03_0000, revision: 2 };
        let size = config.memory.bytes() as u32;
        let mut space = ConfigSpace::new(identity)
            .bar(FRAMEBUFFER_WINDOW, Bar::Memory32 { size })
            .bar(REGISTER_WINDOW, Bar::Memory32 { size: REGISTERS_BYTES })
            .subsystem(0x1AF4, 0x1100);
        if !config.rom.is_empty() {
            space = space.bar(ROM_WINDOW, Bar::Rom { size: config.rom.len() as u32 });
        }
        let registers = Registers::text_mode(config.memory.bytes());
        let vga = Vga { config, space, registers, view: None, carried: Mutex::new(Generation::default()) };
        vga.load_font();
        vga
    }
    /// Puts the font into plane 2 and spaces on the screen, as the card's own firmware would.
    fn load_font(&self) {
        for (number, glyph) in self.config.font.chunks_exact(16).enumerate() {
            for (line, &dots) in glyph.iter().enumerate() {
                self.config.memory.write(4 * (number * FONT_LINES + line) + 2, &[dots]);
            }
        }
        for address in (0..80 * 25 * 2).step_by(2) {
            self.config.memory.write(4 * address, &[b' ', 0x07]);
        }
    }
    /// Display memory, for those who draw it.
    pub fn memory(&self) -> &Arc<VideoMemory> {
        &self.config.memory
    }
    /// The memory of the legacy window.
    pub fn window(&self) -> &Arc<VideoMemory> {
        &self.config.window
    }
    /// What is shown at `now`; display memory holds everything that the guest has written so far.
    pub fn shown(&self, now: crate::clock::Tick) -> Shown {
        self.carry();
        Shown { registers: self.registers.clone(), frame: timing::frame_number(&self.registers, now) }
    }

    /// What the board has to map now, if that is not what it has mapped.
    pub fn wanted_view(&self) -> Option<View> {
        let wanted = View { legacy: window::view(&self.registers), linear: self.registers.dispi.is_linear() };
        (Some(wanted) != self.view).then_some(wanted)
    }
    /// What is mapped.
    pub fn view(&self) -> View {
        self.view.unwrap_or(UNMAPPED)
    }
    /// Changes the view while neither window is mapped: carries the old window's bytes to their places, fills the new one.
    pub fn set_view(&mut self, view: View) {
        self.carry();
        self.view = Some(view);
        if let Legacy::Staged(layout, first) = view.legacy {
            window::gather(layout, first, &self.config.memory, &self.config.window);
            *self.carried.get_mut() = self.config.window.changes(Generation::default()).0;
        }
    }
    /// The pages of a piece of memory that the board is to map over the legacy window, and where in the window they begin.
    pub fn legacy_pages(&self) -> Option<(&VideoMemory, Range<usize>, u64)> {
        match self.view().legacy {
            Legacy::Logic => None,
            Legacy::Staged(layout, first) => {
                Some((&self.config.window, window::pages(first, layout.bytes()), first as u64))
            }
            Legacy::Bank(bank) => Some((&self.config.memory, window::pages(bank * window::BANK, window::BANK), 0)),
        }
    }
    /// Carries what was written to the staged window since the last time to its places in display memory.
    fn carry(&self) {
        let Legacy::Staged(layout, first) = self.view().legacy else { return };
        let staged = window::pages(first, layout.bytes());
        let mut carried = self.carried.lock();
        let (now, pages) = self.config.window.changes(*carried);
        *carried = now;
        for page in pages.into_iter().filter(|page| staged.contains(page)) {
            window::scatter(layout, first, page - staged.start, &self.config.memory, &self.config.window);
        }
    }

    fn status(&mut self, cx: &Ctx<'_>) -> u8 {
        self.registers.status_was_read();
        timing::status(&self.registers, cx.now)
    }
    /// Reads a port, by its distance from 3B0h.
    fn read_port(&mut self, cx: &Ctx<'_>, port: u16) -> Option<u8> {
        let color = self.registers.has_color_ports();
        match (port, color) {
            (0x04 | 0x05, false) => Some(self.registers.read_crtc(port & 1)),
            (0x24 | 0x25, true) => Some(self.registers.read_crtc(port & 1)),
            (0x0A, false) | (0x2A, true) => Some(self.status(cx)),
            (0x10..0x20, _) => self.registers.read(port - 0x10),
            _ => None,
        }
    }
    fn write_port(&mut self, port: u16, value: u8) -> Option<()> {
        let color = self.registers.has_color_ports();
        match (port, color) {
            (0x04 | 0x05, false) => self.registers.write_crtc(port & 1, value),
            (0x24 | 0x25, true) => self.registers.write_crtc(port & 1, value),
            (0x0A, false) | (0x2A, true) => self.registers.write_feature(value),
            (0x10..0x20, _) => return self.registers.write(port - 0x10, value),
            _ => return None,
        }
        Some(())
    }
    fn write_dispi(&mut self, number: Option<u16>, value: u16) {
        // What the guest wrote through the old window comes before what a mode set clears.
        self.carry();
        let effect = match number {
            Some(number) => self.registers.dispi.write(number, value),
            None => self.registers.dispi.write_data(value),
        };
        if let DispiEffect::Clear(bytes) = effect {
            static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
            let bytes = bytes.min(self.config.memory.bytes() as usize);
            for start in (0..bytes).step_by(ZEROS.len()) {
                self.config.memory.write(start, &ZEROS[..ZEROS.len().min(bytes - start)]);
            }
        }
    }

    /// Reads a byte of the legacy window. `None`: it is not decoded there.
    fn read_legacy(&mut self, offset: usize) -> Option<u8> {
        let at = self.decode(offset)?;
        if let Some(byte) = self.packed_byte(at) {
            let mut value = [0];
            self.config.memory.read(byte, &mut value);
            return Some(value[0]);
        }
        if let Legacy::Staged(layout, first) = self.view().legacy
            && at < layout.bytes()
        {
            // Only when a processor has not seen yet that the window is mapped.
            let mut value = [0xFF];
            self.config.window.read(first + at, &mut value);
            return Some(value[0]);
        }
        let base = self.plane_base();
        Some(planes::read(&mut self.registers, &self.config.memory, base, at))
    }
    fn write_legacy(&mut self, offset: usize, value: u8) -> Option<()> {
        let at = self.decode(offset)?;
        if let Some(byte) = self.packed_byte(at) {
            self.config.memory.write(byte, &[value]);
        } else if let Legacy::Staged(layout, first) = self.view().legacy
            && at < layout.bytes()
        {
            self.config.window.write(first + at, &[value]);
        } else {
            planes::write(&self.registers, &self.config.memory, self.plane_base(), at, value);
        }
        Some(())
    }
    /// The offset within the decoded part of the legacy window.
    fn decode(&self, offset: usize) -> Option<usize> {
        let (first, length) = planes::decoded(&self.registers);
        let at = offset.checked_sub(first).filter(|&at| at < length)?;
        self.registers.reaches_memory().then_some(at)
    }
    /// Where a byte of the window lies in a packed framebuffer.
    fn packed_byte(&self, at: usize) -> Option<usize> {
        self.registers.dispi.packed()?;
        Some((self.registers.dispi.bank() * window::BANK + at) % self.config.memory.bytes() as usize)
    }
    /// The first plane address of the bank.
    fn plane_base(&self) -> usize {
        let planes = self.config.memory.bytes() as usize / 4;
        if self.registers.dispi.is_on() { self.registers.dispi.bank() * window::BANK % planes } else { 0 }
    }
    /// A byte of display memory as the guest sees it through the framebuffer window, be it staged or not.
    fn memory_byte(&self, offset: usize) -> (&VideoMemory, usize) {
        match self.view().legacy {
            Legacy::Staged(layout, first) => match layout.staged(offset) {
                Some(at) => (&self.config.window, first + at),
                None => (&self.config.memory, offset),
            },
            _ => (&self.config.memory, offset),
        }
    }

    /// One byte of a memory window.
    fn read_byte(&mut self, cx: &Ctx<'_>, window: u8, offset: u64) -> Option<u8> {
        match window {
            FRAMEBUFFER_WINDOW => {
                let (memory, at) = self.memory_byte(offset as usize);
                let mut value = [0xFF];
                memory.read(at, &mut value);
                Some(value[0])
            }
            REGISTER_WINDOW => match offset {
                MMIO_PORTS..0x420 => self.read_port(cx, (offset - MMIO_PORTS) as u16 + 0x10),
                MMIO_DISPI..0x516 => {
                    let value = self.registers.dispi.read(((offset - MMIO_DISPI) / 2) as u16);
                    Some(value.to_le_bytes()[offset as usize & 1])
                }
                _ => None,
            },
            ROM_WINDOW => Some(self.config.rom.get(offset as usize).copied().unwrap_or(0xFF)),
            LEGACY_WINDOW => self.read_legacy(offset as usize),
            _ => None,
        }
    }
    fn write_byte(&mut self, window: u8, offset: u64, value: u8) -> Option<()> {
        match window {
            FRAMEBUFFER_WINDOW => {
                let (memory, at) = self.memory_byte(offset as usize);
                memory.write(at, &[value]);
                Some(())
            }
            REGISTER_WINDOW if (MMIO_PORTS..0x420).contains(&offset) => {
                self.write_port((offset - MMIO_PORTS) as u16 + 0x10, value)
            }
            ROM_WINDOW => Some(()),
            LEGACY_WINDOW => self.write_legacy(offset as usize, value),
            _ => None,
        }
    }
    /// The staged window's and display memory's pages that are not zero.
    fn pages(&self) -> Vec<(u32, Vec<u8>)> {
        let count = (self.config.memory.bytes() / umbra_mmu::addr::PAGE_SIZE) as u32;
        const ZEROS: [u8; umbra_mmu::addr::PAGE_SIZE as usize] = [0; umbra_mmu::addr::PAGE_SIZE as usize];
        let mut bytes = ZEROS;
        let page = |number: u32| {
            self.config.memory.read(number as usize * bytes.len(), &mut bytes);
            (bytes != ZEROS).then(|| (number, bytes.to_vec()))
        };
        (0..count).filter_map(page).collect()
    }
}

impl PciFunction for Vga {
    fn config(&self) -> &ConfigSpace {
        &self.space
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.space
    }

    fn mappings(&self) -> Vec<Mapping> {
        let ports = (MONO_PORTS..).zip(PORTS).map(|(window, (base, size))| Mapping::Window {
            window,
            space: Space::Io,
            size,
            base: Some(base),
        });
        self.space.windows().into_iter().chain(ports).collect()
    }
}

impl Device for Vga {
    fn name(&self) -> &'static str {
        "vga"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.carry();
        self.space.reset();
        self.registers = Registers::text_mode(self.config.memory.bytes());
        let zeros = [0; umbra_mmu::addr::PAGE_SIZE as usize];
        for page in 0..self.config.memory.bytes() as usize / zeros.len() {
            // Fresh memory is zero already: only what is not is written, so that no frame is touched in vain.
            let mut bytes = zeros;
            self.config.memory.read(page * zeros.len(), &mut bytes);
            if bytes != zeros {
                self.config.memory.write(page * zeros.len(), &zeros);
            }
        }
        self.load_font();
        if let Legacy::Staged(layout, first) = self.view().legacy {
            window::gather(layout, first, &self.config.memory, &self.config.window);
        }
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if range == DISPI_PORTS {
            return match (offset, width) {
                (0, Width::B1 | Width::B2) => Ok(u32::from(self.registers.dispi.read_index()) & width.ones() as u32),
                (1 | 2, Width::B1 | Width::B2) => Ok(u32::from(self.registers.dispi.read_data()) & width.ones() as u32),
                _ => Err(IoError::NoSuchRegister),
            };
        }
        let port = if range == COLOR_PORTS { offset + 0x10 } else { offset };
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        self.read_port(cx, port).map(u32::from).ok_or(IoError::NoSuchRegister)
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if range == DISPI_PORTS {
            match (offset, width) {
                (0, Width::B1 | Width::B2) => self.registers.dispi.write_index(value as u16),
                (1 | 2, Width::B1 | Width::B2) => self.write_dispi(None, value as u16),
                _ => return Err(IoError::NoSuchRegister),
            }
            return Ok(());
        }
        let port = if range == COLOR_PORTS { offset + 0x10 } else { offset };
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        self.write_port(port, value as u8).ok_or(IoError::NoSuchRegister)
    }

    fn mmio_read(&mut self, cx: &mut Ctx<'_>, window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let mut answered = false;
        let mut value = 0;
        for n in 0..width.bytes() {
            let byte = self.read_byte(cx, window, offset.wrapping_add(n));
            answered |= byte.is_some();
            value |= u64::from(byte.unwrap_or(0xFF)) << (8 * n);
        }
        answered.then_some(value).ok_or(IoError::NoSuchRegister)
    }

    fn mmio_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        if window == REGISTER_WINDOW && (MMIO_DISPI..0x516).contains(&offset) {
            if width != Width::B2 || offset & 1 != 0 {
                return Err(IoError::BadWidth);
            }
            self.write_dispi(Some(((offset - MMIO_DISPI) / 2) as u16), value as u16);
            return Ok(());
        }
        let mut answered = false;
        for n in 0..width.bytes() {
            answered |= self.write_byte(window, offset.wrapping_add(n), (value >> (8 * n)) as u8).is_some();
        }
        answered.then_some(()).ok_or(IoError::NoSuchRegister)
    }

    fn save(&self) -> Vec<u8> {
        self.carry();
        save_state(&State { registers: self.registers.clone(), config: self.space.registers(), pages: self.pages() })
    }

    /// Nothing is mapped as it should be afterwards: the board looks at [`Vga::wanted_view`].
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        let page_bytes = umbra_mmu::addr::PAGE_SIZE as usize;
        let bad = |reason: &str| StateError { device: "vga", reason: reason.to_owned() };
        if !state.registers.is_sound() || !state.registers.dispi.is_sound(self.config.memory.bytes()) {
            return Err(bad("registers that cannot be"));
        }
        if state.pages.iter().any(|(_, bytes)| bytes.len() != page_bytes) {
            return Err(bad("a page of another size"));
        }
        self.space.set_registers(state.config);
        self.registers = state.registers;
        self.view = None;
        let mut pages = state.pages.into_iter().peekable();
        for number in 0..self.config.memory.bytes() as usize / page_bytes {
            let saved = pages.next_if(|(page, _)| *page as usize == number).map(|(_, bytes)| bytes);
            let wanted = saved.unwrap_or_else(|| vec![0; page_bytes]);
            let mut bytes = vec![0; page_bytes];
            self.config.memory.read(number * page_bytes, &mut bytes);
            if bytes != wanted {
                self.config.memory.write(number * page_bytes, &wanted);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
