//! The chips of the board by slot, and how they are wired when they are plugged in.

use crate::drives::Drives;
use crate::gate::Gate;
use crate::wiring::{self, Slot};
use std::sync::Arc;
use umbra_devices::cfi_flash::CfiFlash;
use umbra_devices::debug_ports::DebugPorts;
use umbra_devices::device::Device;
use umbra_devices::dma8237::Dma8237;
use umbra_devices::exit_port::ExitPort;
use umbra_devices::fdc82077::Fdc82077;
use umbra_devices::fw_cfg::FwCfg;
use umbra_devices::hpet::{self, Hpet};
use umbra_devices::ioapic::IoApic;
use umbra_devices::lapic;
use umbra_devices::pc_testdev::PcTestdev;
use umbra_devices::pci::PciBus;
use umbra_devices::pci::ac97::Ac97;
use umbra_devices::pci::ahci::Ahci;
use umbra_devices::pci::i440fx::I440fx;
use umbra_devices::pci::piix3::Piix3;
use umbra_devices::pci::piix3_ide::{LegacyPorts, Piix3Ide};
use umbra_devices::pci::piix4_pm::Piix4Pm;
use umbra_devices::pci::virtio::Virtio;
use umbra_devices::pci::virtio::balloon::Balloon;
use umbra_devices::pci::virtio::tablet::Tablet;
use umbra_devices::pic8259::Pic8259;
use umbra_devices::pit8254::Pit8254;
use umbra_devices::port92::Port92;
use umbra_devices::ps2::{I8042, I8042Config, I8042Wires};
use umbra_devices::rtc_mc146818::{CivilTime, RtcMc146818};
use umbra_devices::sound::{SoundBundle, SoundLine};
use umbra_devices::uart16550::{Uart16550, UartConfig};
use umbra_devices::vga::{self, Vga};
use umbra_devices::wire::{IrqLine, WireBundle};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::memory::GuestMemory;

/// What a board is made of.
pub struct BoardParts {
    /// Guest memory, with RAM mapped.
    pub memory: GuestMemory,
    /// Bytes of RAM, for the host bridge and the CMOS RAM.
    pub ram: u64,
    /// One for each vCPU.
    pub vcpus: Vec<VcpuParts>,
    /// The date at power-on.
    pub date: CivilTime,
    /// The display adapter, if there is one.
    pub video: Option<vga::Config>,
    /// Which serial ports are there.
    pub serial: [Fit; wiring::SERIAL_PORTS.len()],
    /// Whether the exit device is there.
    pub exit_port: Fit,
    /// Disks and CD-ROM drives.
    pub drives: Drives,
    /// When the IDE channels' ports are decoded.
    pub ide_ports: LegacyPorts,
    /// The flash memory of UEFI variables, and its place, if there is one.
    pub flash: Option<(GuestPhys, CfiFlash)>,
    /// What is heard.
    pub sound: SoundParts,
    /// Whether there is a tablet.
    pub tablet: Fit,
    /// Whether there is a memory balloon.
    pub balloon: Fit,
    /// What is there for test guests.
    pub test: TestParts,
}

/// What a board has for ears.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SoundParts {
    /// The AC'97 controller.
    pub ac97: Fit,
    /// Somebody may listen. Without that nothing is played, which a guest cannot tell.
    pub ears: Fit,
}

impl SoundParts {
    /// Nothing.
    pub const NONE: SoundParts = SoundParts { ac97: Fit::Absent, ears: Fit::Absent };
}

/// What a board can have for test guests.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TestParts {
    /// The test device of the kvm-unit-tests interface.
    pub device: Fit,
    /// A port on which a test ROM reports its progress.
    pub report_port: Option<u16>,
    /// A port that takes characters, beside E9h.
    pub text_port: Option<u16>,
}

impl TestParts {
    /// Nothing.
    pub const NONE: TestParts = TestParts { device: Fit::Absent, report_port: None, text_port: None };
}

/// Whether an optional chip is on the board.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Fitted,
    /// It is not: its ports are open bus.
    Absent,
}

/// The board's end of one vCPU, before it is plugged in.
pub struct VcpuParts {
    /// Its local APIC.
    pub lapic: lapic::Config,
    /// Its attention word.
    pub attention: Arc<Attention>,
    /// Where it sleeps.
    pub gate: Arc<Gate>,
}

/// All chips but the local APICs.
pub struct Chips {
    pub(super) pic: Pic8259,
    pit: Pit8254,
    rtc: RtcMc146818,
    keyboard: I8042,
    port92: Port92,
    com: [Option<Uart16550>; wiring::SERIAL_PORTS.len()],
    dma: Dma8237,
    pub(super) ioapic: IoApic,
    pub(super) hpet: Hpet,
    pub(super) floppy: Option<Fdc82077>,
    fw_cfg: FwCfg,
    pub(super) debug: DebugPorts,
    pub(super) exit: Option<ExitPort>,
    test_device: Option<PcTestdev>,
    pub(super) pci: PciBus,
    pub(super) flash: Option<CfiFlash>,
    absent: Absent,
}

