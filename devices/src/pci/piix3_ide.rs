//! The 82371SB (PIIX3) IDE function (8086:7010) with both cables empty: configuration space, bus-master registers, and
//! what the legacy ports read when nobody drives the data lines.
//!
//! Windows: 4 is the bus-master block (BAR 4), 8 and 9 the primary channel's command and control ports (1F0h–1F7h,
//! 3F6h), 10 and 11 the secondary channel's (170h–177h, 376h). An empty channel floats: every read gives ones, so that
//! the status register reads FFh, which software takes for "no controller or no drive" without waiting (a cable with one
//! drive would answer 00h for the other). Writes go nowhere. The disks are not here.

use super::config::{COMMAND_IO, COMMAND_MASTER};
use super::{Bar, ConfigSpace, Identity, Mapping, PciFunction, Registers, Space, offset};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use serde::{Deserialize, Serialize};

const BUS_MASTER_WINDOW: u8 = 4;
const FIRST_LEGACY_WINDOW: u8 = 8;
/// Base and size of windows 8–11, and the channel whose decode bit enables them.
const LEGACY: [(u64, u64, u8); 4] = [(0x1F0, 8, 0), (0x3F6, 1, 0), (0x170, 8, 1), (0x376, 1, 1)];
/// The timing register of channel 0; channel 1's follows. Bit 15: decode the channel's ports.
const TIMING: u8 = 0x40;
const TIMING_DECODE: u16 = 1 << 15;

/// Bus-master command: start and direction.
const COMMAND_WRITABLE: u32 = 0b1001;
/// Bus-master status: drive 1 and drive 0 can do DMA, kept for software.
const STATUS_WRITABLE: u32 = 0b110_0000 << 16;
/// Bus-master status: interrupt and error, cleared by writing 1.
const STATUS_CLEARABLE: u32 = 0b110 << 16;
/// Bus-master status: active, as the start bit says (no drive ever ends a transfer).
const STATUS_ACTIVE: u32 = 1 << 16;

/// A channel's bus-master registers: command and status as in the first 32 bits, and the table pointer.
#[derive(Copy, Clone, Debug, Default, Serialize, Deserialize)]
struct Channel {
    command: u32,
    table: u32,
}

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    channels: [Channel; 2],
}

/// The IDE function.
#[derive(Debug)]
pub struct Piix3Ide {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Volatile state.
    channels: [Channel; 2],
}

impl Default for Piix3Ide {
    fn default() -> Piix3Ide {
        Piix3Ide::new()
    }
}

impl Piix3Ide {
    /// An IDE function with nothing attached.
    pub fn new() -> Piix3Ide {
        let identity = Identity { vendor: 0x8086, device: 0x7010, class: 0x01_0180, revision: 0 };
        let config = ConfigSpace::new(identity)
            .writable(offset::COMMAND, &[(COMMAND_IO | COMMAND_MASTER) as u8, 0x00])
            .preset(offset::STATUS, &[0x80, 0x02])
            .clearable(offset::STATUS, &[0x00, 0x38])
            .writable(offset::CACHE_LINE, &[0x00, 0xF0])
            .writable(offset::INTERRUPT_LINE, &[0x00])
            // NOTE(why not sixteen address bits, as BMIBA has): SeaBIOS takes zeros above them for a window of 4 GiB.
            .bar(BUS_MASTER_WINDOW, Bar::Io { size: 16 })
            // IDETIM of both channels; SIDETIM.
            .writable(TIMING, &[0xFF, 0xF3, 0xFF, 0xF3, 0xFF]);
        Piix3Ide { config, channels: [Channel::default(); 2] }
    }

    fn channel(&mut self, lane: Lane) -> &mut Channel {
        &mut self.channels[usize::from(lane.register >= 8)]
    }
}

impl PciFunction for Piix3Ide {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn mappings(&self) -> Vec<Mapping> {
        let on = self.config.word(offset::COMMAND) & COMMAND_IO != 0;
        let legacy = (FIRST_LEGACY_WINDOW..).zip(LEGACY).map(|(window, (base, size, channel))| {
            let decoded = on && self.config.word(TIMING + 2 * channel) & TIMING_DECODE != 0;
            Mapping::Window { window, space: Space::Io, size, base: decoded.then_some(base) }
        });
        self.config.windows().into_iter().chain(legacy).collect()
    }
}

impl Device for Piix3Ide {
    fn name(&self) -> &'static str {
        "piix3-ide"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.config.reset();
        self.channels = [Channel::default(); 2];
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if range != BUS_MASTER_WINDOW {
            return Ok(width.ones() as u32);
        }
        let lane = Lane::of(u64::from(offset & 0xF), width)?;
        let channel = self.channel(lane);
        Ok(lane.extract(if lane.register & 4 == 0 { channel.command } else { channel.table }))
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if range != BUS_MASTER_WINDOW {
            return Ok(());
        }
        let lane = Lane::of(u64::from(offset & 0xF), width)?;
        let channel = self.channel(lane);
        if lane.register & 4 != 0 {
            channel.table = lane.merge(channel.table, value) & !3;
            return Ok(());
        }
        let kept = !(lane.mask() & (COMMAND_WRITABLE | STATUS_WRITABLE));
        let value = lane.place(value);
        let command =
            (channel.command & kept | value & (COMMAND_WRITABLE | STATUS_WRITABLE)) & !(value & STATUS_CLEARABLE);
        let active = if command & 1 != 0 { STATUS_ACTIVE } else { 0 };
        channel.command = command & !STATUS_ACTIVE | active;
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&State { registers: self.config.registers(), channels: self.channels })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        self.config.set_registers(state.registers);
        self.channels = state.channels;
        Ok(())
    }
}
