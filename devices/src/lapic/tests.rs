//! The local APIC against its manual, by tables.

use super::*;
use crate::apic::BROADCAST;
use crate::testing::{Place, check_places};
use Trigger::{Edge, Level};
use proptest::prelude::*;

const TPR: u64 = 0x80;
const PPR: u64 = 0xA0;
const EOI: u64 = 0xB0;
const LDR: u64 = 0xD0;
const DFR: u64 = 0xE0;
const SVR: u64 = 0xF0;
const ESR: u64 = 0x280;
const ICR: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const LVT_ERROR: u64 = 0x370;
const INITIAL: u64 = 0x380;
const CURRENT: u64 = 0x390;
const DIVIDE: u64 = 0x3E0;

const ENABLED: u64 = 0xFEE0_0800;
const X2APIC: u64 = 0xFEE0_0C00;

impl LocalApic {
    fn get(&mut self, now: u64, offset: u64) -> u32 {
        self.window_read(Tick(now), offset, Width::B4).unwrap() as u32
    }

    fn put(&mut self, now: u64, offset: u64, value: u32) {
        self.window_write(Tick(now), offset, Width::B4, value.into()).unwrap();
    }
}

/// A software-enabled local APIC.
fn lapic(id: u32) -> LocalApic {
    let mut lapic = LocalApic::new(Config::new(id));
    lapic.put(0, SVR, 0x1FF);
    lapic
}

fn x2apic(id: u32) -> LocalApic {
    let mut lapic = lapic(id);
    lapic.write_msr(Tick(0), IA32_APIC_BASE, X2APIC).unwrap();
    lapic
}

#[test]
fn reset_values() {
    let mut lapic = LocalApic::new(Config::new(3));
    #[rustfmt::skip]
    let table = [
        (0x20, 0x0300_0000), (0x30, 0x0105_0014), (TPR, 0), (PPR, 0), (LDR, 0), (DFR, 0xFFFF_FFFF), (SVR, 0xFF),
        (ICR, 0), (LVT_TIMER, 0x1_0000), (LVT_LINT0, 0x1_0000), (LVT_ERROR, 0x1_0000), (INITIAL, 0), (CURRENT, 0),
        (DIVIDE, 0),
    ];
    for (offset, want) in table {
        assert_eq!(lapic.get(0, offset), want, "{offset:#x}");
    }
    assert_eq!(lapic.read_msr(Tick(0), IA32_APIC_BASE), Ok(0xFEE0_0800));
    assert_eq!(LocalApic::new(Config::new(0)).read_msr(Tick(0), IA32_APIC_BASE), Ok(0xFEE0_0900));
}

#[test]
fn priority_matrix() {
    // (TPR, in service, requested) → (PPR, deliverable).
    #[rustfmt::skip]
    let table = [
        (0x00, None,       0x10, 0x00, true),
        (0x10, None,       0x1F, 0x10, false),
        (0x0F, None,       0x10, 0x0F, true),
        (0x20, None,       0x30, 0x20, true),
        (0x2F, None,       0x30, 0x2F, true),
        (0x30, None,       0x3F, 0x30, false),
        (0x00, Some(0x55), 0x5F, 0x50, false),
        (0x00, Some(0x55), 0x60, 0x50, true),
        (0x53, Some(0x51), 0x5F, 0x53, false),
        (0x63, Some(0x51), 0x70, 0x63, true),
        (0x43, Some(0x51), 0x60, 0x50, true),
        (0xFF, None,       0xFF, 0xFF, false),
    ];
    for (tpr, in_service, request, ppr, deliverable) in table {
        let mut lapic = lapic(0);
        if let Some(vector) = in_service {
            lapic.inject(vector, Edge);
            assert_eq!(lapic.acknowledge(), Some(vector));
        }
        lapic.put(0, TPR, tpr);
        lapic.inject(request, Edge);
        assert_eq!(lapic.get(0, PPR), ppr, "PPR of {tpr:#x} {in_service:?}");
        assert_eq!(lapic.pending(), deliverable, "{tpr:#x} {in_service:?} {request:#x}");
        assert_eq!(lapic.acknowledge(), Some(if deliverable { request } else { 0xFF }));
    }
}

