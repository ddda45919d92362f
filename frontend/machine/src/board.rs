//! The board: owns the devices, decodes ports and windows, carries interrupts, and advances time.
//!
//! One lock covers it all ([`SharedBoard`]); it is taken on a port or device access, on an event, and by the run loop,
//! never while guest code runs. Every entry point first advances to its time, so that devices see events in order.
//!
//! Leaves out: message-signalled interrupts from bus masters, system-management mode. Called by `vcpu_bus`, `run`, `builder`.

mod chips;
mod firmware;
mod flash;
mod input;
mod interrupts;
mod monitor_file;
mod pci_map;
mod ports;
mod sound;
mod video;

pub use chips::{BoardParts, Chips, Fit, SoundParts, TestParts, VcpuParts};
pub use sound::SoundSink;

use crate::gate::Gate;
use crate::wiring::{self, Slot};
use parking_lot::{Condvar, Mutex, MutexGuard};
use ports::{PortMap, PortWindow};
use std::sync::Arc;
use std::time::Duration;
use umbra_devices::block::Medium;
use umbra_devices::clock::Tick;
use umbra_devices::device::{Ctx, Device, IoError, StateError, Width};
use umbra_devices::fdc82077::DmaPiece;
use umbra_devices::lapic::LocalApic;
use umbra_devices::pci::PciAddress;
use umbra_devices::sound::SoundBundle;
use umbra_devices::wire::{IrqLine, WireBundle};
use umbra_mmu::addr::{PAGE_OFFSET, RegionId};
use umbra_mmu::attention::{Attention, bits};
use umbra_mmu::memory::{GuestDma, GuestMemory, MapError};
use umbra_mmu::while_parked;

/// Where bytes that the guest sends go. Called under the board's lock: it must not call back into the machine.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// What the guest asked of the machine as a whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Soft-off.
    PowerOff,
    /// A reset of everything.
    Reset,
    /// The exit device was written; the exit status that it makes.
    Exit(u8),
}

/// A drive whose medium a person can change.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Removable {
    /// The CD-ROM drive.
    Cdrom,
    /// A floppy drive, 0 for A.
    Floppy(u8),
}

/// To whom a window belongs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Owner {
    Chip(Slot),
    Pci(PciAddress),
}

/// A window of device memory.
#[derive(Copy, Clone, Debug)]
struct MemoryWindow {
    owner: Owner,
    window: u8,
    size: u64,
    /// Its first address; a window that begins within a page has its region begin with the page.
    base: u64,
}

/// The board's end of one vCPU.
pub(crate) struct VcpuPins {
    pub(crate) lapic: LocalApic,
    pub(crate) attention: Arc<Attention>,
    /// Where the vCPU sleeps.
    pub(crate) gate: Arc<Gate>,
    /// The vector of the last start-up message.
    start_up: u8,
    /// Instructions retired at its last access.
    retired: u64,
    ferr: IrqLine,
}

/// What the board counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardCounters {
    /// Port accesses.
    pub port_accesses: u64,
    /// Device memory accesses.
    pub mmio_accesses: u64,
    /// Accesses that nobody answered, by port (65,536 stands for memory), with how often.
    pub unclaimed: std::collections::BTreeMap<u32, u64>,
}

/// The most distinct addresses in [`BoardCounters::unclaimed`].
const MAX_UNCLAIMED: usize = 256;

/// The board.
pub struct Board {
    chips: Chips,
    wires: WireBundle,
    pub(crate) vcpus: Vec<VcpuPins>,
    memory: GuestMemory,
    dma: GuestDma,
    ports: PortMap,
    windows: Vec<Option<MemoryWindow>>,
    now: Tick,
    /// The next event of each chip, by slot.
    events: [Option<Tick>; Slot::COUNT],
    /// The HPET drives the timer requests in place of the 8254 and the real-time clock.
    hpet_stands_in: bool,
    request: Option<Request>,
    /// No vCPU may run past this without looking: the end of the turn (virtual clock) or of the timekeeper's sleep.
    horizon: Option<Tick>,
    sinks: [Option<Sink>; wiring::SERIAL_PORTS.len()],
    console: Option<Sink>,
    sounds: SoundBundle,
    listener: Option<SoundSink>,
    /// The key of the fw_cfg file with the monitor's counters, if it is offered.
    monitor_file: Option<u16>,
    counters: BoardCounters,
    traffic: u64,
}