impl Chips {
    /// Plugs all chips in.
    pub(super) fn new(parts: &mut BoardParts, wires: &WireBundle, sounds: &SoundBundle) -> Chips {
        let com = std::array::from_fn(|number| {
            let irq = wiring::SERIAL_PORTS[number].1;
            (parts.serial[number] == Fit::Fitted).then(|| Uart16550::new(UartConfig::default(), wires.line(irq)))
        });
        let drives = std::mem::take(&mut parts.drives);
        let isa: [IrqLine; 16] = std::array::from_fn(|irq| wires.line(irq as u8));
        let mut pci = PciBus::new();
        // Nothing is plugged in yet, so that no slot can be taken.
        let _ = pci.add(wiring::HOST_BRIDGE, Box::new(I440fx::new(parts.ram)));
        let _ = pci.add(wiring::ISA_BRIDGE, Box::new(Piix3::new(isa)));
        let ide = Piix3Ide::new(wiring::IDE_IRQS.map(|irq| wires.line(irq)), drives.ide).with_ports(parts.ide_ports);
        let _ = pci.add(wiring::IDE, Box::new(ide));
        if drives.ahci.iter().any(Option::is_some) {
            let line = wiring::pirq_of(wiring::AHCI.device(), 0);
            let _ = pci.add(wiring::AHCI, Box::new(Ahci::new(wires.line(wiring::PIRQ_PIN + line), drives.ahci)));
        }
        if let Some(video) = &parts.video {
            let _ = pci.add(wiring::VGA, Box::new(Vga::new(video.clone())));
        }
        let ear = || if parts.sound.ears == Fit::Fitted { sounds.line() } else { SoundLine::detached() };
        if parts.sound.ac97 == Fit::Fitted {
            let line = wiring::pirq_of(wiring::SOUND.device(), 0);
            let _ = pci.add(wiring::SOUND, Box::new(Ac97::new(wires.line(wiring::PIRQ_PIN + line), ear())));
        }
        if parts.tablet == Fit::Fitted {
            let line = wiring::pirq_of(wiring::TABLET.device(), 0);
            let _ = pci.add(wiring::TABLET, Box::new(Virtio::<Tablet>::new(wires.line(wiring::PIRQ_PIN + line))));
        }
        if parts.balloon == Fit::Fitted {
            let line = wiring::pirq_of(wiring::BALLOON.device(), 0);
            let _ = pci.add(wiring::BALLOON, Box::new(Virtio::<Balloon>::new(wires.line(wiring::PIRQ_PIN + line))));
        }
        let sci = || wires.line(wiring::SCI_IRQ);
        let _ = pci.add(wiring::POWER, Box::new(Piix4Pm::new(sci(), sci())));
        Chips {
            pic: Pic8259::new(),
            pit: Pit8254::new(wires.line(wiring::PIT_PIN)).with_sound(ear()),
            rtc: RtcMc146818::new(parts.date, wires.line(wiring::RTC_PIN)),
            keyboard: I8042::new(
                I8042Config::default(),
                I8042Wires {
                    irq_keyboard: wires.line(wiring::KEYBOARD_IRQ),
                    irq_mouse: wires.line(wiring::MOUSE_IRQ),
                    a20: wires.line(wiring::A20_PIN),
                    reset: wires.line(wiring::RESET_PIN),
                },
            ),
            port92: Port92::new(wires.line(wiring::A20_PIN), wires.line(wiring::RESET_PIN)),
            com,
            dma: Dma8237::new(),
            ioapic: IoApic::new(),
            hpet: Hpet::new(
                wiring::HPET_ROUTES,
                hpet::Wires {
                    legacy: wiring::HPET_LEGACY_PINS.map(|pin| wires.line(pin)),
                    ioapic: std::array::from_fn(|input| wires.line(wiring::IOAPIC_PIN + input as u8)),
                },
            ),
            floppy: drives.floppies.map(|drives| Fdc82077::new(wires.line(wiring::FLOPPY_IRQ), drives)),
            fw_cfg: fw_cfg(parts.ram, parts.vcpus.len() as u16, &drives.boot_order),
            debug: DebugPorts::new(),
            exit: (parts.exit_port == Fit::Fitted).then(ExitPort::new),
            test_device: (parts.test.device == Fit::Fitted)
                .then(|| PcTestdev::new(std::array::from_fn(|line| wires.line(wiring::test_line(line as u8))))),
            pci,
            flash: parts.flash.take().map(|(_, flash)| flash),
            absent: Absent,
        }
    }
    /// Whether there is a chip in a slot.
    pub fn is_fitted(&self, slot: Slot) -> bool {
        match slot {
            Slot::Com1 => self.com[0].is_some(),
            Slot::Com2 => self.com[1].is_some(),
            Slot::Exit => self.exit.is_some(),
            Slot::Floppy => self.floppy.is_some(),
            Slot::TestDevice => self.test_device.is_some(),
            Slot::Flash => self.flash.is_some(),
            _ => true,
        }
    }
    /// The chip in a slot; one that answers nothing if the slot is empty.
    pub fn get(&mut self, slot: Slot) -> &mut dyn Device {
        fn or_absent<'a, T: Device>(chip: &'a mut Option<T>, absent: &'a mut Absent) -> &'a mut dyn Device {
            match chip {
                Some(chip) => chip,
                None => absent,
            }
        }
        match slot {
            Slot::Pic => &mut self.pic,
            Slot::Pit => &mut self.pit,
            Slot::Rtc => &mut self.rtc,
            Slot::Keyboard => &mut self.keyboard,
            Slot::Port92 => &mut self.port92,
            Slot::Com1 => or_absent(&mut self.com[0], &mut self.absent),
            Slot::Com2 => or_absent(&mut self.com[1], &mut self.absent),
            Slot::Dma => &mut self.dma,
            Slot::Floppy => or_absent(&mut self.floppy, &mut self.absent),
            Slot::IoApic => &mut self.ioapic,
            Slot::Hpet => &mut self.hpet,
            Slot::FwCfg => &mut self.fw_cfg,
            Slot::Debug => &mut self.debug,
            Slot::Exit => or_absent(&mut self.exit, &mut self.absent),
            Slot::TestDevice => or_absent(&mut self.test_device, &mut self.absent),
            Slot::Pci => &mut self.pci,
            Slot::Flash => or_absent(&mut self.flash, &mut self.absent),
        }
    }
    /// The serial port in a slot.
    pub fn uart(&mut self, slot: Slot) -> Option<&mut Uart16550> {
        match slot {
            Slot::Com1 => self.com[0].as_mut(),
            Slot::Com2 => self.com[1].as_mut(),
            _ => None,
        }
    }
    /// The keyboard controller.
    pub(super) fn keyboard(&mut self) -> &mut I8042 {
        &mut self.keyboard
    }
    /// The firmware configuration device, to add files before the machine runs.
    pub fn fw_cfg(&mut self) -> &mut FwCfg {
        &mut self.fw_cfg
    }
    /// POST codes, console and report ports.
    pub fn debug_ports(&self) -> &DebugPorts {
        &self.debug
    }
    /// The real-time clock.
    pub fn rtc(&mut self) -> &mut RtcMc146818 {
        &mut self.rtc
    }
    /// The power management.
    pub(super) fn power(&mut self) -> Option<&mut Piix4Pm> {
        self.pci.get_mut(wiring::POWER)
    }
    /// The tablet.
    pub(super) fn tablet(&mut self) -> Option<&mut Virtio<Tablet>> {
        self.pci.get_mut(wiring::TABLET)
    }
    /// The memory balloon.
    pub(super) fn balloon(&mut self) -> Option<&mut Virtio<Balloon>> {
        self.pci.get_mut(wiring::BALLOON)
    }
    /// The floppy controller and the DMA controller.
    pub(super) fn floppy_and_dma(&mut self) -> Option<(&mut Fdc82077, &mut Dma8237)> {
        Some((self.floppy.as_mut()?, &mut self.dma))
    }
    /// The IDE controller.
    pub(super) fn ide(&mut self) -> Option<&mut Piix3Ide> {
        self.pci.get_mut(wiring::IDE)
    }
    /// The ISA bridge.
    pub(super) fn isa_bridge(&mut self) -> Option<&mut Piix3> {
        self.pci.get_mut(wiring::ISA_BRIDGE)
    }
}

