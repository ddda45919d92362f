; Interrupts: the 8259 pair, the 8254's ticks, delivery through the IDT in ring 0, ring 3 and 64-bit mode, shadows, HLT,
; double faults (SDM vol. 3, chapter 6; Intel 8259A and 8254 data sheets). QEMU's TCG leaves out the error code's EXT bit, and
; may take an interrupt some instructions late.

%define TEST_NAME "interrupts: controllers, timer, delivery"
%include "asm/test.inc"

PIC1            equ 0x20
PIC2            equ 0xA0
PIT             equ 0x40
IRQ_BASE        equ 0x20
TICKS           equ VAR0
SEEN            equ VAR1                ; what the handler noted
RETURNED_TO     equ VAR2
APIC            equ 0xFEE00000
HAS_APIC        equ 1 << 9              ; CPUID 1: EDX
HERTZ_10K       equ 119                 ; divisor of 1.193182 MHz

%macro pit 3                            ; channel, mode, count
    mov     al, (%1 << 6) | 0x30 | (%2 << 1)
    out     PIT + 3, al
    mov     al, (%3) & 0xFF
    out     PIT + %1, al
    mov     al, ((%3) >> 8) & 0xFF
    out     PIT + %1, al
%endmacro

%macro wait_for_request 0               ; until IRQ 0 is requested, with interrupts off
%%next:
    mov     al, 0x0A                    ; OCW3: read the request register
    out     PIC1, al
    in      al, PIC1
    test    al, 1
    jz      %%next
%endmacro

width 32
tick:                                   ; the handler of IRQ 0; DS may be null after ring 3
    push    eax
    inc     dword [ss:TICKS]
    mov     [ss:SEEN], ebx
    mov     eax, [esp + 4]
    mov     [ss:RETURNED_TO], eax
    mov     al, 0x20                    ; end of interrupt
    out     PIC1, al
    pop     eax
    iretd

spurious:                               ; IRQ 7 without a request in service: one was withdrawn
    iretd

clock_tick:                             ; the handler of IRQ 8
    push    eax
    inc     dword [ss:TICKS]
    mov     al, 0x0C                    ; the clock's register C: acknowledge
    out     CMOS_INDEX, al
    in      al, CMOS_DATA
    mov     [ss:SEEN], eax
    mov     al, 0x20
    out     PIC2, al
    out     PIC1, al
    pop     eax
    iretd

start_controllers:
    mov     al, 0x11                    ; edge-triggered, cascade, ICW4
    out     PIC1, al
    out     PIC2, al
    mov     al, IRQ_BASE
    out     PIC1 + 1, al
    mov     al, IRQ_BASE + 8
    out     PIC2 + 1, al
    mov     al, 4
    out     PIC1 + 1, al
    mov     al, 2
    out     PIC2 + 1, al
    mov     al, 1
    out     PIC1 + 1, al
    out     PIC2 + 1, al
    mov     al, 0xFE
    out     PIC1 + 1, al
    mov     al, 0xFF
    out     PIC2 + 1, al
    test    dword [FEATURES], HAS_APIC
    jz      .no_apic
    mov     dword [APIC + 0xF0], 0x1FF  ; virtual-wire mode, as firmware leaves it: enabled,
    mov     dword [APIC + 0x350], 0x700 ; LINT0 carries the 8259s' requests
    mov     dword [APIC + 0x360], 0x400 ; LINT1 is NMI
.no_apic:
    ret

width 16
test_main:
    to_protected
    call    start_controllers
    set_gate INTERRUPTS + IRQ_BASE * 8, CODE_32, tick, 0x8E
    set_gate INTERRUPTS + (IRQ_BASE + 7) * 8, CODE_32, spurious, 0x8E

    check   "the mask registers read back"
    in      al, PIC1 + 1
    equal   al, 0xFE
    in      al, PIC2 + 1
    equal   al, 0xFF

    check   "ten ticks of 100 us, waited for in HLT; channel 2 says how long they took"
    in      al, 0x61
    and     al, 0xFC
    or      al, 1                       ; gate 2 on, speaker off
    out     0x61, al
    mov     ebp, 2000                   ; attempts: in real time a busy host is late, then catches up
.measure:
    pit     2, 2, 0                     ; counts down from 65,536
    pit     0, 2, HERTZ_10K
    mov     dword [TICKS], 0
    sti
    hlt                                 ; from tick to tick
    call    .latch
    mov     esi, eax
    mov     edi, [TICKS]
    add     edi, 10
.next_tick:
    hlt
    cmp     [TICKS], edi
    jb      .next_tick
    cli
    call    .latch
    sub     esi, eax
    and     esi, 0xFFFF
    mov     eax, esi
    sub     eax, 10 * HERTZ_10K - 200
    cmp     eax, 400
    jbe     .latched
    dec     ebp
    jnz     .measure
    call    fn(fail)
