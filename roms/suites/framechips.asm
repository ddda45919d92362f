; The frame of the suites of chips: runs little programs of port and memory accesses, whose reads are the record.
;
; A program is a row of operations, a byte each with what belongs to it (`operations` below; chips.py makes them). All of it
; runs in ring 0 with interrupts off, except where an operation lets them in; each that is taken is noted by its vector.
;
; Time is counted in pulses of the 8254's clock: `clock` names a counter that nobody needs, `ticks` waits for pulses of it. All
; that a program does between two `ticks` happens between two pulses. Where the host was too slow for that, the case starts
; again, so that no case depends on an emulator's speed.
;
; Leaves out: everything about single chips. The cases: IMAGE_MAGIC_CHIPS, their number, setup flags, a word with the length of
; the prologue that each case begins with, the prologue; then for each case its record's hash, a word with its length, itself.

%include "asm/width.inc"
%include "asm/ports.inc"
%include "asm/gates.inc"
%include "suites/layout.inc"

OWN_CODE        equ 0x08
OWN_DATA        equ 0x10
IDT             equ 0x1000
IMAGE_MAGIC_CHIPS equ 0x50494843        ; "CHIP"
SETUP_PERIODIC  equ 1                   ; setup: the periodic flag of the real-time clock is set, so that its enable bit is IRQ 8

PROGRAM         equ VARIABLES + 0x40    ; first byte of the running program, after the prologue
TRIES           equ VARIABLES + 0x48
TAKEN           equ VARIABLES + 0x50    ; interrupts since the last TAKE or SLEEP
HANDLER         equ VARIABLES + 0x58    ; what the handler does: HANDLER_*
REFERENCE       equ VARIABLES + 0x60    ; the counter that tells the pulses
LAST            equ VARIABLES + 0x68    ; its low byte at the last pulse that was waited for
RETURN_TO       equ VARIABLES + 0x70    ; the program that the prologue leads to
SPINS           equ VARIABLES + 0x78    ; turns of the shortest loop in a pulse
SLOTS           equ VARIABLES + 0x80    ; eight dwords
TRIES_MOST      equ 1000
TAKEN_MOST      equ 12
HANDLER_EOI     equ 1                   ; writes the local APIC's EOI
HANDLER_ONCE    equ 2                   ; returns with interrupts off
HANDLER_8259    equ 4                   ; non-specific EOI to both 8259s
GAVE_UP         equ 0xBAD

PIT             equ 0x40
PIT_CONTROL     equ 0x43
LAPIC           equ 0xFEE00000
IOAPIC          equ 0xFEC00000
PM_TIMER        equ PM_BASE + 8

    org ROM
section .text
section .rodata follows=.text align=8
section .text

width 32
stubs:                                  ; ten bytes each, at F0000h
%assign vector 0
%rep 0x100
    push    strict dword vector
    jmp     strict near noted
    %assign vector vector + 1
%endrep

noted:                                  ; EDI = the end of the record, as always
    xchg    eax, [esp]
    mov     [edi], eax
    add     edi, 4
    inc     dword [TAKEN]
    cmp     eax, 2                      ; a non-maskable interrupt may come within another operation
    je      .end
    mov     eax, [HANDLER]
    test    al, HANDLER_EOI
    jz      .no_eoi
    mov     dword [LAPIC + 0xB0], 0
.no_eoi:
    test    al, HANDLER_8259
    jz      .no_8259
    mov     al, 0x20
    out     0xA0, al
    out     0x20, al
    mov     eax, [HANDLER]
.no_8259:
    test    al, HANDLER_ONCE
    jnz     .off
    cmp     dword [TAKEN], TAKEN_MOST
    jb      .end
.off:
    and     dword [esp + 12], ~0x200
.end:
    pop     eax
    iretd

; The operations: ESI = what belongs to it, EDI = the end of the record. They may change all other registers.
align 4
operations:
    dd op_end, op_out, op_in, op_store, op_load, op_poll, op_line, op_take, op_sleep, op_ticks, op_clock, op_counter
    dd op_mark, op_span, op_until, op_until32, op_pause, op_measure, op_ratio, op_wrmsr, op_rdmsr, op_deadline, op_keep
    dd op_cmos_write, op_cmos_read, op_look, op_sets, op_subtract
    dd op_entry, op_entry_read, op_ahead
