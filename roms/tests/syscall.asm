; SYSCALL, SYSRET and SWAPGS (SDM vol. 2; vol. 3, 5.8.8).

%define TEST_NAME "syscall: fast system calls"
%include "asm/test.inc"

STAR            equ 0xC0000081
LSTAR           equ 0xC0000082
FMASK           equ 0xC0000084
GS_BASE         equ 0xC0000101
KERNEL_GS_BASE  equ 0xC0000102

%macro msr 3                            ; number, upper half, lower half
    mov     ecx, %1
    mov     edx, %2
    mov     eax, %3
    wrmsr
%endmacro

width 16
test_main:
    to_protected
    test    dword [FEATURES_EXT], HAS_LONG_MODE
    jnz     .long_mode
    check   "this processor has no long mode: nothing to do"
    passed
.long_mode:
    to_long
    check   "SYSCALL without EFER.SCE: #UD"
    may_fault
    syscall
    faulted UD

    mov     ecx, EFER
    rdmsr
    or      eax, EFER_SCE
    wrmsr
    msr     STAR, ((CODE_32_USER & ~3) | 3) << 16 | CODE_64, 0
    msr     LSTAR, 0, .entry
    msr     FMASK, 0, FLAG_IF | FLAG_DF | FLAG_CF

    check   "SYSCALL from ring 3: RCX, R11, flags masked, CS and SS; SYSRET goes back"
    user_begin
    mov     eax, 1
    stc
    std
    mov     rsi, rsp
    syscall
.back:
    pushfq
    pop     r14
    cld
    mov     r15, rsp
    mov     r12d, cs
    mov     r13d, ss
    int     LEAVE_USER
.entry:
    mov     r8, rcx
    mov     r9, r11
    pushfq                              ; on the stack of ring 3: SYSCALL loads none
    pop     r10
    mov     ebx, cs
    mov     ebp, ss
    o64 sysret
    faulted LEAVE_USER
    mov     rax, .back
    equal   r8, rax
    test    r9, FLAG_CF
    must    nz
    test    r9, FLAG_DF
    must    nz
    test    r10, FLAG_CF | FLAG_DF
    must    z
    equal   ebx, CODE_64
    equal   ebp, DATA_64
    equal   r12d, CODE_64_USER
    equal   r13d, DATA_USER
    test    r14, FLAG_CF
    must    nz
    test    r14, FLAG_DF
    must    nz
    equal   r15, rsi

    check   "1000 round trips"
    msr     LSTAR, 0, .count
    user_begin
    mov     r12d, 1000
    xor     r13d, r13d
.trip:
    syscall
    dec     r12d
    jnz     .trip
    int     LEAVE_USER
.count:
    inc     r13
    o64 sysret
    faulted LEAVE_USER
    equal   r13, 1000

    check   "SYSRET to 32-bit code: CS is compatibility mode's"
    mov     ecx, .compatible
    mov     r11d, 2
    may_fault
    o32 sysret
    bits 32
.compatible:
    mov     eax, cs
    mov     ebx, ss
    int     LEAVE_USER
    bits 64
    faulted LEAVE_USER
    equal   eax, CODE_32_USER
    equal   ebx, DATA_USER

    check   "SYSRET in ring 3: #GP(0)"
    user_begin
    o64 sysret
    faulted GP, 0

    check   "SWAPGS exchanges the bases; in ring 3 it is #GP(0)"
    mov     dword [0x20000], 'user'
    mov     dword [0x30000], 'kern'
    msr     GS_BASE, 0, 0x20000
    msr     KERNEL_GS_BASE, 0, 0x30000
    equal   dword [gs:0], 'user'
    swapgs
    equal   dword [gs:0], 'kern'
    mov     ecx, KERNEL_GS_BASE
    rdmsr
    equal   eax, 0x20000
    swapgs
    user_begin
    swapgs
    faulted GP, 0
    passed
