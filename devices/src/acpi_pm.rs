//! The power-management registers of the 82371AB (PIIX4), data sheet chapter 7: PM1 events and control, the ACPI timer,
//! GPE0, and the APM ports.
//!
//! Port range 0 is the 64-byte block (PM1 status and enable at +0, control at +4, timer at +8, GPE0 at +0Ch), range 1 the
//! APM ports B2h–B3h. The board asks [`AcpiPm::take_power_event`] after a call. There is no system-management mode:
//! SCI_EN is set from power-on, and the ACPI-enable and -disable commands that firmware would handle in SMM (F1h and F0h
//! at port B2h) act at once. Processor clock control, device monitors and general-purpose outputs are kept without
//! effect; the four-second power-button override is the board's.

use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

const PM_BLOCK: u8 = 0;
const APM_PORTS: u8 = 1;

/// Status and enable: the timer's most significant bit changed.
const TIMER: u16 = 1 << 0;
/// Status and enable: the firmware released the global lock.
const GLOBAL: u16 = 1 << 5;
/// Status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// Status and enable: the real-time clock's alarm.
const RTC: u16 = 1 << 10;
/// Status: the machine resumed.
const RESUME: u16 = 1 << 15;
const PM1_STATUS: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC | RESUME;
const PM1_ENABLE: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;

/// Control: events raise SCI (instead of SMI).
const SCI_EN: u16 = 1 << 0;
/// Control: a bus master's request wakes from C3.
const BUS_MASTER_RELOAD: u16 = 1 << 1;
/// Control, reads as 0: tells the firmware that the global lock is free.
const GLOBAL_RELEASE: u16 = 1 << 2;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
/// Control, reads as 0: goes to sleep.
const SLEEP_ENABLE: u16 = 1 << 13;

/// GPE0 bits that exist: thermal, USB, general-purpose input, ring, lid.
const GPE: u16 = 0x0F01;

/// The timer has 24 bits; its status bit follows every change of the highest.
const TIMER_MASK: u64 = 0xFF_FFFF;
const TIMER_HALF: u32 = 23;

/// Global control bit 1, reads as 0: sets the global status bit for the system.
const BIOS_RELEASE: u32 = 1 << 1;
/// Global status bit 0: the system released the global lock.
const BIOS_STATUS: u32 = 1 << 0;

const ACPI_ENABLE: u8 = 0xF1;
const ACPI_DISABLE: u8 = 0xF0;

/// What the guest asks of the machine's power.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerEvent {
    /// Soft-off (sleep type 0).
    SoftOff,
    /// Another sleep type, 1–7; the board calls [`AcpiPm::resume`] when it wakes.
    Sleep(u8),
}

/// An event from outside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PmEvent {
    /// The power button was pressed.
    PowerButton,
    /// The real-time clock's alarm went off.
    RtcAlarm,
    /// A general-purpose event, by its GPE0 bit.
    General(u8),
}

/// The volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    /// How often the timer's highest bit had changed when that was last looked at.
    timer_halves: u64,
    gpe_status: u16,
    gpe_enable: u16,
    processor_control: u32,
    global_status: u32,
    global_enable: u32,
    global_control: u32,
    device_status: u32,
    device_control: u32,
    outputs: u32,
    apm: [u8; 2],
    power: Option<PowerEvent>,
}

impl Default for State {
    fn default() -> State {
        State {
            status: 0,
            enable: 0,
            control: SCI_EN,
            timer_halves: 0,
            gpe_status: 0,
            gpe_enable: 0,
            processor_control: 0,
            global_status: 0,
            global_enable: 0,
            global_control: 0,
            device_status: 0,
            device_control: 0,
            outputs: 0x7FFF_BFFF,
            apm: [0; 2],
            power: None,
        }
    }
}

/// The power-management registers.
#[derive(Debug)]
pub struct AcpiPm {
    // Configuration: none. Wires.
    sci: IrqLine,
    // Volatile state.
    state: State,
}