/// A board that threads share.
pub struct SharedBoard {
    /// The board.
    pub board: Mutex<Board>,
    /// Told when the next event comes nearer than the horizon, or a request is made.
    pub changed: Condvar,
}

impl SharedBoard {
    /// The board, locked. A vCPU's thread counts as parked while it waits: whoever has the board may be waiting for that vCPU
    /// (a remap, DMA to a watched page), so it looks at its attention word before it runs on.
    pub fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.try_lock().unwrap_or_else(|| while_parked(|| self.board.lock()))
    }
    /// Waits at most `most` for `changed`, likewise parked.
    pub fn wait(&self, board: &mut MutexGuard<'_, Board>, most: Duration) {
        while_parked(|| {
            self.changed.wait_for(board, most);
        });
    }
}

impl Board {
    /// A board with everything plugged in and reset, and no vCPU running. Fails if guest memory has no room for flash memory.
    pub fn new(mut parts: BoardParts) -> Result<Board, MapError> {
        let (wires, sounds) = (WireBundle::new(), SoundBundle::new());
        let (memory, dma) = (parts.memory.clone(), parts.memory.dma());
        let pins = parts.vcpus.iter().map(|vcpu| VcpuPins {
            lapic: LocalApic::new(vcpu.lapic.clone()),
            attention: vcpu.attention.clone(),
            gate: vcpu.gate.clone(),
            start_up: 0,
            retired: 0,
            ferr: wires.line(wiring::FERR_IRQ),
        });
        let vcpus = pins.collect();
        let flash_base = parts.flash.as_ref().map(|&(base, _)| base);
        let mut board = Board {
            vcpus,
            chips: Chips::new(&mut parts, &wires, &sounds),
            wires,
            memory,
            dma,
            ports: PortMap::default(),
            windows: Vec::new(),
            now: Tick(0),
            events: [None; Slot::COUNT],
            hpet_stands_in: false,
            request: None,
            horizon: None,
            sinks: Default::default(),
            console: None,
            sounds,
            listener: None,
            monitor_file: None,
            counters: BoardCounters::default(),
            traffic: 0,
        };
        for &(first, length, slot, range) in wiring::PORTS {
            if board.chips.is_fitted(slot) {
                board.ports.add(PortWindow { first, length, owner: Owner::Chip(slot), range });
            }
        }
        // A later window hides an earlier one: a port that the user chose wins.
        for (port, range) in [(parts.test.report_port, 2), (parts.test.text_port, 1)] {
            if let Some(first) = port {
                board.ports.add(PortWindow { first, length: 1, owner: Owner::Chip(Slot::Debug), range });
            }
        }
        for &(region, base, slot, size) in wiring::WINDOWS {
            if !board.chips.is_fitted(slot) {
                continue;
            }
            board.set_window(region, MemoryWindow { owner: Owner::Chip(slot), window: 0, size, base: base.0 });
            // The fixed windows are whole pages below 4 GiB: this cannot fail.
            let _ = board.memory.map_mmio(base, size, region);
        }
        let _ = board.memory.map_mmio(wiring::LAPIC_BASE, umbra_mmu::addr::PAGE_SIZE, wiring::LAPIC_REGION);
        board.open_legacy_window();
        if let Some(base) = flash_base {
            board.place_flash(base)?;
        }
        board.touch_all();
        Ok(board)
    }