/// An empty slot.
#[derive(Debug)]
struct Absent;

impl Device for Absent {
    fn name(&self) -> &'static str {
        "empty"
    }
    fn reset(&mut self, _cx: &mut umbra_devices::device::Ctx<'_>) {}
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _state: &[u8]) -> Result<(), umbra_devices::device::StateError> {
        Ok(())
    }
}

/// fw_cfg with the items that firmware sizes memory by, counts processors by, and tries to start systems in the order of.
fn fw_cfg(ram: u64, cpus: u16, boot_order: &[String]) -> FwCfg {
    /// Bytes of RAM, 64 bits.
    const RAM_SIZE: u16 = 0x03;
    /// Processors that are there, and that could be: 16 bits each.
    const CPUS: [u16; 2] = [0x05, 0x0F];
    let mut fw_cfg = FwCfg::new();
    fw_cfg.add_item(RAM_SIZE, ram.to_le_bytes().to_vec());
    CPUS.iter().for_each(|&item| fw_cfg.add_item(item, cpus.to_le_bytes().to_vec()));
    if !boot_order.is_empty() {
        let mut lines = boot_order.join("\n").into_bytes();
        lines.push(0);
        // The name is short and new: this cannot fail.
        let _ = fw_cfg.add_file("bootorder", lines);
    }
    fw_cfg
}
