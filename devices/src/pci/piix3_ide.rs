//! The 82371SB (PIIX3) IDE function (8086:7010): configuration space, the bus-master block, and the legacy ports of both
//! channels. What a channel does is in [`crate::ide`].
//!
//! Windows: 4 is the bus-master block (BAR 4), 8 and 9 the primary channel's command and control ports (1F0h–1F7h,
//! 3F6h), 10 and 11 the secondary channel's (170h–177h, 376h).

use super::config::{COMMAND_IO, COMMAND_MASTER};
use super::{Bar, ConfigSpace, Identity, Mapping, PciFunction, Registers, Space, offset};
use crate::ata::Drive;
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::ide::{Channel, Saved};
use crate::lane::Lane;
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

/// The window of the bus-master block.
pub const BUS_MASTER_WINDOW: u8 = 4;
const FIRST_LEGACY_WINDOW: u8 = 8;
/// Base and size of windows 8–11, and the channel whose decode bit enables them.
const LEGACY: [(u64, u64, u8); 4] = [(0x1F0, 8, 0), (0x3F6, 1, 0), (0x170, 8, 1), (0x376, 1, 1)];
/// The timing register of channel 0; channel 1's follows. Bit 15: decode the channel's ports.
pub const TIMING: u8 = 0x40;
const TIMING_DECODE: u16 = 1 << 15;

/// The volatile state.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    channels: [Saved; 2],
}

/// Where a drive is: the channel, and whether it is the second one there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 or 1.
    pub channel: u8,
    /// Drive 1.
    pub second: bool,
}

/// When the ports of the channels are decoded.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum LegacyPorts {
    /// Once firmware has set the decode bits of IDETIM, as the data sheet has it.
    #[default]
    OnceEnabled,
    /// After each reset: the bits are set then. OVMF leaves them alone, since QEMU's function decodes the ports in any case.
    FromReset,
}

/// The IDE function.
#[derive(Debug)]
pub struct Piix3Ide {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Wires and volatile state.
    channels: [Channel; 2],
}

impl Piix3Ide {
    /// An IDE function with the interrupt wires of its channels, and their drives.
    pub fn new(irqs: [IrqLine; 2], drives: [[Option<Drive>; 2]; 2]) -> Piix3Ide {
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
        let [primary_irq, secondary_irq] = irqs;
        let [primary, secondary] = drives;
        Piix3Ide { config, channels: [Channel::new(primary_irq, primary), Channel::new(secondary_irq, secondary)] }
    }

    /// The same, with its ports decoded as a board has it.
    #[must_use]
    pub fn with_ports(mut self, ports: LegacyPorts) -> Piix3Ide {
        if ports == LegacyPorts::FromReset {
            let [low, high] = TIMING_DECODE.to_le_bytes();
            self.config = self.config.preset(TIMING, &[low, high, low, high]);
        }
        self
    }

    /// An IDE function with nothing attached.
    pub fn detached() -> Piix3Ide {
        Piix3Ide::new([IrqLine::detached(), IrqLine::detached()], Default::default())
    }

    /// A drive, to change its medium.
    pub fn drive_mut(&mut self, place: Place) -> Option<&mut Drive> {
        self.channels.get_mut(usize::from(place.channel))?.drive_mut(place.second)
    }

    fn may_master(&self) -> bool {
        self.config.is_master()
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
        self.channels.iter_mut().for_each(Channel::reset);
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        let [primary, secondary] = &mut self.channels;
        match range {
            BUS_MASTER_WINDOW => {
                let lane = Lane::of(u64::from(offset & 0xF), width)?;
                let channel = if lane.register < 8 { primary } else { secondary };
                Ok(lane.extract(channel.bus_master.read(lane.register)))
            }
            8 => primary.read(cx, offset, width),
            9 => primary.read_control(width),
            10 => secondary.read(cx, offset, width),
            11 => secondary.read_control(width),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        let may_master = self.may_master();
        let [primary, secondary] = &mut self.channels;
        match range {
            BUS_MASTER_WINDOW => {
                let lane = Lane::of(u64::from(offset & 0xF), width)?;
                let channel = if lane.register < 8 { primary } else { secondary };
                channel.bus_master.write(lane.register, lane.mask(), lane.place(value));
                channel.start_bus_master(cx, may_master);
                Ok(())
            }
            8 => primary.write(cx, may_master, (offset, width), value),
            9 => primary.write_control(width, value),
            10 => secondary.write(cx, may_master, (offset, width), value),
            11 => secondary.write_control(width, value),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn next_event(&self) -> Option<Tick> {
        self.channels.iter().filter_map(Channel::next_event).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        let may_master = self.may_master();
        self.channels.iter_mut().for_each(|channel| channel.run_until(cx, may_master));
    }

    fn save(&self) -> Vec<u8> {
        let channels = self.channels.each_ref().map(Channel::save);
        save_state(&State { registers: self.config.registers(), channels })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let State { registers, channels } = restore_state(self.name(), state)?;
        self.config.set_registers(registers);
        for (channel, saved) in self.channels.iter_mut().zip(channels) {
            channel.restore(saved)?;
        }
        Ok(())
    }
}