impl AcpiPm {
    /// The registers after power-on, with the SCI wire (level, active high).
    pub fn new(sci: IrqLine) -> AcpiPm {
        AcpiPm { sci, state: State::default() }
    }

    /// Takes what the guest asked of the machine's power.
    pub fn take_power_event(&mut self) -> Option<PowerEvent> {
        self.state.power.take()
    }

    /// Something happened outside: sets its status bit, and raises SCI if that is enabled.
    pub fn raise(&mut self, event: PmEvent) {
        match event {
            PmEvent::PowerButton => self.state.status |= POWER_BUTTON,
            PmEvent::RtcAlarm => self.state.status |= RTC,
            PmEvent::General(bit) => self.state.gpe_status |= GPE & 1u16.checked_shl(bit.into()).unwrap_or(0),
        }
        self.drive();
    }

    /// The machine woke from the sleep of [`PowerEvent::Sleep`].
    pub fn resume(&mut self) {
        self.state.status |= RESUME;
    }

    /// The timer's count.
    fn timer(now: Tick) -> u32 {
        (Rate::ACPI_PM.cycles_at(now) & TIMER_MASK) as u32
    }

    /// Brings the timer's status bit up to now.
    fn advance(&mut self, now: Tick) {
        let halves = Rate::ACPI_PM.cycles_at(now) >> TIMER_HALF;
        if halves != self.state.timer_halves {
            self.state.timer_halves = halves;
            self.state.status |= TIMER;
            self.drive();
        }
    }

    fn drive(&self) {
        let state = &self.state;
        let events = state.status & state.enable & PM1_ENABLE | state.gpe_status & state.gpe_enable;
        self.sci.set(state.control & SCI_EN != 0 && events != 0);
    }

    fn read_register(&self, now: Tick, register: u64) -> u32 {
        let state = &self.state;
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match register {
            0x00 => pair(state.status, state.enable),
            0x04 => pair(state.control, 0),
            0x08 => AcpiPm::timer(now),
            0x0C => pair(state.gpe_status, state.gpe_enable),
            0x10 => state.processor_control,
            0x18 => state.global_status,
            0x1C => state.device_status,
            0x20 => state.global_enable,
            0x28 => state.global_control,
            0x2C => state.device_control,
            // No general-purpose input is driven; they are pulled up.
            0x30 => 0x003F_FFFF,
            0x34 => state.outputs,
            // 14h and 15h are the processor power levels: the read itself is the command to rest, and gives 0.
            _ => 0,
        }
    }

    fn write_register(&mut self, lane: Lane, value: u32) {
        let written = lane.place(value);
        let state = &mut self.state;
        match lane.register {
            0x00 => {
                state.status &= !(written as u16 & PM1_STATUS);
                state.enable = (lane.merge(u32::from(state.enable) << 16, value) >> 16) as u16 & PM1_ENABLE;
            }
            0x04 => self.write_control(lane.merge(self.state.control.into(), value) as u16),
            0x0C => {
                state.gpe_status &= !(written as u16);
                state.gpe_enable = (lane.merge(u32::from(state.gpe_enable) << 16, value) >> 16) as u16 & GPE;
            }
            0x10 => state.processor_control = lane.merge(state.processor_control, value) & 0x0002_3E1E,
            0x18 => state.global_status &= !(written & 0xFFFF),
            0x1C => state.device_status &= !written,
            0x20 => state.global_enable = lane.merge(state.global_enable, value) & 0xFFFF,
            0x28 => {
                let control = lane.merge(state.global_control, value);
                state.global_control = control & !BIOS_RELEASE;
                if control & BIOS_RELEASE != 0 {
                    state.status |= GLOBAL;
                }
            }
            0x2C => state.device_control = lane.merge(state.device_control, value),
            0x34 => state.outputs = lane.merge(state.outputs, value) & 0x7FFF_FFFF,
            _ => {}
        }
        self.drive();
    }

