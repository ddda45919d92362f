//! The 8042 keyboard controller of a PS/2-style PC (Intel 8042 with the IBM PS/2 firmware; IBM PS/2 Technical Reference).
//!
//! Models the status and command registers, the controller's RAM, self-tests, both device ports with translation to scan
//! code set 1, the output port with the A20 gate and the processor reset, and both interrupts. Bytes take a little time:
//! the next one is given only after the last was read, one event each.
//!
//! Leaves out: passwords (none is installed), the polling of the input port into the status register (C1h, C2h), parity
//! and time-out errors, the front-panel lock. Commands are taken at once, so that the input buffer is never seen full.
//!
//! Ranges: 0 = 60h, 1 = 64h. Wires: IRQ 1, IRQ 12, A20, RESET (a pulse). Called by the board; people's input comes through
//! [`I8042::key`] and [`I8042::mouse_move`].

use super::keyboard::{Keyboard, Stroke};
use super::keys::KeyCode;
use super::mouse::{Mouse, MouseButtons};
use super::translate::to_set_1;
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Status: the output buffer is full.
const STATUS_OUTPUT_FULL: u8 = 1 << 0;
/// Status: the self-test has passed (a copy of the command byte's bit).
const STATUS_SYSTEM: u8 = 1 << 2;
/// Status: the last write went to port 64h.
const STATUS_COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const STATUS_UNLOCKED: u8 = 1 << 4;
/// Status: the byte in the output buffer is the mouse's.
const STATUS_AUX: u8 = 1 << 5;

/// Command byte: IRQ 1 when the output buffer fills.
const MODE_IRQ_KEYBOARD: u8 = 1 << 0;
/// Command byte: IRQ 12 when the output buffer fills from the mouse.
const MODE_IRQ_MOUSE: u8 = 1 << 1;
/// Command byte: the system flag.
const MODE_SYSTEM: u8 = 1 << 2;
/// Command byte: the keyboard's clock is held.
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
/// Command byte: the mouse's clock is held.
const MODE_MOUSE_OFF: u8 = 1 << 5;
/// Command byte: translate to set 1.
const MODE_TRANSLATE: u8 = 1 << 6;

/// Output port: low resets the processor.
const PORT_NOT_RESET: u8 = 1 << 0;
/// Output port: the A20 gate.
const PORT_A20: u8 = 1 << 1;

/// The time from a command to the controller's own answer.
const REPLY_NS: u64 = 10_000;

/// How a controller is built.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct I8042Config {
    /// The time that a byte takes from a device (a real cable: about a millisecond).
    pub byte_ns: u64,
    /// The command byte after reset. Firmware that does not set one up finds the keyboard ready with translation.
    pub command_byte: u8,
}

impl Default for I8042Config {
    fn default() -> Self {
        I8042Config { byte_ns: 200_000, command_byte: MODE_TRANSLATE | MODE_MOUSE_OFF | MODE_IRQ_KEYBOARD }
    }
}

/// The controller's outputs.
#[derive(Debug, Default)]
pub struct I8042Wires {
    /// Keyboard interrupt.
    pub irq_keyboard: IrqLine,
    /// Mouse interrupt.
    pub irq_mouse: IrqLine,
    /// The A20 gate: high = open.
    pub a20: IrqLine,
    /// A pulse resets the processor.
    pub reset: IrqLine,
}

/// Where a byte came from.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    #[default]
    Keyboard,
    Mouse,
}

/// What the next byte at port 60h is for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    #[default]
    Keyboard,
    Ram(u8),
    Password,
    Mode,
    OutputPort,
    KeyboardOutput,
    MouseOutput,
    Mouse,
}

/// Volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The RAM that commands 20h–3Fh and 60h–7Fh reach; byte 0 is the command byte.
    ram: [u8; 32],
    /// The output buffer: its last byte, where it came from, and whether it was not read yet.
    data: u8,
    source: Source,
    full: bool,
    /// The last write was to port 64h.
    command_last: bool,
    expect: Expect,
    output_port: u8,
    /// The controller's own answers.
    replies: VecDeque<(u8, Source)>,
    /// When the next byte gets into the output buffer.
    deliver_at: Option<Tick>,
    /// A break prefix was taken from the keyboard.
    after_break: bool,
    keyboard: Keyboard,
    mouse: Mouse,
}

/// The keyboard controller with a keyboard and a mouse.
#[derive(Debug)]
pub struct I8042 {
    // Configuration.
    config: I8042Config,
    // Wires.
    wires: I8042Wires,
    // Volatile state.
    state: State,
}

