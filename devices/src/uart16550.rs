//! The 16550A UART (National Semiconductor PC16550D data sheet).
//!
//! Models all registers, both FIFOs with trigger levels and the character time-out, interrupt priorities and the rules of
//! the THRE interrupt, line status with errors that travel through the FIFO, modem status with deltas, loopback, break,
//! scratch and the divisor latch. With [`Pace::Baud`] each character takes its exact time on the line in both directions;
//! with [`Pace::Instant`] characters take no time (the time-out still does).
//!
//! Leaves out: the DMA mode pins, the delay of the first THRE interrupt by a character time, parity and framing errors
//! on input from the host (the host's bytes are whole). As on a PC, OUT2 gates the interrupt wire.
//!
//! Range: 0 = eight ports. Wire: IRQ. Called by the board; the far end of the line is [`Uart16550::receive`] and
//! [`Uart16550::take_output`].

use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

#[cfg(test)]
mod tests;

/// The chip's input clock; a bit takes 16 × divisor of it.
const CLOCK: Rate = Rate::from_hertz(1_843_200);
/// The depth of each FIFO.
const FIFO_DEPTH: usize = 16;
/// Receive FIFO trigger levels, by FCR bits 7–6.
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];

const IER_RECEIVED: u8 = 1 << 0;
const IER_THR_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;
const IER_MODEM_STATUS: u8 = 1 << 3;

const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_THR_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_TIME_OUT: u8 = 0x0c;
const IIR_FIFOS_ENABLED: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
const FCR_CLEAR_TRANSMITTER: u8 = 1 << 2;

const LCR_STOP_BITS: u8 = 1 << 2;
const LCR_PARITY: u8 = 1 << 3;
const LCR_BREAK: u8 = 1 << 6;
const LCR_DLAB: u8 = 1 << 7;

const MCR_OUT_2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_BREAK: u8 = 1 << 4;
const LSR_THR_EMPTY: u8 = 1 << 5;
const LSR_TRANSMITTER_EMPTY: u8 = 1 << 6;
const LSR_ERROR_IN_FIFO: u8 = 1 << 7;
/// The bits that raise the line status interrupt and that a read clears.
const LSR_ERRORS: u8 = 0x1e;

const MSR_RING: u8 = 1 << 6;

/// How fast characters travel.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the guest writes and reads.
    #[default]
    Instant,
    /// In the time that the divisor and the character format say.
    Baud,
}

/// How a UART is built.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct UartConfig {
    /// How fast characters travel.
    pub pace: Pace,
}

/// The modem's outputs, as the high half of the modem status register: CTS (10h), DSR (20h), RI (40h), DCD (80h).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModemInputs(pub u8);

impl ModemInputs {
    /// A peer that is there and ready: CTS, DSR and DCD.
    pub const CONNECTED: ModemInputs = ModemInputs(0xb0);
    /// Nothing plugged in.
    pub const OPEN: ModemInputs = ModemInputs(0);
}

/// A character on its way to the guest, with the errors that came with it (as LSR bits).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    errors: u8,
}

/// Volatile state. Times are cycles of [`CLOCK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: u16,
    modem: ModemInputs,
    /// What MSR showed last, deltas (low half) included.
    msr: u8,
    /// Errors seen and not yet read from LSR.
    errors: u8,
    /// The receiver FIFO (or, without FIFOs, the buffer register).
    received: VecDeque<Received>,
    /// When the character time-out comes.
    time_out_at: Option<u64>,
    timed_out: bool,
    /// The transmitter FIFO (or holding register).
    to_send: VecDeque<u8>,
    /// The shift register, and when its character has left.
    shifting: Option<(u8, u64)>,
    /// The THRE interrupt is pending.
    thr_interrupt: bool,
    /// From the host, not yet on the line.
    incoming: VecDeque<Received>,
    /// When the character now on the line to us has arrived.
    arrival: Option<u64>,
    /// To the host.
    outgoing: Vec<u8>,
}

/// A serial port.
#[derive(Debug)]
pub struct Uart16550 {
    // Configuration.
    config: UartConfig,
    // Wires.
    irq: IrqLine,
    // Volatile state.
    state: State,
}