.latch:                                 ; EAX = channel 2's count
    mov     al, 0x80
    out     PIT + 3, al
    in      al, PIT + 2
    mov     ah, al
    in      al, PIT + 2
    xchg    al, ah
    movzx   eax, ax
    ret
.latched:

    check   "with IF clear the request waits; STI lets one instruction pass first"
    wait_for_request
    mov     dword [TICKS], 0
    xor     ebx, ebx
    sti
    inc     ebx
    inc     ebx
    cli
    cmp     dword [TICKS], 1
    must    ae
    equal   dword [SEEN], 1

    check   "STI, CLI: nothing is taken in between"
    wait_for_request
    mov     dword [TICKS], 0
    sti
    cli
    nop
    equal   dword [TICKS], 0

    check   "POPF has no shadow; MOV SS has one"
    wait_for_request
    mov     dword [TICKS], 0
    xor     ebx, ebx
    mov     ecx, ss
    push    FLAG_IF | 2
    popfd
    inc     ebx
    cli
    equal   dword [TICKS], 1
    equal   dword [SEEN], 0
    pushfd
    pop     eax
    wait_for_request
    mov     dword [TICKS], 0
    xor     ebx, ebx
    push    FLAG_IF | 2
    popfd
    cli
    wait_for_request
    mov     dword [TICKS], 0
    xor     ebx, ebx
    sti
    mov     ss, ecx                     ; in STI's shadow, and casts its own
    inc     ebx
    inc     ebx
    cli
    cmp     dword [SEEN], 1
    must    be

    check   "HLT with a request already there does not sleep; the handler returns behind it"
    wait_for_request
    mov     dword [TICKS], 0
    sti
    hlt
.behind_hlt:
    cli
    equal   dword [TICKS], 1
    equal   dword [RETURNED_TO], .behind_hlt

    check   "a masked request is held, and taken once the mask goes"
    mov     al, 0xFF
    out     PIC1 + 1, al
    wait_for_request
    mov     dword [TICKS], 0
    sti
    nop
    nop
    equal   dword [TICKS], 0
    mov     al, 0xFE
    out     PIC1 + 1, al
    mov     ecx, 100
    loop    $
    cli
    cmp     dword [TICKS], 1
    must    ae

    check   "in service until the end of interrupt: no second one before"
    set_gate INTERRUPTS + IRQ_BASE * 8, CODE_32, .without_eoi, 0x8E
    mov     dword [TICKS], 0
    sti
    hlt
    cli
    wait_for_request
    sti
    mov     ecx, 100
    loop    $
    cli
    equal   dword [TICKS], 1
    mov     al, 0x0B                    ; the in-service register
    out     PIC1, al
    in      al, PIC1
    equal   al, 1
    mov     al, 0x60                    ; specific end of interrupt 0
    out     PIC1, al
    sti
    mov     ecx, 100
    loop    $
    cli
    equal   dword [TICKS], 2
    mov     al, 0x20
    out     PIC1, al
    jmp     .eoi_done
.without_eoi:
    inc     dword [TICKS]
    iretd
.eoi_done:
    set_gate INTERRUPTS + IRQ_BASE * 8, CODE_32, tick, 0x8E

    check   "ticks in ring 3 go by unseen"
    mov     dword [TICKS], 0
    may_fault
    push    DATA_USER
    push    USER_STACK
    push    FLAG_IF | 2
    push    CODE_32_USER
    push    .ring3
    iretd
.ring3:
    mov     eax, 0x12345678
    mov     ebx, DATA_USER
    mov     ds, ebx
    mov     es, ebx
.wait3:
    cmp     dword [TICKS], 3
    jb      .wait3
    mov     ecx, cs
    mov     edx, esp
    int     LEAVE_USER
    faulted LEAVE_USER
    equal   eax, 0x12345678
    equal   ecx, CODE_32_USER
    equal   edx, USER_STACK

    check   "one shot: mode 0 ticks once"
    pit     0, 0, 100 * HERTZ_10K
    sti
    mov     ecx, 100                    ; a request from before may still be there
    loop    $
    mov     dword [TICKS], 0
.once:
    cmp     dword [TICKS], 1
    jb      .once
    mov     ecx, 10000                  ; no second one
    loop    $
    cli
    mov     al, 0xE2                    ; read back: the status of channel 0
    out     PIT + 3, al
    in      al, PIT
    test    al, 0x80
    must    nz
    and     al, 0x3F
    equal   al, 0x30                    ; both bytes, mode 0, binary
    equal   dword [TICKS], 1

    check   "channel 2's output is seen at port 61h"
    in      al, 0x61
    and     al, 0xFC
    or      al, 1
    out     0x61, al
    pit     2, 0, HERTZ_10K
    in      al, 0x61
    test    al, 0x20
    must    z