fn power_on(config: &I8042Config) -> State {
    let mut ram = [0; 32];
    ram[0] = config.command_byte;
    State {
        ram,
        data: 0,
        source: Source::Keyboard,
        full: false,
        command_last: false,
        expect: Expect::Keyboard,
        output_port: PORT_NOT_RESET | PORT_A20,
        replies: VecDeque::new(),
        deliver_at: None,
        after_break: false,
        keyboard: Keyboard::new(),
        mouse: Mouse::new(),
    }
}

impl I8042 {
    /// A controller after reset: A20 open, scanning.
    pub fn new(config: I8042Config, wires: I8042Wires) -> I8042 {
        let controller = I8042 { state: power_on(&config), config, wires };
        controller.drive();
        controller
    }

    /// A key does something.
    pub fn key(&mut self, now: Tick, key: KeyCode, stroke: Stroke) {
        self.state.keyboard.key(now, key, stroke);
        self.advance(now);
    }

    /// Keys that the guest has not read yet.
    pub fn keys_waiting(&self) -> usize {
        self.state.keyboard.waiting()
    }

    /// The keyboard's lights: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock.
    pub fn leds(&self) -> u8 {
        self.state.keyboard.leds()
    }

    /// The mouse moves by `[x, y, wheel]` (positive: right, down, towards the user) with these buttons down.
    pub fn mouse_move(&mut self, now: Tick, delta: [i32; 3], buttons: MouseButtons) {
        self.state.mouse.motion(now, delta, buttons);
        self.advance(now);
    }

    fn drive(&self) {
        let State { full, source, ram, output_port, .. } = self.state;
        let irq = |wanted: Source, enable: u8| full && source == wanted && ram[0] & enable != 0;
        self.wires.irq_keyboard.set(irq(Source::Keyboard, MODE_IRQ_KEYBOARD));
        self.wires.irq_mouse.set(irq(Source::Mouse, MODE_IRQ_MOUSE));
        self.wires.a20.set(output_port & PORT_A20 != 0);
    }

    fn pulse_reset(&self) {
        self.wires.reset.set(true);
        self.wires.reset.set(false);
    }

    /// Does everything that is due by `now`.
    fn advance(&mut self, now: Tick) {
        self.state.keyboard.run(now);
        self.state.mouse.run(now);
        while !self.state.full {
            let Some(delay) = self.state.waiting(self.config.byte_ns) else {
                self.state.deliver_at = None;
                break;
            };
            match self.state.deliver_at {
                None => self.state.deliver_at = Some(now.after(delay.max(1))),
                Some(at) if at > now => break,
                Some(_) => self.state.deliver(now),
            }
        }
        self.drive();
    }

    fn read_data(&mut self, now: Tick) -> u8 {
        let data = self.state.data;
        self.state.full = false;
        self.advance(now);
        data
    }

    fn write_data(&mut self, now: Tick, byte: u8) {
        let state = &mut self.state;
        state.command_last = false;
        match std::mem::take(&mut state.expect) {
            Expect::Keyboard => {
                state.ram[0] &= !MODE_KEYBOARD_OFF;
                state.keyboard.write(now, byte);
            }
            Expect::Mouse => {
                state.ram[0] &= !MODE_MOUSE_OFF;
                state.mouse.write(now, byte);
            }
            Expect::Ram(index) => state.ram[usize::from(index & 31)] = byte,
            Expect::Password if byte != 0 => state.expect = Expect::Password,
            Expect::Password | Expect::Mode => {}
            Expect::OutputPort => {
                state.output_port = byte;
                if byte & PORT_NOT_RESET == 0 {
                    self.pulse_reset();
                }
            }
            Expect::KeyboardOutput => state.replies.push_back((byte, Source::Keyboard)),
            Expect::MouseOutput => state.replies.push_back((byte, Source::Mouse)),
        }
        self.advance(now);
    }