fn power_on(modem: ModemInputs) -> State {
    State {
        ier: 0,
        fcr: 0,
        lcr: 0,
        mcr: 0,
        scratch: 0,
        divisor: 12,
        modem,
        msr: modem.0 & 0xf0,
        errors: 0,
        received: VecDeque::new(),
        time_out_at: None,
        timed_out: false,
        to_send: VecDeque::new(),
        shifting: None,
        thr_interrupt: false,
        incoming: VecDeque::new(),
        arrival: None,
        outgoing: Vec::new(),
    }
}

impl Uart16550 {
    /// A serial port with a ready peer at the other end.
    pub fn new(config: UartConfig, irq: IrqLine) -> Uart16550 {
        Uart16550 { config, irq, state: power_on(ModemInputs::CONNECTED) }
    }

    /// Queues bytes for the guest. None is lost: what does not fit in the FIFO waits.
    pub fn receive(&mut self, now: Tick, bytes: &[u8]) {
        self.state.incoming.extend(bytes.iter().map(|&byte| Received { byte, errors: 0 }));
        self.advance(now);
    }

    /// Queues a break condition for the guest.
    pub fn receive_break(&mut self, now: Tick) {
        self.state.incoming.push_back(Received { byte: 0, errors: LSR_BREAK });
        self.advance(now);
    }

    /// The number of bytes that the guest has not taken yet.
    pub fn unread(&self) -> usize {
        self.state.incoming.len() + self.state.received.len()
    }

    /// Takes what the guest has sent since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.outgoing)
    }

    /// Whether [`Self::take_output`] would return anything.
    pub fn has_output(&self) -> bool {
        !self.state.outgoing.is_empty()
    }

    /// Whether the guest holds the line in the break condition.
    pub fn sends_break(&self) -> bool {
        self.state.lcr & LCR_BREAK != 0
    }

    /// Changes the modem's outputs.
    pub fn set_modem_inputs(&mut self, inputs: ModemInputs) {
        self.state.modem = inputs;
        self.state.update_msr();
        self.drive();
    }

    fn drive(&self) {
        self.irq.set(self.state.interrupt() != IIR_NONE && self.state.mcr & MCR_OUT_2 != 0);
    }

    /// Does everything that is due by `now`.
    fn advance(&mut self, now: Tick) {
        let cycle = CLOCK.cycles_at(now);
        self.state.transmit(cycle);
        self.state.accept(self.config.pace, cycle);
        if self.state.time_out_at.is_some_and(|at| at <= cycle) {
            self.state.time_out_at = None;
            self.state.timed_out = true;
        }
        self.drive();
    }

    fn write_data(&mut self, now: Tick, byte: u8) {
        let cycle = CLOCK.cycles_at(now);
        let state = &mut self.state;
        state.thr_interrupt = false;
        if self.config.pace == Pace::Instant {
            state.emit(cycle, byte);
            // The register was full for no time at all, but the interrupt is a new one.
            self.drive();
            self.state.thr_interrupt = true;
            return;
        }
        let depth = if state.fifos() { FIFO_DEPTH } else { 1 };
        if state.to_send.len() >= depth {
            state.to_send.pop_back();
        }
        state.to_send.push_back(byte);
        if state.shifting.is_none() {
            state.start_shifting(cycle);
        }
    }

    fn read_register(&mut self, now: Tick, offset: u16) -> u8 {
        let state = &mut self.state;
        match (offset, state.lcr & LCR_DLAB != 0) {
            (0, true) => state.divisor as u8,
            (1, true) => (state.divisor >> 8) as u8,
            (0, false) => {
                let byte = state.take_received(CLOCK.cycles_at(now));
                self.advance(now);
                byte
            }
            (1, false) => state.ier,
            (2, _) => {
                let source = state.interrupt();
                if source == IIR_THR_EMPTY {
                    state.thr_interrupt = false;
                }
                source | if state.fifos() { IIR_FIFOS_ENABLED } else { 0 }
            }
            (3, _) => state.lcr,
            (4, _) => state.mcr,
            (5, _) => {
                let status = state.line_status();
                state.errors = 0;
                status
            }
            (6, _) => {
                let status = state.msr;
                state.msr &= 0xf0;
                status
            }
            _ => state.scratch,
        }
    }

    fn write_register(&mut self, now: Tick, offset: u16, value: u8) {
        let state = &mut self.state;
        match (offset, state.lcr & LCR_DLAB != 0) {
            (0, true) => state.divisor = (state.divisor & 0xff00) | u16::from(value),
            (1, true) => state.divisor = (state.divisor & 0x00ff) | u16::from(value) << 8,
            (0, false) => self.write_data(now, value),
            (1, false) => {
                let enabled = value & !state.ier & IER_THR_EMPTY != 0;
                state.ier = value & 0x0f;
                state.thr_interrupt |= enabled && state.to_send.is_empty();
            }
            (2, _) => state.write_fcr(value),
            (3, _) => {
                let begins_break = value & !state.lcr & LCR_BREAK != 0;
                state.lcr = value;
                if begins_break && state.mcr & MCR_LOOP != 0 {
                    state.push_received(CLOCK.cycles_at(now), Received { byte: 0, errors: LSR_BREAK });
                }
            }
            (4, _) => {
                state.mcr = value & 0x1f;
                state.update_msr();
                self.advance(now); // Leaving loopback lets the host's bytes in again.
            }
            (7, _) => state.scratch = value,
            _ => {} // LSR and MSR: factory tests only.
        }
    }
}