OPERATIONS      equ ($ - operations) / 4

op_end:
    mov     esi, [RETURN_TO]
    test    esi, esi
    jz      case_done
    mov     dword [RETURN_TO], 0
    jmp     next_operation

op_out:                                 ; port, byte
    mov     dx, [esi]
    mov     al, [esi + 2]
    out     dx, al
    add     esi, 3
next_operation:
    movzx   eax, byte [esi]
    inc     esi
    jmp     [operations + eax * 4]

op_in:                                  ; port, mask: recorded
    mov     dx, [esi]
    in      al, dx
    and     al, [esi + 2]
    add     esi, 3
record_al:
    movzx   eax, al
record_eax:
    mov     [edi], eax
    add     edi, 4
    jmp     next_operation

op_store:                               ; address, dword
    mov     ebx, [esi]
    mov     eax, [esi + 4]
    mov     [ebx], eax
    add     esi, 8
    jmp     next_operation

op_load:                                ; address, mask: recorded
    mov     ebx, [esi]
    mov     eax, [ebx]
    and     eax, [esi + 4]
    add     esi, 8
    jmp     record_eax

op_poll:                                ; port: recorded, but for what means nothing without bit 7
    mov     dx, [esi]
    add     esi, 2
    in      al, dx
    test    al, al
    js      .asked
    xor     eax, eax
.asked:
    and     al, 0x87
    jmp     record_al

op_line:                                ; an interrupt request, its level
    movzx   ebx, byte [esi]
    mov     al, [esi + 1]
    add     esi, 2
    cmp     bl, 1
    jb      .timer
    je      .keyboard
    cmp     bl, 4
    jbe     .serial
    cmp     bl, 8
    je      .clock
    jmp     .mouse
.timer:                                 ; OUT 0: high at once in mode 3, low in mode 0, both for long
    test    al, al
    mov     al, 0x36
    mov     ah, 0
    jnz     .mode
    mov     al, 0x30
    mov     ah, 0xFF
.mode:
    out     PIT_CONTROL, al
    mov     al, ah
    out     PIT, al
    out     PIT, al
    jmp     next_operation
.keyboard:                              ; the output buffer full, or empty
    mov     ah, 0xD2
    jmp     .buffer
.mouse:
    mov     ah, 0xD3
.buffer:
    test    al, al
    jz      .empty
    mov     al, ah
    out     0x64, al
.ready:
    in      al, 0x64
    test    al, 2
    jnz     .ready
    mov     al, 0x55
    out     0x60, al
    mov     ecx, 1 << 20
.full:
    mov     eax, [SPINS]
    call    spin
    in      al, 0x64
    test    al, 1
    jnz     next_operation
    dec     ecx
    jnz     .full
    jmp     next_operation
.empty:
    in      al, 0x60
    jmp     next_operation
.serial:                                ; the transmitter's interrupt: it is empty
    mov     edx, 0x2F9
    cmp     bl, 3
    je      .enable
    mov     edx, 0x3F9
.enable:
    add     al, al
    out     dx, al
    jmp     next_operation
.clock:                                 ; the periodic flag is set: see SETUP_PERIODIC
    mov     ah, al
    mov     al, 0x0B
    out     CMOS_INDEX, al
    mov     al, ah
    shl     al, 6
    or      al, 2
    out     CMOS_DATA, al
    jmp     next_operation

op_take:                                ; HANDLER_*: interrupts are let in for a moment
    movzx   eax, byte [esi]
    inc     esi
    mov     [HANDLER], eax
    mov     dword [TAKEN], 0
    sti
    times 8 db 0xEB, 0                  ; JMP to the next
    cli
record_taken:
    mov     eax, [TAKEN]
    or      eax, 0xFFFF0000
    jmp     record_eax