#[test]
fn nesting_and_eoi() {
    let mut lapic = lapic(0);
    lapic.inject(0x41, Level);
    assert_eq!(lapic.acknowledge(), Some(0x41));
    lapic.inject(0x62, Edge);
    lapic.inject(0x63, Edge);
    assert_eq!(lapic.acknowledge(), Some(0x63));
    assert!(!lapic.pending(), "same class");
    lapic.put(0, EOI, 0);
    assert!(!lapic.has_output(), "an edge is not broadcast");
    assert_eq!(lapic.acknowledge(), Some(0x62));
    lapic.eoi();
    lapic.eoi();
    assert_eq!(lapic.take_eois(), [0x41]);
    lapic.eoi();
    assert!(!lapic.has_output());
    // Suppressed broadcast.
    lapic.put(0, SVR, 0x11FF);
    lapic.inject(0x41, Level);
    lapic.acknowledge();
    lapic.eoi();
    assert!(!lapic.has_output());
}

#[test]
fn irr_isr_tmr_read_back() {
    let mut lapic = lapic(0);
    for vector in [0x10, 0x3F, 0x40, 0x7F, 0x80, 0xFF] {
        lapic.inject(vector, Level);
        let (register, bit) = (u64::from(vector >> 5) << 4, 1 << (vector & 31));
        assert_eq!(lapic.get(0, 0x200 + register), bit);
        assert_eq!(lapic.get(0, 0x180 + register) & bit, bit);
        assert_eq!(lapic.acknowledge(), Some(vector));
        assert_eq!(lapic.get(0, 0x200 + register), 0);
        assert_eq!(lapic.get(0, 0x100 + register), bit);
        lapic.eoi();
        lapic.inject(vector, Edge);
        assert_eq!(lapic.get(0, 0x180 + register) & bit, 0, "TMR follows the last trigger");
        lapic.acknowledge();
        lapic.eoi();
    }
}

#[test]
fn cr8_is_the_high_half_of_tpr() {
    let mut lapic = lapic(0);
    lapic.put(0, TPR, 0x5A);
    assert_eq!(lapic.cr8(), 5);
    lapic.set_cr8(0xC);
    assert_eq!(lapic.get(0, TPR), 0xC0);
}

#[test]
fn software_disable_masks_and_refuses() {
    let mut lapic = lapic(0);
    lapic.put(0, LVT_TIMER, 0x40);
    lapic.inject(0x50, Edge);
    lapic.put(0, SVR, 0xFF);
    assert_eq!(lapic.get(0, LVT_TIMER), 0x1_0040);
    lapic.put(0, LVT_TIMER, 0x40);
    assert_eq!(lapic.get(0, LVT_TIMER), 0x1_0040, "the mask cannot be cleared");
    lapic.inject(0x60, Edge);
    assert_eq!(lapic.acknowledge(), Some(0x50), "what was accepted before stays");
    assert_eq!(lapic.acknowledge(), Some(0xFF));
    lapic.deliver(DeliveryMode::Nmi, 0, Edge);
    assert!(lapic.take_signals().nmi);
    lapic.put(0, SVR, 0x1FF);
    assert_eq!(lapic.get(0, LVT_TIMER), 0x1_0040);
}

#[test]
fn divisors() {
    for (code, divisor) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
        let mut lapic = lapic(0);
        lapic.put(0, DIVIDE, code);
        lapic.put(0, LVT_TIMER, 0x40);
        lapic.put(1000, INITIAL, 10);
        assert_eq!(lapic.next_event(), Some(Tick(1000 + 10 * divisor)), "{code}");
        assert_eq!(lapic.get(1000 + 3 * divisor - 1, CURRENT), 8);
        assert_eq!(lapic.get(1000 + 3 * divisor, CURRENT), 7);
    }
}