impl State {
    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn receiver_depth(&self) -> usize {
        if self.fifos() { FIFO_DEPTH } else { 1 }
    }

    /// Cycles of [`CLOCK`] that a character takes on the line.
    fn character_cycles(&self) -> u64 {
        let data_bits = 5 + u64::from(self.lcr & 3);
        let half_stop_bits = match (self.lcr & LCR_STOP_BITS != 0, data_bits) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 + 2 * data_bits + 2 * u64::from(self.lcr & LCR_PARITY != 0) + half_stop_bits;
        8 * half_bits * u64::from(self.divisor.max(1))
    }

    /// The highest-priority enabled interrupt, as IIR shows it.
    fn interrupt(&self) -> u8 {
        let enabled = |bit: u8| self.ier & bit != 0;
        let trigger = if self.fifos() { TRIGGER_LEVELS[usize::from(self.fcr >> 6)] } else { 1 };
        if enabled(IER_LINE_STATUS) && self.errors & LSR_ERRORS != 0 {
            IIR_LINE_STATUS
        } else if enabled(IER_RECEIVED) && self.received.len() >= trigger {
            IIR_RECEIVED
        } else if enabled(IER_RECEIVED) && self.timed_out {
            IIR_TIME_OUT
        } else if enabled(IER_THR_EMPTY) && self.thr_interrupt {
            IIR_THR_EMPTY
        } else if enabled(IER_MODEM_STATUS) && self.msr & 0x0f != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    fn line_status(&self) -> u8 {
        let mut status = self.errors;
        if !self.received.is_empty() {
            status |= LSR_DATA_READY;
        }
        if self.to_send.is_empty() {
            status |= LSR_THR_EMPTY;
            if self.shifting.is_none() {
                status |= LSR_TRANSMITTER_EMPTY;
            }
        }
        let errors = self.received.iter().fold(self.errors & !LSR_OVERRUN, |all, character| all | character.errors);
        if self.fifos() && errors != 0 {
            status |= LSR_ERROR_IN_FIFO;
        }
        status
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
        if toggled || value & (FCR_ENABLE | FCR_CLEAR_RECEIVER) == FCR_ENABLE | FCR_CLEAR_RECEIVER {
            self.received.clear();
            self.time_out_at = None;
            self.timed_out = false;
        }
        if toggled || value & (FCR_ENABLE | FCR_CLEAR_TRANSMITTER) == FCR_ENABLE | FCR_CLEAR_TRANSMITTER {
            self.thr_interrupt |= !self.to_send.is_empty();
            self.to_send.clear();
        }
        self.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
    }

    /// Takes modem inputs (or, in loopback, our own outputs) into MSR and notes what changed.
    fn update_msr(&mut self) {
        let inputs = if self.mcr & MCR_LOOP != 0 {
            let [dtr, rts, out_1, out_2] = [0, 1, 2, 3].map(|bit| self.mcr >> bit & 1);
            rts << 4 | dtr << 5 | out_1 << 6 | out_2 << 7
        } else {
            self.modem.0 & 0xf0
        };
        let before = self.msr & 0xf0;
        let mut changed = before ^ inputs;
        if inputs & MSR_RING != 0 {
            changed &= !MSR_RING; // Only the trailing edge of RI counts.
        }
        self.msr = inputs | (self.msr & 0x0f) | changed >> 4;
    }

    /// Sends what the line has time for.
    fn transmit(&mut self, cycle: u64) {
        while let Some((byte, done)) = self.shifting.filter(|&(_, done)| done <= cycle) {
            self.shifting = None;
            self.emit(done, byte);
            self.start_shifting(done);
        }
    }

    fn start_shifting(&mut self, cycle: u64) {
        let Some(byte) = self.to_send.pop_front() else { return };
        self.shifting = Some((byte, cycle.saturating_add(self.character_cycles())));
        self.thr_interrupt |= self.to_send.is_empty();
    }

    /// A character has left the shift register.
    fn emit(&mut self, cycle: u64, byte: u8) {
        let byte = byte & (0xff >> (3 - (self.lcr & 3)));
        if self.mcr & MCR_LOOP == 0 {
            self.outgoing.push(byte);
        } else {
            self.push_received(cycle, Received { byte, errors: 0 });
        }
    }

    /// Takes the host's characters off the line.
    fn accept(&mut self, pace: Pace, cycle: u64) {
        while self.mcr & MCR_LOOP == 0 && self.received.len() < self.receiver_depth() && !self.incoming.is_empty() {
            let arrived = match (pace, self.arrival) {
                (Pace::Instant, _) => cycle,
                (Pace::Baud, Some(arrival)) if arrival <= cycle => arrival,
                (Pace::Baud, Some(_)) => return,
                (Pace::Baud, None) => {
                    self.arrival = Some(cycle.saturating_add(self.character_cycles()));
                    return;
                }
            };
            let Some(character) = self.incoming.pop_front() else { return };
            self.push_received(arrived, character);
            let next = arrived.saturating_add(self.character_cycles());
            self.arrival = (pace == Pace::Baud && !self.incoming.is_empty()).then_some(next);
        }
    }

    fn push_received(&mut self, cycle: u64, character: Received) {
        if self.received.len() >= self.receiver_depth() {
            self.errors |= LSR_OVERRUN;
            if self.fifos() {
                return; // The character in the shift register is lost.
            }
            self.received.clear(); // The old character is overwritten.
        }
        let byte = character.byte & (0xff >> (3 - (self.lcr & 3)));
        self.received.push_back(Received { byte, ..character });
        if self.received.len() == 1 {
            self.reveal();
        }
        self.restart_time_out(cycle);
    }

    /// The errors of the character at the top of the FIFO show in LSR.
    fn reveal(&mut self) {
        if let Some(top) = self.received.front_mut() {
            self.errors |= std::mem::take(&mut top.errors);
        }
    }

    fn take_received(&mut self, cycle: u64) -> u8 {
        let Some(character) = self.received.pop_front() else { return 0 };
        self.reveal();
        self.timed_out = false;
        self.restart_time_out(cycle);
        character.byte
    }

    /// Four character times after the last character came or was read, if any is left.
    fn restart_time_out(&mut self, cycle: u64) {
        let waits = self.fifos() && !self.received.is_empty() && !self.timed_out;
        self.time_out_at = waits.then(|| cycle.saturating_add(4 * self.character_cycles()));
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "uart16550"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        let State { modem, incoming, outgoing, .. } = std::mem::replace(&mut self.state, power_on(ModemInputs::OPEN));
        self.state = State { incoming, outgoing, ..power_on(modem) };
        self.drive();
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if range != 0 || offset > 7 {
            return Err(IoError::NoSuchRegister);
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        self.advance(cx.now);
        let value = self.read_register(cx.now, offset);
        self.drive();
        Ok(u32::from(value))
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if range != 0 || offset > 7 {
            return Err(IoError::NoSuchRegister);
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        self.advance(cx.now);
        self.write_register(cx.now, offset, value as u8);
        self.advance(cx.now);
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        let state = &self.state;
        let has_room = state.mcr & MCR_LOOP == 0 && state.received.len() < state.receiver_depth();
        // A state that was restored may name an arrival of nothing.
        let can_arrive = has_room && !state.incoming.is_empty();
        let arrival = state.arrival.filter(|_| can_arrive);
        let done = state.shifting.map(|(_, done)| done);
        [state.time_out_at, arrival, done].into_iter().flatten().min().map(|cycle| CLOCK.tick_of(cycle))
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx.now);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        if state.received.len() > FIFO_DEPTH || state.to_send.len() > FIFO_DEPTH {
            return Err(StateError { device: self.name(), reason: "FIFOs hold at most 16 characters".into() });
        }
        self.state = state;
        self.drive();
        Ok(())
    }
}