op_sleep:                               ; HANDLER_*: HLT until an interrupt was taken
    movzx   eax, byte [esi]
    inc     esi
    or      al, HANDLER_ONCE
    mov     [HANDLER], eax
    mov     dword [TAKEN], 0
.next:
    sti
    hlt
    cli
    cmp     dword [TAKEN], 0
    je      .next
    jmp     record_taken

op_clock:                               ; the counter: 0 or 2, from now on in mode 2 with the longest count
    movzx   ebx, byte [esi]
    inc     esi
    mov     [REFERENCE], ebx
    mov     al, bl
    shl     al, 6
    or      al, 0x14                    ; low byte only
    out     PIT_CONTROL, al
    lea     edx, [ebx + PIT]
    xor     eax, eax
    out     dx, al
    call    pulse                       ; until it is loaded
    mov     cl, al
.settle:
    call    pulse
    cmp     al, cl
    je      .settle
    mov     cl, al
.edge:
    call    pulse
    cmp     al, cl
    je      .edge
    mov     [LAST], al
    jmp     next_operation

pulse:                                  ; AL = the low byte of the reference; changes EDX
    mov     edx, [REFERENCE]
    mov     eax, edx
    shl     eax, 6
    out     PIT_CONTROL, al
    add     edx, PIT
    in      al, dx
    ret

op_ticks:                               ; so many pulses, less than 128
    mov     bl, [esi]
    inc     esi
    call    pulse
    cmp     al, [LAST]
    jne     start_again                 ; too late for what this program has done since
    movzx   eax, bl                     ; most of the time nobody needs to look
    dec     eax
    mul     dword [SPINS]
    mov     ecx, eax
    shr     ecx, 4
    sub     eax, ecx
    inc     eax
    call    spin
.wait:
    mov     eax, [SPINS]
    shr     eax, 3
    inc     eax
    call    spin
    call    pulse
    mov     bh, [LAST]
    sub     bh, al                      ; pulses since
    cmp     bh, bl
    jb      .wait
    ja      start_again
    mov     [LAST], al
    jmp     next_operation

spin:                                   ; EAX turns
    dec     eax
    jnz     spin
    ret

start_again:
    inc     dword [TRIES]
    cmp     dword [TRIES], TRIES_MOST
    jb      start_case
    mov     dword [RECORD], GAVE_UP
    mov     edi, RECORD + 4
    jmp     case_done

op_counter:                             ; counter, bytes of a count: its status and count, latched together
    movzx   ebx, byte [esi]
    mov     ah, [esi + 1]
    add     esi, 2
    mov     cl, bl
    mov     al, 2
    shl     al, cl
    or      al, 0xC0
    out     PIT_CONTROL, al
    lea     edx, [ebx + PIT]
    in      al, dx
    movzx   ebx, al
    shl     ebx, 16
    in      al, dx
    mov     bl, al
    dec     ah
    jz      .end
    in      al, dx
    mov     bh, al
.end:
    mov     eax, ebx
    jmp     record_eax

op_mark:                                ; slot = the power-management timer
    movzx   ebx, byte [esi]
    inc     esi
    call    pm_timer
    mov     [SLOTS + ebx * 4], eax
    jmp     next_operation

pm_timer:                               ; EAX: 24 bits of 3.579545 MHz, three in a pulse; changes EDX
    mov     edx, PM_TIMER
    in      eax, dx
    and     eax, 0xFFFFFF
    ret

since:                                  ; EAX = counts since the mark in the slot whose number is at ESI
    call    pm_timer
    movzx   ebx, byte [esi]
    inc     esi
    sub     eax, [SLOTS + ebx * 4]
    and     eax, 0xFFFFFF
    ret

op_span:                                ; slot, least, most: records the least if the time since the mark is between
    call    since
    cmp     eax, [esi]
    jb      .other
    cmp     eax, [esi + 4]
    ja      .other
    mov     eax, [esi]
.other:
    add     esi, 8
    jmp     record_eax

op_measure:                             ; slot: becomes the time since it was marked
    call    since
    mov     [SLOTS + ebx * 4], eax
    jmp     next_operation