#[test]
fn one_shot_fires_once() {
    let mut lapic = lapic(0);
    lapic.put(0, DIVIDE, 0xB);
    lapic.put(0, LVT_TIMER, 0x40);
    lapic.put(5, INITIAL, 100);
    lapic.advance(Tick(104));
    assert!(!lapic.pending());
    assert_eq!(lapic.get(104, CURRENT), 1);
    lapic.advance(Tick(105));
    assert_eq!(lapic.acknowledge(), Some(0x40));
    lapic.eoi();
    assert_eq!((lapic.get(500, CURRENT), lapic.get(500, INITIAL), lapic.next_event()), (0, 100, None));
    assert!(!lapic.pending());
}

#[test]
fn periodic_keeps_its_phase() {
    let mut lapic = lapic(0);
    lapic.put(0, DIVIDE, 0xB);
    lapic.put(0, LVT_TIMER, 0x2_0040);
    lapic.put(7, INITIAL, 100);
    let mut fired = Vec::new();
    for now in 0..1000 {
        assert_eq!(lapic.next_event(), Some(Tick(107 + 100 * fired.len() as u64)));
        lapic.advance(Tick(now));
        if lapic.pending() {
            fired.push(now);
            lapic.acknowledge();
            lapic.eoi();
        }
    }
    assert_eq!(fired, [107, 207, 307, 407, 507, 607, 707, 807, 907]);
    // Late: one interrupt, phase kept.
    lapic.advance(Tick(5_050));
    assert_eq!(lapic.acknowledge(), Some(0x40));
    assert_eq!(lapic.next_event(), Some(Tick(5_107)));
    assert_eq!(lapic.get(5_057, CURRENT), 50);
    // Masked: the count goes on, nobody hears it, and unmasking does not bring back what was missed.
    lapic.put(5_060, LVT_TIMER, 0x3_0040);
    assert_eq!(lapic.next_event(), None);
    lapic.eoi();
    lapic.put(5_550, LVT_TIMER, 0x2_0040);
    assert!(!lapic.pending());
    assert_eq!(lapic.next_event(), Some(Tick(5_607)));
}

#[test]
fn fractional_bus_clocks_do_not_drift() {
    let mut config = Config::new(0);
    config.bus_rate = Rate::new(3, 7);
    let mut lapic = LocalApic::new(config);
    lapic.put(0, SVR, 0x1FF);
    lapic.put(0, DIVIDE, 0xB);
    lapic.put(0, LVT_TIMER, 0x2_0040);
    lapic.put(0, INITIAL, 10);
    for expiry in 1..10_000u64 {
        let due = lapic.next_event().unwrap();
        assert_eq!(due.0, (expiry * 70).div_ceil(3));
        lapic.advance(due);
    }
}

#[test]
fn changing_the_divider_keeps_the_count() {
    let mut lapic = lapic(0);
    lapic.put(0, DIVIDE, 0xB);
    lapic.put(0, LVT_TIMER, 0x40);
    lapic.put(0, INITIAL, 100);
    lapic.put(40, DIVIDE, 1); // by 4
    assert_eq!(lapic.get(40, CURRENT), 60);
    assert_eq!(lapic.next_event(), Some(Tick(40 + 240)));
}

