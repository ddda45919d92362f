//! FXSAVE, FXRSTOR and the XSAVE family.

use super::bench::*;
use umbra_cpu::state::control::cr4;
use umbra_cpu::state::fpu::St;
use umbra_cpu::state::slots;

fn with_state(code: &[u8]) -> Guest {
    let mut guest = Guest::long(code);
    guest.edit(|s| {
        s.control.cr4 |= cr4::OSXSAVE;
        s.control.xcr0 = 3;
        s.fpu.cw = 0x27f;
        s.fpu.sw = 0x3800;
        s.fpu.tags = 0x80;
        s.fpu.regs = std::array::from_fn(|n| St { significand: n as u64, sign_exponent: 0x3fff });
        for n in 0..16u64 {
            s.vectors.regs[n as usize] = [n + 1, n << 32, 7, 7];
        }
        s.vectors.mxcsr = 0x1fa0;
        s.set_gpr(slots::RAX, u64::MAX);
        s.set_gpr(slots::RDX, u64::MAX);
        s.set_gpr(slots::RDI, 0x20000);
    });
    guest
}

#[test]
fn fxsave_lays_out_as_the_manual_says() {
    // fxsave64 [rdi]; fxrstor64 [rdi]
    let mut guest = with_state(&[0x48, 0x0f, 0xae, 0x07, 0x48, 0x0f, 0xae, 0x0f]);
    let older = guest.cpu.state.clone();
    guest.step(1);
    assert_eq!((guest.word(0x20000), guest.word(0x20002), guest.word(0x20004)), (0x27f, 0x3800, 0x80));
    assert_eq!((guest.dword(0x20018), guest.dword(0x2001c)), (0x1fa0, 0xffff));
    assert_eq!((guest.quad(0x20020), guest.word(0x20028)), (7, 0x3fff), "ST(0) is R7");
    assert_eq!((guest.quad(0x20000 + 160 + 240), guest.quad(0x20000 + 168 + 240)), (16, 15 << 32));
    guest.edit(|s| {
        s.fpu = Default::default();
        s.vectors.regs = [[0, 0, 7, 7]; 20];
    });
    guest.step(1);
    assert_eq!((guest.cpu.state.fpu.clone(), guest.cpu.state.vectors.clone()), (older.fpu, older.vectors));
}

#[test]
fn xsave_xrstor_round_trip_and_initialise() {
    // xsave [rdi]; xrstor [rdi]
    let mut guest = with_state(&[0x0f, 0xae, 0x27, 0x0f, 0xae, 0x2f]);
    let older = guest.cpu.state.clone();
    guest.step(1);
    assert_eq!(guest.quad(0x20200), 3);
    // With XSTATE_BV clear XRSTOR initialises.
    guest.put(0x20200, 1u64);
    guest.step(1);
    assert_eq!(guest.cpu.state.fpu, older.fpu);
    assert_eq!(guest.cpu.state.vectors.regs[3], [0, 0, 7, 7]);
    assert_eq!(guest.cpu.state.vectors.mxcsr, 0x1fa0);
}

#[test]
fn save_areas_check_alignment_headers_and_mxcsr() {
    // (code, RDI, a quadword to put, fault)
    let fxrstor = &[0x0f, 0xae, 0x0f][..];
    let xrstor = &[0x0f, 0xae, 0x2f][..];
    let rows: [(&[u8], u64, (u64, u64)); 6] = [
        (fxrstor, 0x20008, (0x20000, 0)),
        (fxrstor, 0x20000, (0x20018, 0x1_0000)),
        (xrstor, 0x20020, (0x20000, 0)),
        (xrstor, 0x20000, (0x20200, 4)),
        (xrstor, 0x20000, (0x20208, 1)),
        (xrstor, 0x20000, (0x20018, 0x1_0000)),
    ];
    for (code, rdi, (at, value)) in rows {
        let mut guest = with_state(code);
        guest.put(at, value);
        guest.edit(|s| s.set_gpr(slots::RDI, rdi));
        assert_eq!(guest.fault(), (13, Some(0)), "{code:x?} {at:x}");
    }
}

#[test]
fn xsavec_marks_its_format_and_leaves_initial_state_out() {
    // xsavec [rdi]
    let mut guest = with_state(&[0x0f, 0xc7, 0x27]);
    guest.edit(|s| {
        s.vectors.regs = [[0; 4]; 20];
        s.vectors.mxcsr = 0x1f80;
    });
    guest.step(1);
    assert_eq!((guest.quad(0x20200), guest.quad(0x20208)), (1, 1 << 63 | 3));
}

#[test]
fn rep_bsf_is_bsf_on_a_model_without_bmi1() {
    // tzcnt eax, ecx with ECX = 0: BSF leaves EAX alone and sets ZF
    let mut guest = Guest::real_model("x86-64", &[0x66, 0xf3, 0x0f, 0xbc, 0xc1]);
    guest.edit(|s| s.set_gpr(slots::RAX, 7));
    guest.step(1);
    assert_eq!((guest.gpr(slots::RAX), guest.cpu.flags() & 0x40), (7, 0x40));
}