op_until:                               ; port, mask, value: waits; records a time-out only
    mov     ecx, 1 << 25
    mov     dx, [esi]
.next:
    in      al, dx
    and     al, [esi + 2]
    cmp     al, [esi + 3]
    je      .end
    dec     ecx
    jnz     .next
    mov     dword [edi], GAVE_UP
    add     edi, 4
.end:
    add     esi, 4
    jmp     next_operation

op_until32:                             ; address, mask, value
    mov     ecx, 1 << 25
    mov     ebx, [esi]
.next:
    mov     eax, [ebx]
    and     eax, [esi + 4]
    cmp     eax, [esi + 8]
    je      .end
    dec     ecx
    jnz     .next
    mov     dword [edi], GAVE_UP
    add     edi, 4
.end:
    add     esi, 12
    jmp     next_operation

op_pause:                               ; counts of the power-management timer
    call    pm_timer
    mov     ecx, eax
.next:
    call    pm_timer
    sub     eax, ecx
    and     eax, 0xFFFFFF
    cmp     eax, [esi]
    jb      .next
    add     esi, 4
    jmp     next_operation

op_ratio:                               ; slots a and b, n, d, t: records 0 if |a * d - b * n| <= t, else a and b
    movzx   ebx, byte [esi]
    mov     ebx, [SLOTS + ebx * 4]
    movzx   ecx, byte [esi + 1]
    mov     ecx, [SLOTS + ecx * 4]
    mov     eax, ecx
    mul     dword [esi + 2]
    mov     ebp, eax
    push    edx
    mov     eax, ebx
    mul     dword [esi + 6]
    sub     eax, ebp
    pop     ebp
    sbb     edx, ebp
    jns     .positive
    neg     eax
    adc     edx, 0
    neg     edx
.positive:
    test    edx, edx
    jnz     .wrong
    cmp     eax, [esi + 10]
    ja      .wrong
    xor     eax, eax
    jmp     .end
.wrong:
    mov     [edi], ebx
    add     edi, 4
    mov     eax, ecx
.end:
    add     esi, 14
    jmp     record_eax

op_wrmsr:                               ; register, value
    mov     ecx, [esi]
    mov     eax, [esi + 4]
    mov     edx, [esi + 8]
    wrmsr
    add     esi, 12
    jmp     next_operation

op_rdmsr:                               ; register: two dwords
    mov     ecx, [esi]
    add     esi, 4
    rdmsr
    mov     [edi], eax
    mov     [edi + 4], edx
    add     edi, 8
    jmp     next_operation

op_deadline:                            ; IA32_TSC_DEADLINE = the time-stamp counter and so much
    rdtsc
    add     eax, [esi]
    adc     edx, 0
    add     esi, 4
    mov     ecx, 0x6E0
    wrmsr
    jmp     next_operation

op_keep:                                ; slot, address: slot = what is there
    movzx   ebx, byte [esi]
    mov     edx, [esi + 1]
    mov     eax, [edx]
    mov     [SLOTS + ebx * 4], eax
    add     esi, 5
    jmp     next_operation

op_subtract:                            ; slots a and b: a -= b
    movzx   ebx, byte [esi + 1]
    mov     eax, [SLOTS + ebx * 4]
    movzx   ebx, byte [esi]
    sub     [SLOTS + ebx * 4], eax
    add     esi, 2
    jmp     next_operation

op_entry:                               ; the I/O APIC's input, low half of its entry, destination: the upper half is written first
    movzx   eax, byte [esi]
    lea     eax, [eax * 2 + 0x11]
    mov     [IOAPIC], eax
    movzx   ebx, byte [esi + 5]
    shl     ebx, 24
    mov     [IOAPIC + 0x10], ebx
    dec     eax
    mov     [IOAPIC], eax
    mov     ebx, [esi + 1]
    mov     [IOAPIC + 0x10], ebx
    add     esi, 6
    jmp     next_operation