#[test]
fn tsc_deadline() {
    let mut lapic = lapic(0);
    let deadline = |lapic: &mut LocalApic, now, value| lapic.write_msr(Tick(now), IA32_TSC_DEADLINE, value).unwrap();
    deadline(&mut lapic, 0, 500);
    assert_eq!(lapic.read_msr(Tick(0), IA32_TSC_DEADLINE), Ok(0), "not in deadline mode");
    lapic.set_tsc_offset(Tick(0), 1000);
    lapic.put(0, LVT_TIMER, 0x4_0040);
    lapic.put(0, INITIAL, 100);
    assert_eq!((lapic.get(0, INITIAL), lapic.get(0, CURRENT)), (0, 0), "the counter is not used in deadline mode");
    deadline(&mut lapic, 10, 1500);
    assert_eq!(lapic.next_event(), Some(Tick(500)));
    lapic.set_tsc_offset(Tick(20), 1100);
    assert_eq!(lapic.next_event(), Some(Tick(400)));
    lapic.advance(Tick(399));
    assert_eq!(lapic.read_msr(Tick(399), IA32_TSC_DEADLINE), Ok(1500));
    lapic.advance(Tick(400));
    assert_eq!((lapic.acknowledge(), lapic.read_msr(Tick(400), IA32_TSC_DEADLINE)), (Some(0x40), Ok(0)));
    lapic.eoi();
    // In the past: at once. Zero: disarmed. Far away: never, without a panic.
    deadline(&mut lapic, 1000, 1);
    assert_eq!(lapic.acknowledge(), Some(0x40));
    lapic.eoi();
    deadline(&mut lapic, 1000, 9999);
    deadline(&mut lapic, 1000, 0);
    assert_eq!(lapic.next_event(), None);
    deadline(&mut lapic, 1000, u64::MAX);
    assert!(!lapic.pending());
    // Leaving the mode disarms.
    deadline(&mut lapic, 1000, 9999);
    lapic.put(1000, LVT_TIMER, 0x40);
    assert_eq!(lapic.next_event(), None);
}

#[test]
fn destination_matching() {
    use DestinationMode::{Logical, Physical};
    // (DFR model, LDR, destination, mode) → accepted by xAPIC ID 5.
    #[rustfmt::skip]
    let table = [
        (0xF, 0x00, 5,         Physical, true),
        (0xF, 0x00, 4,         Physical, false),
        (0xF, 0x00, 0xFF,      Physical, false), // senders widen FFh
        (0xF, 0x00, BROADCAST, Physical, true),
        (0xF, 0x20, 0x21,      Logical,  true),
        (0xF, 0x20, 0x1F,      Logical,  false),
        (0xF, 0x20, 0xFF,      Logical,  true),
        (0xF, 0x20, 0x120,     Logical,  false),
        (0x0, 0x42, 0x42,      Logical,  true),
        (0x0, 0x42, 0x4D,      Logical,  false),
        (0x0, 0x42, 0x32,      Logical,  false),
        (0x0, 0x42, 0x4F,      Logical,  true),
        (0x0, 0x42, 0xFF,      Logical,  true),
        (0x0, 0x42, BROADCAST, Logical,  true),
    ];
    for (model, ldr, destination, mode, want) in table {
        let mut lapic = lapic(5);
        lapic.put(0, DFR, model << 28 | 0x0FFF_FFFF);
        lapic.put(0, LDR, ldr << 24);
        assert_eq!(lapic.accepts(destination, mode), want, "{model:x} {ldr:#x} {destination:#x} {mode:?}");
    }
    #[rustfmt::skip]
    let table = [
        (0x25, 0x25,        Physical, true),
        (0x25, 0xFF,        Physical, false),
        (0x25, BROADCAST,   Physical, true),
        (0x25, 0x0002_0020, Logical,  true),
        (0x25, 0x0002_0010, Logical,  false),
        (0x25, 0x0001_0020, Logical,  false),
        (0x05, 0x0000_0020, Logical,  true),
        (0x1_0001, 0x1000_0002, Logical, true),
        (0x25, BROADCAST,   Logical,  true),
    ];
    for (id, destination, mode, want) in table {
        assert_eq!(x2apic(id).accepts(destination, mode), want, "{id:#x} {destination:#x} {mode:?}");
    }
    let mut off = lapic(5);
    off.write_msr(Tick(0), IA32_APIC_BASE, 0xFEE0_0000).unwrap();
    assert!(!off.accepts(BROADCAST, Physical));
}

