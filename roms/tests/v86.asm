; Virtual-8086 mode: entry and exit, what is sensitive to IOPL, what is privileged, ports, faults (SDM vol. 3, chapter 21).

%define TEST_NAME "v86: virtual-8086 mode"
%include "asm/test.inc"

; Runs 16-bit code of the ROM up to `v86_end`, with DS = 1000h, ES = 2000h, FS = 3000h, GS = 4000h; takes further flags.
%macro v86_begin 1
    may_fault
    push    0x4000
    push    0x3000
    push    0x1000
    push    0x2000
    push    0x0000                      ; SS
    push    USER_STACK
    push    FLAG_VM | 2 | (%1)
    push    0xF000
    push    %$user - ROM
    iretd
    bits 16
%$user:
%endmacro
%macro v86_end 1-2                      ; vector, error code
    bits 32
    faulted %1, %2
%endmacro
%macro v86_sensitive 1+                 ; faults with IOPL 0
    v86_begin 0
    %1
    v86_end GP, 0
%endmacro
FRAME           equ RING0_STACK - 36    ; EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS

width 16
test_main:
    to_protected
    check   "entry by IRET, exit by INT with IOPL 3: segments are x 16, all are in the frame"
    mov     dword [0x10010], 'data'
    v86_begin FLAG_IOPL
    mov     eax, [0x10]
    mov     cx, cs
    mov     bx, ds
    int     LEAVE_USER
    v86_end LEAVE_USER, 0
    equal   eax, 'data'
    equal   cx, 0xF000
    equal   bx, 0x1000
    test    dword [FRAME + 8], FLAG_VM
    must    nz
    equal   word [FRAME + 4], 0xF000
    equal   dword [FRAME + 12], USER_STACK
    equal   word [FRAME + 20], 0x2000
    equal   word [FRAME + 24], 0x1000
    equal   word [FRAME + 28], 0x3000
    equal   word [FRAME + 32], 0x4000
    mov     ax, fs
    equal   ax, 0
    mov     ax, gs
    equal   ax, 0

    check   "with IOPL 0: CLI, STI, PUSHF, POPF, INT, IRET are #GP(0)"
    v86_sensitive cli
    v86_sensitive sti
    v86_sensitive pushf
    v86_sensitive popf
    v86_sensitive int LEAVE_USER
    v86_sensitive iret

    check   "privileged whatever IOPL is: HLT, LGDT, MOV CR0, CLTS, LMSW"
%macro v86_privileged 1+
    v86_begin FLAG_IOPL
    %1
    v86_end GP, 0
%endmacro
    v86_privileged hlt
    v86_privileged o32 lgdt [0]
    v86_privileged mov eax, cr0
    v86_privileged clts
    v86_privileged lmsw ax

    check   "not there in this mode: SLDT, LLDT, STR, LAR, VERR, ARPL"
%macro v86_undefined 1+
    v86_begin FLAG_IOPL
    %1
    bits 32
    faulted UD
%endmacro
    v86_undefined sldt ax
    v86_undefined lldt ax
    v86_undefined str ax
    v86_undefined lar ax, bx
    v86_undefined verr ax
    v86_undefined arpl ax, bx

    check   "ports ask the bitmap even with IOPL 3"
    v86_begin FLAG_IOPL
    in      al, 0x80
    v86_end GP, 0

    check   "with IOPL 3: CLI and STI, PUSHF and POPF, IRET to 8086 code"
    v86_begin FLAG_IOPL
    sti
    pushf
    pop     ax
    cli
    pushf
    pop     bx
    pushf
    push    cs
    push    word .after_iret - ROM
    iret
.after_iret:
    mov     cx, 0x1234
    int     LEAVE_USER
    v86_end LEAVE_USER, 0
    test    ax, FLAG_IF
    must    nz
    test    bx, FLAG_IF
    must    z
    equal   cx, 0x1234

    check   "a division error and an undefined opcode arrive in ring 0"
    v86_begin 0
    xor     bx, bx
    div     bx
    bits 32
    faulted DE
    v86_begin 0
    ud2
    bits 32
    faulted UD

    check   "far jumps load segments as real mode does; addresses wrap at 64 KiB"
    mov     byte [0x23456], 0xCD        ; INT LEAVE_USER
    mov     byte [0x23457], LEAVE_USER
    v86_begin FLAG_IOPL
    mov     ax, 0x55AA
    jmp     0x2000:0x3456
    v86_end LEAVE_USER, 0
    equal   word [FRAME + 4], 0x2000
    equal   word [FRAME], 0x3458

    check   "an interrupt gate to a ring other than 0: #GP(its selector)"
    set_gate INTERRUPTS + 0x2F * 8, CODE_32_USER & ~3, start, 0xEE
    v86_begin FLAG_IOPL
    int     0x2F
    v86_end GP, CODE_32_USER & ~3
    passed