op_entry_read:                          ; input: both halves of its entry, without the delivery status
    movzx   eax, byte [esi]
    inc     esi
    lea     eax, [eax * 2 + 0x10]
    mov     [IOAPIC], eax
    mov     ebx, [IOAPIC + 0x10]
    and     ebx, 0x1EFFF
    mov     [edi], ebx
    inc     eax
    mov     [IOAPIC], eax
    mov     eax, [IOAPIC + 0x10]
    and     eax, 0xFF000000
    mov     [edi + 4], eax
    add     edi, 8
    jmp     next_operation

op_ahead:                               ; two addresses, a number: the first becomes the second and so much
    mov     ebx, [esi + 4]
    mov     eax, [ebx]
    add     eax, [esi + 8]
    mov     ebx, [esi]
    mov     [ebx], eax
    add     esi, 12
    jmp     next_operation

op_cmos_write:                          ; register, value
    mov     al, [esi]
    out     CMOS_INDEX, al
    mov     al, [esi + 1]
    out     CMOS_DATA, al
    add     esi, 2
    jmp     next_operation

op_cmos_read:                           ; register, mask
    mov     al, [esi]
    out     CMOS_INDEX, al
    in      al, CMOS_DATA
    and     al, [esi + 1]
    add     esi, 2
    jmp     record_al

op_look:                                ; mask, requests and levels in service of each 8259, a dword each
    mov     edx, 0x20
    call    look_at
    mov     edx, 0xA0
    call    look_at
    jmp     next_operation

look_at:
    inc     edx
    in      al, dx
    movzx   eax, al
    shl     eax, 16
    dec     edx
    mov     al, 0x0A
    out     dx, al
    in      al, dx
    mov     ah, al
    mov     al, 0x0B
    out     dx, al
    in      al, dx
    mov     [edi], eax
    add     edi, 4
    ret

op_sets:                                ; the local APIC's PPR; of ISR and IRR, offset and value of each register that is not 0
    mov     eax, [LAPIC + 0xA0]
    and     eax, 0xFF
    mov     [edi], eax
    add     edi, 4
    mov     ebx, 0x100
.next:
    mov     eax, [LAPIC + ebx]
    test    eax, eax
    jz      .zero
    mov     [edi], ebx
    mov     [edi + 4], eax
    add     edi, 8
.zero:
    add     ebx, 0x10
    cmp     ebx, 0x180
    jne     .more
    mov     ebx, 0x200
.more:
    cmp     ebx, 0x280
    jb      .next
    jmp     next_operation

%include "asm/console.inc"

first_case:
    mov     esi, [CASES_AT]
    cmp     dword [esi], IMAGE_MAGIC_CHIPS
    jne     no_cases
    movzx   eax, word [esi + 12]
    lea     eax, [esi + eax + 14]
    mov     [CURSOR], eax
    xor     eax, eax
    mov     [CASE], eax
    mov     [FAILED], eax
    mov     [REPORTED], eax
    call    set_up
next_case:
    mov     esp, OWN_STACK
    cld
    mov     ebx, [CASES_AT]
    mov     eax, [CASE]
    cmp     eax, [ebx + 4]
    je      verdict
    inc     eax
    mov     [CASE], eax
    mov     esi, [CURSOR]
    mov     eax, [esi]
    mov     [EXPECTED], eax
    movzx   eax, word [esi + 4]
    add     esi, 6
    mov     [PROGRAM], esi
    add     eax, esi
    mov     [CURSOR], eax
    mov     dword [RUNNING], RUNNING_MAGIC
    mov     dword [TRIES], 0
start_case:
    mov     esp, OWN_STACK
    mov     edi, RECORD
    mov     dword [edi], 0
    add     edi, 4
    mov     dword [HANDLER], 0
    mov     eax, [PROGRAM]
    mov     [RETURN_TO], eax
    mov     esi, [CASES_AT]
    add     esi, 14
    jmp     next_operation

was_shutdown:                           ; after a reset in a case
    mov     dword [RECORD], SHUTDOWN
    mov     edi, RECORD + 4
case_done:
    mov     esp, OWN_STACK
    cld
    mov     dword [RUNNING], 0
    mov     ebx, edi
%include "suites/report.inc"

set_up:                                 ; what all cases need of the board
    mov     edi, IDT
    mov     ebx, stubs
    mov     ecx, 0x100