#[test]
fn icr_sends() {
    let to = |destination| IpiTarget::Matching { destination, mode: DestinationMode::Physical };
    let logical = |destination| IpiTarget::Matching { destination, mode: DestinationMode::Logical };
    use DeliveryMode::*;
    let (all, others) = (IpiTarget::Everyone, IpiTarget::Others);
    #[rustfmt::skip]
    let table = [
        (0x02, 0x0000_4041, Some((to(2), Fixed, 0x41))),
        (0xFF, 0x0000_0041, Some((to(BROADCAST), Fixed, 0x41))),
        (0xFF, 0x0000_0841, Some((logical(0xFF), Fixed, 0x41))),
        (0x03, 0x0000_0941, Some((logical(3), LowestPriority, 0x41))),
        (0x01, 0x0000_0400, Some((to(1), Nmi, 0))),
        (0x01, 0x0000_0200, Some((to(1), Smi, 0))),
        (0x01, 0x0000_C500, Some((to(1), Init, 0))),
        (0x01, 0x0000_4500, Some((to(1), Init, 0))),
        (0x01, 0x0000_8500, None),                       // INIT level de-assert
        (0x01, 0x0000_4608, Some((to(1), StartUp, 8))),
        (0x01, 0x0000_0341, None),                       // reserved
        (0x01, 0x0000_0741, None),                       // ExtINT is not for ICR
        (0x00, 0x0008_0041, Some((all, Fixed, 0x41))),
        (0x00, 0x0008_0500, None),                       // all including self is for fixed only
        (0x00, 0x000C_4500, Some((others, Init, 0))),
        (0x00, 0x000C_4608, Some((others, StartUp, 8))),
        (0x00, 0x000C_0141, Some((others, LowestPriority, 0x41))),
        (0x00, 0x0004_0400, None),                       // self is for fixed only
        (0x00, 0x0000_0005, None),                       // illegal vector
    ];
    for (high, low, want) in table {
        let mut lapic = lapic(0);
        lapic.put(0, ICR_HIGH, high << 24);
        lapic.put(0, ICR, low);
        let want: Vec<Ipi> =
            want.map(|(target, delivery, vector)| Ipi { target, delivery, vector }).into_iter().collect();
        assert_eq!(lapic.take_ipis(), want, "{high:#x} {low:#x}");
        assert_eq!(lapic.get(0, ICR), low);
    }
    let mut lapic = lapic(0);
    lapic.put(0, ICR, 0x4_0041);
    assert_eq!((lapic.take_ipis(), lapic.acknowledge()), (vec![], Some(0x41)), "self comes at once");
    let mut lapic = x2apic(0);
    lapic.write_msr(Tick(0), 0x830, 0x1234_0000_0041).unwrap();
    assert_eq!(lapic.take_ipis(), [Ipi { target: to(0x1234), delivery: Fixed, vector: 0x41 }]);
    assert_eq!(lapic.read_msr(Tick(0), 0x830), Ok(0x1234_0000_0041));
    lapic.write_msr(Tick(0), 0x83F, 0x77).unwrap();
    assert_eq!(lapic.acknowledge(), Some(0x77));
}

#[test]
fn errors_latch_on_write() {
    let mut lapic = lapic(0);
    lapic.put(0, LVT_ERROR, 0xE0);
    lapic.put(0, ICR, 0x05);
    assert_eq!(lapic.acknowledge(), Some(0xE0));
    assert_eq!(lapic.get(0, ESR), 0, "not latched yet");
    lapic.inject(3, Edge);
    assert_eq!(lapic.get(0, 0x3F0), 0, "no such register in xAPIC mode");
    lapic.put(0, ESR, 0);
    assert_eq!(lapic.get(0, ESR), 0xE0);
    lapic.put(0, ESR, 0);
    assert_eq!(lapic.get(0, ESR), 0);
    lapic.put(0, LVT_ERROR, 0x05);
    lapic.inject(3, Edge);
    lapic.put(0, ESR, 0);
    assert_eq!(lapic.get(0, ESR), 0x40, "an illegal error vector does not recurse");
}

