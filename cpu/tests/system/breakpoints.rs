//! Breakpoints: the guest's on data and ports (SDM vol. 3, 18.2), a debugger's watchpoints.

use crate::bench::{Guest, HANDLERS, STACK0};
use umbra_cpu::Exit;
use umbra_cpu::debug::{WatchFor, Watchpoint};
use umbra_cpu::state::control::cr4;
use umbra_cpu::state::slots;
use umbra_mmu::attention::bits;

const DATA: u64 = 0x4000;
const HANDLER_DB: u64 = HANDLERS + 16;

/// mov eax, [4000h]; mov [4004h], eax; inc dword [4008h]; nop; nop
#[rustfmt::skip]
const ACCESSES: &[u8] = &[
    0xA1, 0x00, 0x40, 0, 0, 0xA3, 0x04, 0x40, 0, 0, 0xFF, 0x05, 0x08, 0x40, 0, 0, 0x90, 0x90,
];

/// Where in [`ACCESSES`] each instruction ends.
const AFTER: [u64; 3] = [5, 10, 16];

fn watch(at: u64, len: u64, sees: WatchFor) -> Watchpoint {
    Watchpoint { linear: DATA + at, len, sees }
}

#[test]
fn a_watchpoint_stops_after_the_access_and_nothing_else_does() {
    use WatchFor::{Both, Reads, Writes};
    #[rustfmt::skip]
    let cases = [
        (watch(0, 4, Reads), Some(0)), (watch(0, 4, Both), Some(0)), (watch(0, 4, Writes), None),
        (watch(3, 1, Reads), Some(0)), (watch(4, 4, Writes), Some(1)), (watch(4, 4, Reads), None),
        (watch(7, 1, Both), Some(1)),  (watch(8, 4, Writes), Some(2)), (watch(8, 4, Reads), Some(2)),
        (watch(12, 64, Both), None),   (watch(11, 5000, Writes), Some(2)),
    ];
    for (watchpoint, stop) in cases {
        let mut guest = Guest::protected(ACCESSES);
        let start = guest.cpu.state.rip;
        // Translations that were made before are no way around it.
        guest.step(3);
        guest.edit(|state| state.rip = start);
        guest.cpu.watch(watchpoint);
        let exit = guest.cpu.run(5);
        match stop {
            Some(n) => {
                assert_eq!(exit, Exit::Debug, "{watchpoint:?}");
                assert_eq!(guest.cpu.state.rip, start + AFTER[n], "{watchpoint:?}");
                assert_eq!(guest.cpu.link.debugger.take_hit(), Some(watchpoint));
                let left = 4 - n as u64;
                assert_eq!(guest.cpu.run(left), Exit::BudgetSpent, "{watchpoint:?} goes on");
            }
            None => assert_eq!(exit, Exit::BudgetSpent, "{watchpoint:?}"),
        }
        assert_eq!(guest.cpu.state.rip, start + ACCESSES.len() as u64);
        guest.edit(|state| state.rip = start);
        guest.cpu.unwatch(watchpoint);
        assert_eq!(guest.cpu.run(5), Exit::BudgetSpent, "{watchpoint:?} is gone");
        assert_eq!(guest.dword(DATA + 8), 3);
    }
}

#[test]
fn a_watched_rep_stops_after_its_element() {
    // rep stosd; nop
    let mut guest = Guest::protected(&[0xF3, 0xAB, 0x90]);
    guest.edit(|state| {
        state.set_gpr(slots::RDI, DATA);
        state.set_gpr(slots::RCX, 100);
    });
    guest.cpu.watch(watch(40, 4, WatchFor::Writes));
    assert_eq!(guest.cpu.run(1000), Exit::Debug);
    assert_eq!((guest.gpr(slots::RCX), guest.gpr(slots::RDI)), (89, DATA + 44));
    assert_eq!(guest.cpu.run(89), Exit::BudgetSpent);
    assert_eq!((guest.gpr(slots::RCX), guest.cpu.state.retired), (0, 100));
}

#[test]
fn a_fault_after_a_hit_leaves_no_trap() {
    // push dword [4000h], where the stack is not to be written: a read breakpoint is hit, then the push faults.
    let mut guest = Guest::protected(&[0xFF, 0x35, 0, 0x40, 0, 0]);
    guest.handlers();
    guest.write(HANDLERS + 16 * 12, &[0x90, 0x90]);
    guest.edit(|state| {
        state.dr[0] = DATA;
        state.dr[7] = 0x400 | 0x000F_0002;
        state.seg[2].limit = 0x5FFF;
        state.set_gpr(slots::RSP, 0x6FFC);
        state.seg[2].rights = 0xC093 & !0x8000;
    });
    let (vector, _) = guest.fault();
    assert_eq!(vector, 12);
    assert_eq!((guest.cpu.state.pending_debug, guest.cpu.state.dr[6] & 15), (0, 0));
}

#[test]
fn a_breakpoint_on_a_port_traps_after_the_access() {
    // in al, 61h; nop; out 62h, al; nop
    let code = [0xE4, 0x61, 0x90, 0xE6, 0x62, 0x90];
    for (port, de, stop) in [(0x61, cr4::DE, Some(2)), (0x62, cr4::DE, Some(5)), (0x60, cr4::DE, None), (0x61, 0, None)]
    {
        let mut guest = Guest::protected(&code);
        guest.handlers();
        guest.write(HANDLER_DB, &[0xF4]);
        let start = guest.cpu.state.rip;
        guest.edit(|state| {
            state.control.cr4 |= de;
            state.dr[1] = port;
            state.dr[7] = 0x400 | 2 << 20 | 8;
        });
        guest.cpu.run(4);
        match stop {
            Some(length) => {
                assert_eq!(guest.cpu.state.dr[6] & 15, 2, "port {port:#x}");
                assert_eq!(u64::from(guest.dword(guest.rsp())), start + length, "port {port:#x}");
            }
            None => assert_eq!(guest.cpu.state.rip, start + 6, "port {port:#x}"),
        }
    }
}

#[test]
fn an_endless_stream_of_exceptions_comes_to_the_end_of_its_budget() {
    // ud2, and a handler that is ud2: the stack pointer goes round for ever.
    let mut guest = Guest::real(&[0x0F, 0x0B]);
    guest.put(4 * 6, 0x9000u32);
    guest.write(0x9000, &[0x0F, 0x0B]);
    guest.edit(|state| state.seg[2].base = 0x5_0000);
    assert_eq!(guest.cpu.run(100_000), Exit::BudgetSpent);
    assert_eq!((guest.cpu.state.retired, guest.cpu.state.rip), (100_000, 0x9000));
}

#[test]
fn a_watched_frame_traps_before_the_handler() {
    let mut guest = Guest::protected(&[0x90, 0x90]);
    guest.handlers();
    // Both handlers: nop; nop.
    for vector in [1, 2] {
        guest.write(HANDLERS + 16 * vector, &[0x90, 0x90]);
    }
    guest.edit(|state| {
        state.dr[0] = STACK0 - 4;
        state.dr[7] = 0x400 | 0xd_0000 | 1;
    });
    guest.cpu.link.attention.set(bits::NMI);
    guest.step(1);
    assert_eq!(guest.at().1, HANDLERS + 16 + 1);
    assert_eq!(u64::from(guest.dword(STACK0 - 24)), HANDLERS + 32, "the NMI's handler has not begun");
    assert_eq!(guest.cpu.state.dr[6] & 15, 1);
}