.gate:
    mov     eax, ebx
    and     eax, 0xFFFF
    or      eax, OWN_CODE << 16
    mov     [edi], eax
    mov     eax, ebx
    mov     ax, 0x8E00
    mov     [edi + 4], eax
    add     edi, 8
    add     ebx, 10
    loop    .gate
    lidt    [idt_pointer]
    mov     eax, PM_FUNCTION + 0x40     ; the power-management timer's ports
    mov     ecx, PM_BASE | 1
    call    pci_write
    mov     eax, PM_FUNCTION + 0x80
    mov     ecx, 1
    call    pci_write
    mov     eax, PM_FUNCTION + 4
    mov     ecx, 1
    call    pci_write
    mov     dword [LAPIC + 0xF0], 0x1FF ; virtual wire: the 8259s through LINT0
    mov     dword [LAPIC + 0x350], 0x700
    mov     dword [LAPIC + 0x360], 0x400
    mov     edx, 0x2F9                  ; serial ports: no interrupts, the line driver on
    xor     eax, eax
    out     dx, al
    mov     edx, 0x3F9
    out     dx, al
    mov     al, 0x0B
    mov     edx, 0x2FC
    out     dx, al
    mov     edx, 0x3FC
    out     dx, al
    mov     al, 0x60                    ; 8042: both interrupts, no translation
    out     0x64, al
.busy:
    in      al, 0x64
    test    al, 2
    jnz     .busy
    mov     al, 0x07
    out     0x60, al
    in      al, 0x60
    call    pm_timer
    mov     ecx, eax
    mov     eax, 0x10000
    call    spin
    call    pm_timer
    sub     eax, ecx
    and     eax, 0xFFFFFF
    lea     ecx, [eax + 1]
    mov     eax, 0x30000
    xor     edx, edx
    div     ecx
    mov     [SPINS], eax
    mov     ebx, [CASES_AT]
    test    byte [ebx + 8], SETUP_PERIODIC
    jz      .end
    mov     al, 0x0A
    out     CMOS_INDEX, al
    mov     al, 0x26
    out     CMOS_DATA, al
    mov     al, 0x0B
    out     CMOS_INDEX, al
    mov     al, 0x42
    out     CMOS_DATA, al
    mov     ecx, 7200                   ; 2 ms, twice the period
    call    pm_timer
    mov     ebx, eax
.wait:
    call    pm_timer
    sub     eax, ebx
    and     eax, 0xFFFFFF
    cmp     eax, ecx
    jb      .wait
    mov     al, 0x0A
    out     CMOS_INDEX, al
    mov     al, 0x20
    out     CMOS_DATA, al
    mov     al, 0x0B
    out     CMOS_INDEX, al
    mov     al, 0x02
    out     CMOS_DATA, al
.end:
    ret

pci_write:                              ; ECX to the configuration register EAX names
    mov     edx, PCI_ADDRESS
    out     dx, eax
    mov     edx, PCI_DATA
    mov     eax, ecx
    out     dx, eax
    ret

align 8
idt_pointer:
    dw 0x7FF
    dd IDT
own_gdt:
    dw own_gdt_end - own_gdt_table - 1
    dd own_gdt_table
align 8
own_gdt_table:
    dq 0
    descriptor 0, 0xFFFFF, CODE_RING0, FLAG_PAGES | FLAG_32
    descriptor 0, 0xFFFFF, DATA_RING0, FLAG_PAGES | FLAG_32
own_gdt_end:

%define FLAT_CODE OWN_CODE
%include "suites/start.inc"
    mov     esp, OWN_STACK
    cmp     dword [RUNNING], RUNNING_MAGIC
    jne     .first
    call    set_up
    jmp     was_shutdown
.first:
    jmp     first_case

section .reset start=0xFFFE0
CASES_AT:
    dd 0                                ; patched by whoever adds the cases
    times 0x10 - ($ - $$) db 0xFF
    bits 16
    jmp     0xF000:(start - ROM)
    times 0x20 - ($ - $$) db 0xFF
section .text