#[test]
fn base_mode_transitions() {
    // From (disabled, xAPIC, x2APIC) by writing the value: allowed?
    const OFF: u64 = 0xFEE0_0000;
    #[rustfmt::skip]
    let table = [
        (OFF,     OFF,      true), (OFF,     ENABLED, true),  (OFF,     X2APIC, false), (OFF,     OFF | 0x400, false),
        (ENABLED, OFF,      true), (ENABLED, ENABLED, true),  (ENABLED, X2APIC, true),  (ENABLED, OFF | 0x400, false),
        (X2APIC,  OFF,      true), (X2APIC,  ENABLED, false), (X2APIC,  X2APIC, true),  (X2APIC,  OFF | 0x400, false),
        (ENABLED, ENABLED | 1, false), (ENABLED, ENABLED | 0x200, false), (ENABLED, ENABLED | 1 << 40, false),
        (ENABLED, 0xFF_0000_0800, true), (ENABLED, ENABLED | 0x100, true),
    ];
    for (from, to, allowed) in table {
        let mut lapic = lapic(1);
        lapic.write_msr(Tick(0), IA32_APIC_BASE, from).unwrap();
        let result = lapic.write_msr(Tick(0), IA32_APIC_BASE, to);
        assert_eq!(result.is_ok(), allowed, "{from:#x} → {to:#x}");
        let now = if allowed { to & !0x100 } else { from };
        assert_eq!(lapic.read_msr(Tick(0), IA32_APIC_BASE), Ok(now));
    }
    let mut old =
        LocalApic::new(Config { features: Features { x2apic: false, tsc_deadline: false }, ..Config::new(0) });
    assert_eq!(old.write_msr(Tick(0), IA32_APIC_BASE, X2APIC), Err(MsrFault));
    assert_eq!(old.write_msr(Tick(0), IA32_TSC_DEADLINE, 1), Err(MsrFault));
}

#[test]
fn disabling_resets_and_frees_the_pins() {
    let mut lapic = lapic(0);
    lapic.inject(0x50, Edge);
    lapic.write_msr(Tick(0), IA32_APIC_BASE, 0xFEE0_0000).unwrap();
    assert!(!lapic.pending());
    assert_eq!((lapic.acknowledge(), lapic.window()), (None, None));
    assert_eq!(lapic.window_read(Tick(0), 0x20, Width::B4), Err(IoError::NoSuchRegister));
    lapic.set_lint(Lint::Lint0, true);
    lapic.set_lint(Lint::Lint1, true);
    assert!(lapic.ext_int() && lapic.take_signals().nmi);
    lapic.write_msr(Tick(0), IA32_APIC_BASE, ENABLED).unwrap();
    assert!(!lapic.ext_int());
    assert_eq!((lapic.get(0, SVR), lapic.window()), (0xFF, Some(umbra_mmu::addr::GuestPhys(0xFEE0_0000))));
}

#[test]
fn x2apic_msr_rules() {
    // (MSR, value to write) → (readable, writable).
    #[rustfmt::skip]
    let table = [
        (0x800, 0, false, false), (0x801, 0, false, false), (0x802, 0, true, false), (0x803, 0, true, false),
        (0x808, 0x1F, true, true), (0x808, 0x100, true, false), (0x809, 0, false, false), (0x80A, 0, true, false),
        (0x80B, 0, false, true), (0x80B, 1, false, false), (0x80C, 0, false, false), (0x80D, 0, true, false),
        (0x80E, 0, false, false), (0x80F, 0x13FF, true, true), (0x80F, 0x2000, true, false),
        (0x810, 0, true, false), (0x817, 0, true, false), (0x818, 0, true, false), (0x827, 0, true, false),
        (0x828, 0, true, true), (0x828, 1, true, false), (0x82F, 0, false, false),
        (0x830, 0x1_000C_4041, true, true), (0x830, 1 << 13, true, false), (0x830, 1 << 20, true, false),
        (0x831, 0, false, false),
        (0x832, 0x7_00FF, true, true), (0x832, 0x100, true, false), (0x832, 1 << 19, true, false),
        (0x833, 0x1_07FF, true, true), (0x833, 0x2000, true, false), (0x834, 0x1_07FF, true, true),
        (0x835, 0x1_A7FF, true, true), (0x835, 0x2_0000, true, false), (0x836, 0x1_A7FF, true, true),
        (0x837, 0x1_00FF, true, true), (0x837, 0x400, true, false),
        (0x838, 0xFFFF_FFFF, true, true), (0x838, 1 << 32, true, false), (0x839, 0, true, false),
        (0x83E, 0xB, true, true), (0x83E, 4, true, false), (0x83F, 0xFF, false, true), (0x83F, 0x100, false, false),
        (0x840, 0, false, false), (0x8FF, 0, false, false),
    ];
    for (msr, value, readable, writable) in table {
        let mut x2 = x2apic(2);
        assert_eq!(x2.read_msr(Tick(0), msr).is_ok(), readable, "read {msr:#x}");
        assert_eq!(x2.write_msr(Tick(0), msr, value).is_ok(), writable, "write {msr:#x} {value:#x}");
        let mut x1 = lapic(2);
        assert!(x1.read_msr(Tick(0), msr).is_err() && x1.write_msr(Tick(0), msr, value).is_err());
    }
    assert_eq!(x2apic(0x25).read_msr(Tick(0), 0x802), Ok(0x25));
    assert_eq!(x2apic(0x25).read_msr(Tick(0), 0x80D), Ok(0x2_0020));
}