    fn write_command(&mut self, now: Tick, command: u8) {
        let state = &mut self.state;
        state.command_last = true;
        state.expect = Expect::Keyboard;
        match command {
            0x20..=0x3f => state.reply(state.ram[usize::from(command & 31)]),
            0x60..=0x7f => state.expect = Expect::Ram(command & 31),
            0xa4 => state.reply(0xf1), // No password is installed.
            0xa5 => state.expect = Expect::Password,
            0xa7 => state.ram[0] |= MODE_MOUSE_OFF,
            0xa8 => state.ram[0] &= !MODE_MOUSE_OFF,
            0xa9 | 0xab => state.reply(0x00), // The mouse's and the keyboard's lines are fine.
            0xaa => {
                state.full = false;
                state.replies.clear();
                state.ram[0] |= MODE_SYSTEM;
                state.reply(0x55);
            }
            0xac => {
                let bytes =
                    [&state.ram[..16], &[state.input_port(), state.read_output_port(), state.status()]].concat();
                bytes.into_iter().for_each(|byte| state.reply(byte));
            }
            0xad => state.ram[0] |= MODE_KEYBOARD_OFF,
            0xae => state.ram[0] &= !MODE_KEYBOARD_OFF,
            0xc0 => state.reply(state.input_port()),
            0xca => state.reply(0x01), // PS/2 mode.
            0xcb => state.expect = Expect::Mode,
            0xd0 => state.reply(state.read_output_port()),
            0xd1 => state.expect = Expect::OutputPort,
            0xd2 => state.expect = Expect::KeyboardOutput,
            0xd3 => state.expect = Expect::MouseOutput,
            0xd4 => state.expect = Expect::Mouse,
            0xdd => state.output_port &= !PORT_A20,
            0xdf => state.output_port |= PORT_A20,
            0xe0 => state.reply(state.test_inputs()),
            0xf0..=0xff if command & PORT_NOT_RESET == 0 => self.pulse_reset(),
            _ => {}
        }
        self.advance(now);
    }
}

impl State {
    fn reply(&mut self, byte: u8) {
        self.replies.push_back((byte, Source::Keyboard));
    }

    fn keyboard_can_send(&self) -> bool {
        self.ram[0] & MODE_KEYBOARD_OFF == 0 && self.keyboard.has_byte()
    }

    fn mouse_can_send(&self) -> bool {
        self.ram[0] & MODE_MOUSE_OFF == 0 && self.mouse.has_byte()
    }

    /// How long the next byte will take, if there is one.
    fn waiting(&self, byte_ns: u64) -> Option<u64> {
        if !self.replies.is_empty() {
            return Some(REPLY_NS);
        }
        (self.keyboard_can_send() || self.mouse_can_send()).then_some(byte_ns)
    }

    /// Moves the next byte into the output buffer; a break prefix is only remembered.
    fn deliver(&mut self, now: Tick) {
        self.deliver_at = None;
        let (byte, source) = if let Some(reply) = self.replies.pop_front() {
            reply
        } else if self.keyboard_can_send() {
            let Some(mut byte) = self.keyboard.next_byte(now) else { return };
            if self.ram[0] & MODE_TRANSLATE != 0 {
                let Some(code) = to_set_1(byte, &mut self.after_break) else { return };
                byte = code;
            }
            (byte, Source::Keyboard)
        } else {
            let Some(byte) = self.mouse.next_byte(now) else { return };
            (byte, Source::Mouse)
        };
        (self.data, self.source, self.full) = (byte, source, true);
    }

    fn status(&self) -> u8 {
        let mut status = STATUS_UNLOCKED;
        if self.full {
            status |= STATUS_OUTPUT_FULL;
            if self.source == Source::Mouse {
                status |= STATUS_AUX;
            }
        }
        if self.ram[0] & MODE_SYSTEM != 0 {
            status |= STATUS_SYSTEM;
        }
        if self.command_last {
            status |= STATUS_COMMAND;
        }
        status
    }

    /// Unlocked, no manufacturing jumper, second bank of RAM enabled.
    fn input_port(&self) -> u8 {
        0xb0
    }

    /// Both clock and data lines idle high unless held.
    fn test_inputs(&self) -> u8 {
        u8::from(self.ram[0] & MODE_KEYBOARD_OFF == 0) | u8::from(self.ram[0] & MODE_MOUSE_OFF == 0) << 1
    }

    fn read_output_port(&self) -> u8 {
        let full = |source: Source| u8::from(self.full && self.source == source);
        (self.output_port & 0xcf) | full(Source::Keyboard) << 4 | full(Source::Mouse) << 5
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = power_on(&self.config);
        self.drive();
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, offset, width) {
            (0, 0, Width::B1) => Ok(u32::from(self.read_data(cx.now))),
            (1, 0, Width::B1) => {
                self.advance(cx.now);
                Ok(u32::from(self.state.status()))
            }
            (0 | 1, 0, _) => Err(IoError::BadWidth),
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
        match (range, offset, width) {
            (0, 0, Width::B1) => self.write_data(cx.now, value as u8),
            (1, 0, Width::B1) => self.write_command(cx.now, value as u8),
            (0 | 1, 0, _) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        let state = &self.state;
        let deliver = state.deliver_at.filter(|_| !state.full);
        [deliver, state.keyboard.next_event(), state.mouse.next_event()].into_iter().flatten().min()
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
mod tests;