    /// Guest time as of the last call.
    pub fn now(&self) -> Tick {
        self.now
    }
    /// What the board counted.
    pub fn counters(&self) -> &BoardCounters {
        &self.counters
    }
    /// A hash of all accesses so far: when, where, what.
    pub fn traffic(&self) -> u64 {
        self.traffic
    }
    /// Counts an access into [`Self::traffic`].
    pub(crate) fn note_access(&mut self, access: [u64; 4]) {
        for word in access {
            self.traffic = (self.traffic ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    /// The last value that the guest wrote to the report port, if it wrote one.
    pub fn report(&self) -> Option<u8> {
        self.chips.debug.report()
    }
    /// The devices.
    pub fn chips_mut(&mut self) -> &mut Chips {
        &mut self.chips
    }
    /// Where a serial port's output goes.
    pub fn connect_serial(&mut self, port: usize, sink: Sink) {
        if let Some(slot) = self.sinks.get_mut(port) {
            *slot = Some(sink);
        }
    }
    /// Where the console port's (E9h) output goes.
    pub fn connect_console(&mut self, sink: Sink) {
        self.console = Some(sink);
    }
    /// Instructions that the vCPUs have retired, as of the last access or event of each.
    pub fn retired(&self) -> u64 {
        self.vcpus.iter().map(|pins| pins.retired).sum()
    }
    /// Notes how far a vCPU is.
    pub fn note_retired(&mut self, vcpu: usize, retired: u64) {
        if let Some(pins) = self.vcpus.get_mut(vcpu) {
            pins.retired = retired;
        }
    }
    /// A medium is done with something: drives may have something to do now.
    pub fn media_news(&mut self) {
        for slot in [Slot::Pci, Slot::Floppy] {
            self.events[slot as usize] = self.chips.get(slot).next_event();
        }
    }
    /// Puts another medium into a drive, or none. Afterwards `medium` is the old one, to be dropped when the board is
    /// unlocked, since its thread may wait for the board. False: there is no such drive.
    #[must_use]
    pub fn swap_medium(&mut self, drive: Removable, medium: &mut Option<Medium>) -> bool {
        let (now, place) = (self.now, crate::drives::CDROM_PLACE);
        match drive {
            Removable::Cdrom => {
                let drive = self.chips.ide().and_then(|ide| ide.drive_mut(place));
                let done = drive.is_some_and(|drive| drive.swap_medium(now, medium));
                self.touch(Slot::Pci);
                done
            }
            Removable::Floppy(number) => {
                let done = self.chips.floppy.as_mut().is_some_and(|fdc| fdc.swap_disk(now, number.into(), medium));
                self.touch(Slot::Floppy);
                done
            }
        }
    }

    /// Makes all events up to `to` happen, in order. Time never runs back.
    pub fn advance(&mut self, to: Tick) {
        let mut last = None;
        let mut repeats = 0;
        while let Some((event, source)) = self.earliest().filter(|&(event, _)| event <= to) {
            self.now = self.now.max(event);
            // A device that does not get past its own event is run to the end once and then left alone.
            repeats = if last == Some((event, source)) { repeats + 1 } else { 0 };
            last = Some((event, source));
            if repeats > 3 {
                self.now = self.now.max(to);
            }
            match source {
                Source::Chip(slot) => {
                    let mut cx = Ctx { now: self.now, dma: &mut self.dma };
                    self.chips.get(slot).run_until(&mut cx);
                    self.touch(slot);
                }
                Source::Lapic(number) => {
                    if let Some(pins) = self.vcpus.get_mut(number) {
                        pins.lapic.advance(self.now);
                    }
                    self.settle();
                }
            }
            if repeats > 3 {
                break;
            }
        }
        self.now = self.now.max(to);
    }
    /// When something next happens by itself.
    pub fn next_event(&self) -> Option<Tick> {
        self.earliest().map(|(event, _)| event)
    }
    fn earliest(&self) -> Option<(Tick, Source)> {
        let chips =
            Slot::ALL.into_iter().zip(self.events).filter_map(|(slot, event)| Some((event?, Source::Chip(slot))));
        let lapics = self.vcpus.iter().enumerate();
        let lapics = lapics.filter_map(|(number, pins)| Some((pins.lapic.next_event()?, Source::Lapic(number))));
        chips.chain(lapics).min_by_key(|&(event, _)| event)
    }

    /// Reads a port.
    pub fn port_read(&mut self, port: u16, width: u8) -> u32 {
        self.counters.port_accesses += 1;
        self.port_read_any(port, width)
    }
    fn port_read_any(&mut self, port: u16, width: u8) -> u32 {
        if let Some((window, offset)) = self.ports.find(port)
            && let Some(width) = port_width(width)
        {
            let mut cx = Ctx { now: self.now, dma: &mut self.dma };
            let result = match window.owner {
                Owner::Chip(slot) => self.chips.get(slot).port_read(&mut cx, window.range, offset, width),
                Owner::Pci(at) => match self.chips.pci.function_mut(at) {
                    Some(function) => function.port_read(&mut cx, window.range, offset, width),
                    None => Err(IoError::NoSuchRegister),
                },
            };
            if result != Err(IoError::BadWidth) {
                self.touch_owner(window.owner);
            }
            match result {
                Ok(value) => return value & width.ones() as u32,
                Err(IoError::BadWidth) if width != Width::B1 => {}
                Err(_) => return self.unclaimed(port.into(), width.ones()) as u32,
            }
        } else if width == 1 {
            return self.unclaimed(port.into(), 0xFF) as u32;
        }
        // Byte by byte: the bus splits what a chip (or several) does not take at once.
        (0..u16::from(width.min(4)))
            .fold(0, |value, n| value | (self.port_read_any(port.wrapping_add(n), 1) & 0xFF) << (8 * n))
    }

    /// Writes a port.
    pub fn port_write(&mut self, port: u16, width: u8, value: u32) {
        self.counters.port_accesses += 1;
        self.port_write_any(port, width, value);
    }
    fn port_write_any(&mut self, port: u16, width: u8, value: u32) {
        if let Some((window, offset)) = self.ports.find(port)
            && let Some(width) = port_width(width)
        {
            let mut cx = Ctx { now: self.now, dma: &mut self.dma };
            let value = value & width.ones() as u32;
            let result = match window.owner {
                Owner::Chip(slot) => self.chips.get(slot).port_write(&mut cx, window.range, offset, width, value),
                Owner::Pci(at) => match self.chips.pci.function_mut(at) {
                    Some(function) => function.port_write(&mut cx, window.range, offset, width, value),
                    None => Err(IoError::NoSuchRegister),
                },
            };
            if result != Err(IoError::BadWidth) {
                self.touch_owner(window.owner);
            }
            match result {
                Ok(()) => return,
                Err(IoError::BadWidth) if width != Width::B1 => {}
                Err(_) => {
                    self.unclaimed(port.into(), 0);
                    return;
                }
            }
        } else if width == 1 {
            self.unclaimed(port.into(), 0);
            return;
        }
        for n in 0..u16::from(width.min(4)) {
            self.port_write_any(port.wrapping_add(n), 1, value >> (8 * n) & 0xFF);
        }
    }

    /// Reads device memory on behalf of a vCPU.
    pub fn mmio_read(&mut self, vcpu: usize, region: RegionId, offset: u64, width: u8) -> u64 {
        self.counters.mmio_accesses += 1;
        let Some(width) = memory_width(width) else { return u64::MAX };
        let result = self.with_window(vcpu, region, offset, |device, cx, window, offset| {
            device.mmio_read(cx, window, offset, width)
        });
        result.unwrap_or_else(|_| self.unclaimed(0x1_0000, width.ones()))
    }
    /// Writes device memory on behalf of a vCPU.
    pub fn mmio_write(&mut self, vcpu: usize, region: RegionId, offset: u64, width: u8, value: u64) {
        self.counters.mmio_accesses += 1;
        let Some(width) = memory_width(width) else { return };
        let result = self.with_window(vcpu, region, offset, |device, cx, window, offset| {
            device.mmio_write(cx, window, offset, width, value & width.ones())
        });
        if result.is_err() {
            self.unclaimed(0x1_0000, 0);
        }
    }
    fn with_window<R>(
        &mut self,
        vcpu: usize,
        region: RegionId,
        offset: u64,
        call: impl FnOnce(&mut dyn Device, &mut Ctx<'_>, u8, u64) -> Result<R, IoError>,
    ) -> Result<R, IoError> {
        let mut cx = Ctx { now: self.now, dma: &mut self.dma };
        if region == wiring::LAPIC_REGION {
            let lapic = self.vcpus.get_mut(vcpu).map(|pins| &mut pins.lapic);
            let Some(lapic) = lapic.filter(|lapic| lapic.window().is_some()) else {
                return Err(IoError::NoSuchRegister);
            };
            let result = call(lapic, &mut cx, 0, offset);
            self.settle();
            return result;
        }
        let Some(Some(window)) = self.windows.get(usize::from(region.0)).copied() else {
            return Err(IoError::NoSuchRegister);
        };
        let Some(offset) = offset.checked_sub(window.base & PAGE_OFFSET).filter(|&offset| offset < window.size) else {
            return Err(IoError::NoSuchRegister);
        };
        let result = match window.owner {
            Owner::Chip(slot) => call(self.chips.get(slot), &mut cx, window.window, offset),
            Owner::Pci(at) => match self.chips.pci.function_mut(at) {
                Some(function) => call(function, &mut cx, window.window, offset),
                None => Err(IoError::NoSuchRegister),
            },
        };
        self.touch_owner(window.owner);
        result
    }
    fn set_window(&mut self, region: RegionId, window: MemoryWindow) {
        let number = usize::from(region.0);
        if self.windows.len() <= number {
            self.windows.resize(number + 1, None);
        }
        self.windows[number] = Some(window);
    }
    /// Counts an access that nobody answered; gives what an open bus reads as.
    fn unclaimed(&mut self, address: u32, ones: u64) -> u64 {
        let known = self.counters.unclaimed.len() < MAX_UNCLAIMED || self.counters.unclaimed.contains_key(&address);
        if known {
            *self.counters.unclaimed.entry(address).or_default() += 1;
        }
        ones
    }

    /// The interrupt acknowledge cycle of a vCPU.
    pub fn acknowledge(&mut self, vcpu: usize) -> Option<u8> {
        let pins = self.vcpus.get_mut(vcpu)?;
        let vector = if pins.lapic.pending() {
            pins.lapic.acknowledge()
        } else if pins.lapic.ext_int() {
            pins.lapic.acknowledge_ext_int();
            Some(self.chips.pic.acknowledge())
        } else {
            None
        };
        self.settle();
        vector
    }
    /// The vector of the vCPU's start-up message.
    pub fn start_up_vector(&self, vcpu: usize) -> u8 {
        self.vcpus.get(vcpu).map_or(0, |pins| pins.start_up)
    }
    /// A call on a vCPU's local APIC.
    pub fn with_lapic<R>(&mut self, vcpu: usize, call: impl FnOnce(&mut LocalApic, Tick) -> R) -> Option<R> {
        let now = self.now;
        let result = self.vcpus.get_mut(vcpu).map(|pins| call(&mut pins.lapic, now));
        self.settle();
        result
    }
    /// FERR# of a vCPU.
    pub fn set_ferr(&mut self, vcpu: usize, asserted: bool) {
        if let Some(pins) = self.vcpus.get(vcpu) {
            pins.ferr.set(asserted);
        }
        self.settle();
    }

    /// After a call into a chip: its next event, wires, requests, output.
    fn touch(&mut self, slot: Slot) {
        self.events[slot as usize] = self.chips.get(slot).next_event();
        self.collect(slot);
        self.settle();
    }
    fn touch_owner(&mut self, owner: Owner) {
        self.touch(match owner {
            Owner::Chip(slot) => slot,
            Owner::Pci(_) => Slot::Pci,
        });
    }
    /// After anything may have changed in any chip.
    fn touch_all(&mut self) {
        for slot in Slot::ALL {
            self.events[slot as usize] = self.chips.get(slot).next_event();
            self.collect(slot);
        }
        self.settle();
    }
    /// Takes what a chip wants of the board besides interrupts: output, sounds, a reset, power-off, moved windows.
    fn collect(&mut self, slot: Slot) {
        match slot {
            Slot::Com1 | Slot::Com2 => {
                let number = usize::from(slot == Slot::Com2);
                if let Some(uart) = self.chips.uart(slot).filter(|uart| uart.has_output()) {
                    let bytes = uart.take_output();
                    if let Some(sink) = &mut self.sinks[number] {
                        sink(&bytes);
                    }
                }
            }
            Slot::Debug if self.chips.debug.has_output() => {
                let bytes = self.chips.debug.take_output();
                if let Some(sink) = &mut self.console {
                    sink(&bytes);
                }
            }
            Slot::Exit => {
                if let Some(status) = self.chips.exit.as_mut().and_then(|port| port.take_exit()) {
                    self.request(Request::Exit(status));
                }
            }
            Slot::Hpet => self.connect_timers(),
            Slot::Floppy | Slot::Dma => self.move_floppy_bytes(),
            Slot::Pit => self.carry_sound(),
            Slot::Pci => {
                self.carry_sound();
                self.collect_from_pci();
            }
            Slot::Flash => self.map_flash(),
            _ => {}
        }
    }

    /// Carries bytes between the floppy controller and memory, as the DMA controller's channel says.
    fn move_floppy_bytes(&mut self) {
        let Some((fdc, dma8237)) = self.chips.floppy_and_dma() else { return };
        let (now, dma) = (self.now, &mut self.dma);
        let mut moved = true;
        while moved {
            moved = fdc.exchange(now, |piece| match piece {
                DmaPiece::ToMemory(bytes) => dma8237.write_memory(dma, wiring::FLOPPY_DMA, bytes),
                DmaPiece::FromMemory(bytes) => dma8237.read_memory(dma, wiring::FLOPPY_DMA, bytes),
            });
        }
        dma8237.set_request(wiring::FLOPPY_DMA, fdc.wants_dma());
        self.events[Slot::Floppy as usize] = fdc.next_event();
    }

    /// Notes what the guest asks of the machine and stops all vCPUs. The first request counts.
    fn request(&mut self, request: Request) {
        self.request.get_or_insert(request);
        self.alert_all(bits::STOP);
    }
    /// Takes the guest's request, if there is one.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }
    /// Whether the guest asked for something.
    pub fn has_request(&self) -> bool {
        self.request.is_some()
    }
    /// Sets bits in every vCPU's attention word.
    pub fn alert_all(&self, news: u32) {
        self.vcpus.iter().for_each(|pins| pins.alert(news));
    }
    /// Sets bits in one vCPU's attention word.
    pub fn alert(&self, vcpu: usize, news: u32) {
        if let Some(pins) = self.vcpus.get(vcpu) {
            pins.alert(news);
        }
    }
    /// Sets up to where vCPUs may run without looking at events.
    pub fn set_horizon(&mut self, horizon: Option<Tick>) {
        self.horizon = horizon;
    }
    /// Whether an event now comes before the horizon.
    pub fn horizon_is_late(&self) -> bool {
        match (self.next_event(), self.horizon) {
            (Some(event), Some(horizon)) => event < horizon,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// RESET#: every device and local APIC. Guest memory keeps its contents.
    pub fn reset(&mut self) {
        let mut cx = Ctx { now: self.now, dma: &mut self.dma };
        for slot in Slot::ALL {
            self.chips.get(slot).reset(&mut cx);
        }
        for pins in &mut self.vcpus {
            pins.lapic.reset(&mut cx);
            pins.ferr.set(false);
            pins.attention.clear(bits::INTR | bits::NMI | bits::INIT | bits::SIPI);
        }
        self.touch_all();
        self.request = None;
    }
    /// Each device's name and state, for the state hash and for save.
    pub fn save(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        let mut states: Vec<_> = Slot::ALL
            .into_iter()
            .map(|slot| {
                let device = self.chips.get(slot);
                (device.name(), device.save())
            })
            .collect();
        states.extend(self.vcpus.iter().map(|pins| (pins.lapic.name(), pins.lapic.save())));
        states
    }
    /// Restores what [`Self::save`] gave on a board with the same devices.
    pub fn restore(&mut self, states: &[(String, Vec<u8>)], now: Tick) -> Result<(), StateError> {
        self.now = now;
        let chips = Slot::ALL.len();
        for (slot, (_, state)) in Slot::ALL.into_iter().zip(states) {
            self.chips.get(slot).restore(state)?;
        }
        for (pins, (_, state)) in self.vcpus.iter_mut().zip(states.get(chips..).unwrap_or(&[])) {
            pins.lapic.restore(state)?;
        }
        self.touch_all();
        Ok(())
    }
}

/// What an event belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Source {
    Chip(Slot),
    Lapic(usize),
}

fn port_width(bytes: u8) -> Option<Width> {
    match bytes {
        1 => Some(Width::B1),
        2 => Some(Width::B2),
        4 => Some(Width::B4),
        _ => None,
    }
}

fn memory_width(bytes: u8) -> Option<Width> {
    if bytes == 8 { Some(Width::B8) } else { port_width(bytes) }
}

#[cfg(test)]
mod tests;