#[test]
fn lint0_virtual_wire_and_level() {
    let mut lapic = lapic(0);
    lapic.set_lint(Lint::Lint0, true);
    assert!(!lapic.ext_int(), "masked after reset");
    lapic.enter_virtual_wire();
    assert!(lapic.ext_int() && !lapic.pending());
    lapic.set_lint(Lint::Lint0, false);
    assert!(!lapic.ext_int());
    lapic.set_lint(Lint::Lint1, true);
    assert!(lapic.take_signals().nmi);
    // Fixed, level: interrupts again after EOI while it is asserted.
    lapic.put(0, LVT_LINT0, 0x8045);
    lapic.set_lint(Lint::Lint0, true);
    assert_eq!(lapic.get(0, LVT_LINT0), 0xC045);
    assert_eq!(lapic.acknowledge(), Some(0x45));
    lapic.eoi();
    assert_eq!(lapic.acknowledge(), Some(0x45));
    lapic.set_lint(Lint::Lint0, false);
    lapic.eoi();
    assert!(!lapic.pending());
    assert_eq!(lapic.get(0, LVT_LINT0), 0x8045);
    lapic.deliver(DeliveryMode::ExtInt, 0, Edge);
    assert!(lapic.ext_int());
    lapic.acknowledge_ext_int();
    assert!(!lapic.ext_int());
}

#[test]
fn init_and_start_up() {
    let mut lapic = lapic(1);
    lapic.inject(0x50, Edge);
    lapic.deliver(DeliveryMode::StartUp, 0x12, Edge);
    lapic.deliver(DeliveryMode::Init, 0, Edge);
    lapic.deliver(DeliveryMode::StartUp, 0x9A, Edge);
    assert!(!lapic.pending());
    assert_eq!(lapic.take_signals(), Signals { init: true, start_up: Some(0x9A), ..Signals::default() });
    assert!(!lapic.has_signals());
    let mut lapic = x2apic(1);
    lapic.deliver(DeliveryMode::Init, 0, Edge);
    assert!(lapic.is_x2apic(), "IA32_APIC_BASE outlives INIT");
}

#[test]
fn performance_counters_mask_their_entry() {
    let mut lapic = lapic(0);
    lapic.put(0, 0x340, 0x400);
    lapic.raise(LocalSource::Performance);
    assert!(lapic.take_signals().nmi);
    assert_eq!(lapic.get(0, 0x340), 0x1_0400);
    lapic.put(0, 0x330, 0x55);
    lapic.raise(LocalSource::Thermal);
    assert_eq!(lapic.acknowledge(), Some(0x55));
}

#[test]
fn widths() {
    let mut lapic = lapic(7);
    let read = |lapic: &mut LocalApic, offset, width| lapic.window_read(Tick(0), offset, width);
    assert_eq!(read(&mut lapic, 0x23, Width::B1), Ok(7));
    assert_eq!(read(&mut lapic, 0x20, Width::B8), Ok(0x0700_0000));
    assert_eq!(read(&mut lapic, 0x24, Width::B4), Err(IoError::BadWidth));
    assert_eq!(read(&mut lapic, 0x1000, Width::B4), Err(IoError::NoSuchRegister));
    assert_eq!(lapic.window_write(Tick(0), 0x80, Width::B1, 1), Err(IoError::BadWidth));
}