    fn write_control(&mut self, control: u16) {
        let state = &mut self.state;
        state.control = control & (SCI_EN | BUS_MASTER_RELOAD | SLEEP_TYPE);
        if control & GLOBAL_RELEASE != 0 {
            state.global_status |= BIOS_STATUS;
        }
        if control & SLEEP_ENABLE != 0 {
            state.power = Some(match (control & SLEEP_TYPE) >> SLEEP_TYPE_SHIFT {
                0 => PowerEvent::SoftOff,
                kind => PowerEvent::Sleep(kind as u8),
            });
        }
    }

    fn write_apm(&mut self, offset: u16, value: u8) {
        let Some(register) = self.state.apm.get_mut(usize::from(offset)) else { return };
        *register = value;
        match (offset, value) {
            (0, ACPI_ENABLE) => self.state.control |= SCI_EN,
            (0, ACPI_DISABLE) => self.state.control &= !SCI_EN,
            _ => {}
        }
        self.drive();
    }
}

impl Device for AcpiPm {
    fn name(&self) -> &'static str {
        "acpi-pm"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        let timer_halves = Rate::ACPI_PM.cycles_at(cx.now) >> TIMER_HALF;
        self.state = State { timer_halves, ..State::default() };
        self.drive();
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        self.advance(cx.now);
        match (range, offset) {
            (PM_BLOCK, 0..0x40) => {
                let lane = Lane::of(offset.into(), width)?;
                Ok(lane.extract(self.read_register(cx.now, lane.register)))
            }
            (APM_PORTS, 0..2) if width == Width::B1 => Ok(self.state.apm[usize::from(offset & 1)].into()),
            (APM_PORTS, 0..2) => Err(IoError::BadWidth),
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
        self.advance(cx.now);
        match (range, offset) {
            (PM_BLOCK, 0..0x40) => self.write_register(Lane::of(offset.into(), width)?, value),
            (APM_PORTS, 0..2) if width == Width::B1 => self.write_apm(offset, value as u8),
            (APM_PORTS, 0..2) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    /// The timer's overflow, if it would be heard.
    fn next_event(&self) -> Option<Tick> {
        let heard = self.state.control & SCI_EN != 0 && self.state.enable & !self.state.status & TIMER != 0;
        let next = (self.state.timer_halves.saturating_add(1)) << TIMER_HALF;
        heard.then(|| Rate::ACPI_PM.tick_of(next))
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx.now);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.state = restore_state(self.name(), state)?;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, check_device};
    use crate::wire::WireBundle;

    fn read(pm: &mut AcpiPm, now: u64, offset: u16, width: Width) -> u32 {
        at(Tick(now), |cx| pm.port_read(cx, PM_BLOCK, offset, width)).unwrap()
    }

    fn write(pm: &mut AcpiPm, now: u64, offset: u16, width: Width, value: u32) {
        at(Tick(now), |cx| pm.port_write(cx, PM_BLOCK, offset, width, value)).unwrap();
    }

    #[test]
    fn the_timer_counts_exactly_and_wraps() {
        let mut pm = AcpiPm::new(IrqLine::detached());
        // 315/88 MHz: 315 counts in 88 µs.
        for (now, want) in [(0, 0), (279, 0), (280, 1), (88_000, 315), (1_000_000_000, 3_579_545)] {
            assert_eq!(read(&mut pm, now, 8, Width::B4), want, "at {now}");
        }
        let wrap = Rate::ACPI_PM.tick_of(1 << 24).0;
        assert_eq!(read(&mut pm, wrap - 1, 8, Width::B4), 0xFF_FFFF);
        assert_eq!(read(&mut pm, wrap, 8, Width::B4), 0);
        assert_eq!(read(&mut pm, wrap - 1, 9, Width::B1), 0xFF);
    }

    #[test]
    fn timer_status_follows_the_highest_bit() {
        let bundle = WireBundle::new();
        let mut pm = AcpiPm::new(bundle.line(9));
        assert_eq!(pm.next_event(), None);
        write(&mut pm, 0, 2, Width::B2, TIMER.into());
        for half in 1..5u64 {
            let due = pm.next_event().unwrap();
            assert_eq!(due, Rate::ACPI_PM.tick_of(half << 23));
            assert_eq!(read(&mut pm, due.0 - 1, 0, Width::B2) & 1, 0);
            at(due, |cx| pm.run_until(cx));
            assert!(bundle.level(9));
            assert_eq!(pm.next_event(), None, "already told");
            write(&mut pm, due.0, 0, Width::B2, TIMER.into());
            assert!(!bundle.level(9));
        }
    }

    #[test]
    fn events_raise_sci_if_enabled() {
        // (event, status register, bit, enable register)
        #[rustfmt::skip]
        let table = [
            (PmEvent::PowerButton, 0x00, POWER_BUTTON, 0x02),
            (PmEvent::RtcAlarm,    0x00, RTC,          0x02),
            (PmEvent::General(8),  0x0C, 1 << 8,       0x0E),
        ];
        for (event, status, bit, enable) in table {
            let bundle = WireBundle::new();
            let mut pm = AcpiPm::new(bundle.line(9));
            pm.raise(event);
            assert_eq!(read(&mut pm, 0, status, Width::B2), bit.into(), "{event:?}");
            assert!(!bundle.level(9), "not enabled");
            write(&mut pm, 0, enable, Width::B2, bit.into());
            assert!(bundle.level(9));
            write(&mut pm, 0, 4, Width::B2, 0);
            assert!(!bundle.level(9), "legacy mode");
            at(Tick(0), |cx| pm.port_write(cx, APM_PORTS, 0, Width::B1, ACPI_ENABLE.into())).unwrap();
            assert!(bundle.level(9));
            write(&mut pm, 0, status, Width::B2, 0xFFFF);
            assert!(!bundle.level(9) && read(&mut pm, 0, status, Width::B2) == 0);
        }
        let mut pm = AcpiPm::new(IrqLine::detached());
        pm.raise(PmEvent::General(200));
        assert_eq!(read(&mut pm, 0, 0xC, Width::B2), 0);
    }

    #[test]
    fn sleeping() {
        for (control, want) in [
            (0x2000, Some(PowerEvent::SoftOff)),
            (0x2401, Some(PowerEvent::Sleep(1))),
            (0x3401, Some(PowerEvent::Sleep(5))),
            (0x1401, None),
        ] {
            let mut pm = AcpiPm::new(IrqLine::detached());
            assert_eq!(read(&mut pm, 0, 4, Width::B2), SCI_EN.into());
            write(&mut pm, 0, 4, Width::B2, control);
            assert_eq!(pm.take_power_event(), want, "{control:#x}");
            assert_eq!(read(&mut pm, 0, 4, Width::B2), control & !0x2000);
            assert_eq!(pm.take_power_event(), None);
        }
        let mut pm = AcpiPm::new(IrqLine::detached());
        write(&mut pm, 0, 5, Width::B1, 0x20);
        assert_eq!(pm.take_power_event(), Some(PowerEvent::SoftOff), "a byte write will do");
    }

    #[test]
    fn global_lock_release() {
        let mut pm = AcpiPm::new(IrqLine::detached());
        write(&mut pm, 0, 0x28, Width::B4, BIOS_RELEASE);
        assert_eq!(read(&mut pm, 0, 0, Width::B4), GLOBAL.into());
        assert_eq!(read(&mut pm, 0, 0x28, Width::B4), 0);
        write(&mut pm, 0, 4, Width::B2, GLOBAL_RELEASE.into());
        assert_eq!(read(&mut pm, 0, 0x18, Width::B2), BIOS_STATUS);
    }

    #[test]
    fn any_sequence() {
        check_device(|| AcpiPm::new(IrqLine::detached()), &[0x40, 2]);
    }
}