.wait_channel_2:
    in      al, 0x61
    test    al, 0x20
    jz      .wait_channel_2

    check   "the second controller: the clock's periodic interrupt, IRQ 8"
    set_gate INTERRUPTS + (IRQ_BASE + 8) * 8, CODE_32, clock_tick, 0x8E
    mov     al, 0x0A
    out     CMOS_INDEX, al
    mov     al, 0x26                    ; 1024 Hz
    out     CMOS_DATA, al
    mov     al, 0x0B
    out     CMOS_INDEX, al
    mov     al, 0x42                    ; periodic interrupt on, 24 hours
    out     CMOS_DATA, al
    mov     al, 0x0C
    out     CMOS_INDEX, al
    in      al, CMOS_DATA
    mov     al, 0xFB                    ; only the cascade
    out     PIC1 + 1, al
    mov     al, 0xFE
    out     PIC2 + 1, al
    mov     dword [TICKS], 0
    sti
.wait_clock:
    hlt
    cmp     dword [TICKS], 4
    jb      .wait_clock
    cli
    mov     eax, [SEEN]
    and     al, 0xC0
    equal   al, 0xC0
    mov     al, 0x0B
    out     CMOS_INDEX, al
    mov     al, 0x02
    out     CMOS_DATA, al
    mov     al, 0xFF
    out     PIC2 + 1, al
    mov     al, 0xFE
    out     PIC1 + 1, al

    check   "a gate with a null selector: #GP(0); with a data segment: #GP(selector)"
    mov     eax, [INTERRUPTS + 0x2B * 8]
    mov     word [INTERRUPTS + 0x2B * 8 + 2], 0
    may_fault
    int     0x2B
    faulted GP, 0
    mov     word [INTERRUPTS + 0x2B * 8 + 2], DATA
    may_fault
    int     0x2B
    faulted GP, DATA
    mov     [INTERRUPTS + 0x2B * 8], eax

    check   "a fault while delivering a fault: #DF(0)"
    mov     byte [INTERRUPTS + GP * 8 + 5], 0x0E
    may_fault
    int     0x31
    faulted 8, 0
    mov     byte [INTERRUPTS + GP * 8 + 5], 0x8E

    check   "a benign exception first: no double fault, the second one is delivered"
    mov     byte [INTERRUPTS + UD * 8 + 5], 0x0E
    may_fault
    ud2
    faulted NP, UD * 8 + 2 + 1          ; +1: while delivering an event
    mov     byte [INTERRUPTS + UD * 8 + 5], 0x8E

    test    dword [FEATURES_EXT], HAS_LONG_MODE
    jnz     .long_mode
    passed
.long_mode:
    to_long
    check   "64-bit delivery: SS:RSP is always pushed, RSP is aligned to 16 first"
    set_gate INTERRUPTS + IRQ_BASE * 16, CODE_64, .tick64, 0x8E
    mov     dword [INTERRUPTS + IRQ_BASE * 16 + 8], 0
    pit     0, 2, HERTZ_10K
    mov     qword [TICKS], 0
    mov     rbx, rsp
    sub     rsp, 3                      ; any value will do
    sti
    hlt
    cli
    mov     rsp, rbx
    mov     rax, [SEEN]
    mov     rcx, rbx
    sub     rcx, 3
    equal   [VAR2], rcx                 ; the RSP that was pushed
    and     rcx, -16
    sub     rcx, 40
    equal   rax, rcx
    cmp     qword [TICKS], 1
    must    ae
    jmp     .ist

.tick64:
    push    rax
    inc     qword [TICKS]
    lea     rax, [rsp + 8]
    mov     [SEEN], rax
    mov     rax, [rsp + 8 + 24]
    mov     [VAR2], rax
    mov     al, 0x20
    out     PIC1, al
    pop     rax
    iretq

.ist:
    check   "an interrupt stack by number"
    mov     dword [TSS + 0x24], 0x4800  ; IST 1
    mov     byte [INTERRUPTS + IRQ_BASE * 16 + 4], 1
    sti
    hlt
    cli
    equal   qword [SEEN], 0x4800 - 40
    mov     byte [INTERRUPTS + IRQ_BASE * 16 + 4], 0

    check   "from ring 3 in 64-bit mode: the stack of ring 0, a null SS"
    mov     qword [TICKS], 0
    may_fault
    push    DATA_USER
    push    USER_STACK
    push    FLAG_IF | 2
    push    CODE_64_USER
    push    .user64
    iretq
.user64:
    cmp     qword [TICKS], 2
    jb      .user64
    int     LEAVE_USER
    faulted LEAVE_USER
    equal   qword [SEEN], RING0_STACK - 40
    mov     eax, ss
    equal   eax, 0
    passed