#[test]
fn any_sequence() {
    let registers =
        [TPR, EOI, LDR, DFR, SVR, ESR, ICR, ICR_HIGH, LVT_TIMER, LVT_LINT0, LVT_ERROR, INITIAL, CURRENT, DIVIDE];
    check_places(|| lapic(0), &registers.map(|offset| Place::Mmio(0, offset)));
}

/// Something that happens to a local APIC from any side.
#[derive(Clone, Debug)]
enum Act {
    Msr(u32, u64),
    Inject(u8, bool),
    Deliver(u32, u8),
    Lint(bool, bool),
    Register(u8, u32),
    Pass(u64),
    Acknowledge,
    Eoi,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (
            prop_oneof![Just(IA32_APIC_BASE), Just(IA32_TSC_DEADLINE), 0x800u32..0x840],
            prop_oneof![0u64..0x2_0000, any::<u64>()]
        )
            .prop_map(|(msr, value)| Act::Msr(msr, value)),
        prop_oneof![Just(ENABLED), Just(X2APIC), Just(0u64)].prop_map(|base| Act::Msr(IA32_APIC_BASE, base)),
        any::<(u8, bool)>().prop_map(|(vector, level)| Act::Inject(vector, level)),
        any::<(u32, u8)>().prop_map(|(mode, vector)| Act::Deliver(mode, vector)),
        any::<(bool, bool)>().prop_map(|(pin, high)| Act::Lint(pin, high)),
        (0u8..0x40, any::<u32>()).prop_map(|(register, value)| Act::Register(register, value)),
        (0u32..63).prop_map(|shift| Act::Pass(1 << shift)),
        Just(Act::Acknowledge),
        Just(Act::Eoi),
    ]
}

#[test]
fn nothing_from_any_side_breaks_it() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) };
    proptest!(config, |(acts in proptest::collection::vec(act(), 0..200))| {
        let mut lapic = lapic(0);
        let mut now = Tick(0);
        for act in acts {
            match act {
                Act::Msr(msr, value) => {
                    let _ = lapic.write_msr(now, msr, value);
                    let _ = lapic.read_msr(now, msr);
                }
                Act::Inject(vector, level) => lapic.inject(vector, Trigger::from_bit(u64::from(level), 1)),
                Act::Deliver(mode, vector) => {
                    if let Some(mode) = DeliveryMode::from_bits(mode) {
                        lapic.deliver(mode, vector, Edge);
                    }
                }
                Act::Lint(pin, high) => lapic.set_lint(if pin { Lint::Lint1 } else { Lint::Lint0 }, high),
                Act::Register(register, value) => {
                    let _ = lapic.window_write(now, u64::from(register) << 4, Width::B4, value.into());
                    let _ = lapic.window_read(now, u64::from(register) << 4, Width::B4);
                }
                Act::Pass(ns) => now = now.after(ns),
                Act::Acknowledge => {
                    let (pending, ppr) = (lapic.pending(), lapic.ppr());
                    match lapic.acknowledge() {
                        Some(vector) if pending => prop_assert!(vector >> 4 > ppr >> 4 && lapic.ppr() >= vector & 0xF0),
                        other => prop_assert!(!pending && other.is_none_or(|vector| vector == lapic.state.svr as u8)),
                    }
                }
                Act::Eoi => lapic.eoi(),
            }
            lapic.advance(now);
            prop_assert!(lapic.next_event().is_none_or(|next| next > now || now.0 > u64::MAX / 2));
            let saved = lapic.save();
            let mut twin = LocalApic::new(Config::new(0));
            twin.restore(&saved).expect("own state");
            prop_assert_eq!(&twin.state, &lapic.state);
        }
    });
}
