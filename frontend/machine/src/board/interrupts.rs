//! How interrupts travel: wires to the 8259s and the I/O APIC, messages to the local APICs, and what each vCPU is told.
//!
//! After every call into a device the board settles: it carries changes and messages until nothing moves any more, then
//! brings each vCPU's attention word up to date. The 8259s' INTR goes to LINT0 of every local APIC (which passes it on in
//! virtual-wire mode or while it is disabled), NMI sources to LINT1.

use super::{Board, VcpuPins};
use crate::wiring::{self, Pin};
use umbra_devices::apic::{ApicMessage, DeliveryMode, DestinationMode, Trigger};
use umbra_devices::lapic::{Ipi, IpiTarget, Lint};
use umbra_devices::wire::PinChange;
use umbra_mmu::attention::bits;

/// Rounds of carrying after which a loop of devices that answer each other is cut; the rest waits for the next call.
const MAX_ROUNDS: usize = 64;

impl Board {
    /// Carries wires and messages until nothing moves, then tells the vCPUs.
    pub(super) fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            if self.wires.has_changes() {
                moved = true;
                for change in self.wires.take_changes() {
                    self.route(change);
                }
            }
            if self.chips.ioapic.has_messages() {
                moved = true;
                for message in self.chips.ioapic.take_messages() {
                    self.deliver_message(&message);
                }
            }
            for sender in 0..self.vcpus.len() {
                if !self.vcpus[sender].lapic.has_output() {
                    continue;
                }
                moved = true;
                for ipi in self.vcpus[sender].lapic.take_ipis() {
                    self.deliver_ipi(sender, ipi);
                }
                for vector in self.vcpus[sender].lapic.take_eois() {
                    self.chips.ioapic.eoi(vector);
                }
            }
            if !moved {
                break;
            }
        }
        let intr = self.chips.pic.output();
        for pins in &mut self.vcpus {
            pins.lapic.set_lint(Lint::Lint0, intr);
            pins.tell();
        }
    }

    /// A wire's new level goes to whatever it leads to (the table is in [`wiring`]).
    fn route(&mut self, PinChange { pin, high }: PinChange) {
        match wiring::pin(pin) {
            Pin::Isa(irq) => self.set_isa(irq, high),
            Pin::Timer(timer) if !self.hpet_stands_in => self.set_timer(timer, high),
            Pin::HpetTimer(timer) if self.hpet_stands_in => self.set_timer(timer, high),
            Pin::Timer(_) | Pin::HpetTimer(_) => {}
            Pin::IoApic(input) => self.chips.ioapic.set_input(input, high),
            Pin::Pirq(line) => {
                if let Some(bridge) = self.chips.isa_bridge() {
                    bridge.set_pirq(line, high);
                }
                self.chips.ioapic.set_input(wiring::PIRQ_IOAPIC[usize::from(line & 3)], high);
            }
            Pin::Nmi => self.vcpus.iter_mut().for_each(|pins| pins.lapic.set_lint(Lint::Lint1, high)),
            Pin::A20 => self.memory.set_a20(high),
            Pin::Reset if high => self.request(super::Request::Reset),
            Pin::Reset | Pin::None => {}
        }
    }

    fn set_isa(&mut self, irq: u8, high: bool) {
        self.chips.pic.set_input(irq, high);
        if let Some(input) = wiring::ioapic_input(irq) {
            self.chips.ioapic.set_input(input, high);
        }
    }
    fn set_timer(&mut self, timer: u8, high: bool) {
        if let Some(&irq) = wiring::TIMER_IRQS.get(usize::from(timer)) {
            self.set_isa(irq, high);
        }
    }
    /// Connects the timer requests to the HPET or to the 8254 and the real-time clock, as the HPET now says.
    pub(super) fn connect_timers(&mut self) {
        let stands_in = self.chips.hpet.legacy_replacement();
        if stands_in == self.hpet_stands_in {
            return;
        }
        self.hpet_stands_in = stands_in;
        let pins = if stands_in { wiring::HPET_LEGACY_PINS } else { [wiring::PIT_PIN, wiring::RTC_PIN] };
        for (timer, pin) in (0..).zip(pins) {
            self.set_timer(timer, self.wires.level(pin));
        }
    }

    /// Gives a message to every local APIC that it is for.
    pub(super) fn deliver_message(&mut self, message: &ApicMessage) {
        let ApicMessage { destination, destination_mode, delivery, vector, trigger } = *message;
        self.deliver(delivery, vector, trigger, |_, pins| pins.lapic.accepts(destination, destination_mode));
    }

    fn deliver_ipi(&mut self, sender: usize, Ipi { target, delivery, vector }: Ipi) {
        let for_whom = |number: usize, pins: &VcpuPins| match target {
            IpiTarget::Matching { destination, mode } => pins.lapic.accepts(destination, mode),
            IpiTarget::Everyone => pins.lapic.accepts(u32::MAX, DestinationMode::Physical),
            IpiTarget::Others => number != sender && pins.lapic.accepts(u32::MAX, DestinationMode::Physical),
        };
        self.deliver(delivery, vector, Trigger::Edge, for_whom);
    }

    fn deliver(
        &mut self,
        delivery: DeliveryMode,
        vector: u8,
        trigger: Trigger,
        for_whom: impl Fn(usize, &VcpuPins) -> bool,
    ) {
        let receivers = self.vcpus.iter_mut().enumerate().filter(|(number, pins)| for_whom(*number, pins));
        if delivery == DeliveryMode::LowestPriority {
            let best = receivers
                .filter(|(_, pins)| pins.lapic.takes_interrupts())
                .min_by_key(|(_, pins)| pins.lapic.arbitration_priority());
            if let Some((_, pins)) = best {
                pins.lapic.deliver(delivery, vector, trigger);
            }
            return;
        }
        receivers.for_each(|(_, pins)| pins.lapic.deliver(delivery, vector, trigger));
    }
}

impl VcpuPins {
    /// Brings the attention word up to date and wakes the vCPU if there is something new.
    fn tell(&mut self) {
        let mut news = 0;
        if self.lapic.has_signals() {
            let signals = self.lapic.take_signals();
            if signals.init {
                news |= bits::INIT;
            }
            if let Some(vector) = signals.start_up {
                self.start_up = vector;
                news |= bits::SIPI;
            }
            if signals.nmi {
                news |= bits::NMI;
            }
        }
        let told = self.attention.get();
        if self.lapic.pending() || self.lapic.ext_int() {
            news |= bits::INTR & !told;
        } else if told & bits::INTR != 0 {
            self.attention.clear(bits::INTR);
        }
        if news != 0 {
            self.alert(news);
        }
    }

    /// Sets bits in the attention word and wakes the vCPU.
    pub(super) fn alert(&self, news: u32) {
        self.attention.set(news);
        self.gate.wake();
    }
}
