; The kvm-unit-tests interface itself: multiboot information, arguments, environment, and every part of pc-testdev.
;
; Wants the arguments "alpha beta" and the environment "COLOUR=blue"; with the argument "fail" one check fails, with "skip"
; the test says that it does not apply, with "hang" it never ends.

%include "kernel.inc"

VALUE           equ 0xE0
FLUSH           equ 0xE4
VALUE_BYTES     equ 0xE8
LINES           equ 0x2000
MEMORY          equ 0xFF000000
PIC             equ 0x20
VECTOR          equ 0x20                ; of interrupt request 0

main:
    cmp     dword [magic], 0x2BADB002
    report  "the loader's magic number"
    mov     ebx, [info]
    mov     eax, [ebx]
    and     eax, 0x0D                   ; memory, command line, modules
    cmp     eax, 0x0D
    report  "the information says memory, command line and modules"
    cmp     dword [ebx + 8], 0x1000
    setb    al
    test    al, al
    report  "there are 4 MiB and more above the first"

    mov     eax, 1
    call    argument
    mov     edi, .skip_word
    call    equal_text
    jnz     .not_skipped
    skip    "the argument says so"
.not_skipped:
    mov     eax, 1
    call    argument
    mov     edi, .hang_word
    call    equal_text
    jz      $                           ; never ends
    mov     eax, 1
    call    argument
    mov     edi, .fail_word
    call    equal_text
    jnz     .not_failed
    or      eax, 1
    report  "the argument wants a failure"
    ret
.not_failed:
    mov     eax, 1
    call    argument
    mov     edi, .alpha
    call    equal_text
    report  "the first argument is alpha"
    mov     eax, 2
    call    argument
    mov     edi, .beta
    call    equal_text
    report  "the second argument is beta"
    mov     eax, 3
    call    argument
    cmp     byte [esi], 0
    report  "there is no third argument"

    mov     ebx, [info]
    cmp     dword [ebx + 20], 1
    report  "there is one module"
    mov     ecx, [ebx + 24]
    mov     esi, [ecx]
    mov     eax, [ecx + 4]
    sub     eax, esi
    cmp     eax, 11
    jb      .no_environment
    mov     edi, .environment
    mov     ecx, 11
    repe cmpsb
.no_environment:
    report  "the module is the environment COLOUR=blue"

    mov     eax, 0x12345678
    out     VALUE, eax
    in      eax, VALUE
    cmp     eax, 0x12345678
    report  "the value port keeps 32 bits"
    in      al, VALUE + 2
    cmp     al, 0x34
    report  "the value port gives its bytes"
    mov     al, 0x99
    out     VALUE_BYTES + 1, al
    in      eax, VALUE_BYTES
    cmp     eax, 0x12349978
    report  "the byte port is the same value, byte by byte"
    mov     eax, BASE
    out     FLUSH, eax
    cmp     dword [BASE], 0x464C457F    ; ELF
    report  "a flushed page has its contents"

    mov     dword [MEMORY + 0x10], 0xCAFEF00D
    cmp     word [MEMORY + 0x12], 0xCAFE
    report  "device memory keeps what is written"
    mov     byte [MEMORY + 0xFFFF], 0x5A
    cmp     byte [MEMORY + 0xFFFF], 0x5A
    report  "up to its last byte"
    mov     esi, MEMORY + 0x10
    mov     edi, MEMORY + 0x20
    movsd
    cmp     dword [MEMORY + 0x20], 0xCAFEF00D
    report  "a string instruction copies from device to device"

    call    interrupts_on
    mov     edx, LINES + 5
    mov     al, 1
    out     dx, al
    sti
    nop
    nop
    cli
    cmp     dword [interrupts], 1
    report  "interrupt line 5 interrupts"
    xor     eax, eax
    out     dx, al
    sti
    nop
    nop
    cli
    cmp     dword [interrupts], 1
    report  "and no more when it falls"
    ret

.skip_word:     db "skip", 0
.hang_word:     db "hang", 0
.fail_word:     db "fail", 0
.alpha:         db "alpha", 0
.beta:          db "beta", 0
.environment:   db "COLOUR=blue"

interrupts_on:                          ; 8259: vectors from 20h, request 5 alone
    mov     ax, cs
    mov     [gate + 2], ax
    mov     eax, handler
    mov     [gate], ax
    shr     eax, 16
    mov     [gate + 6], ax
    lidt    [table]
    mov     al, 0x11
    out     PIC, al
    mov     al, VECTOR
    out     PIC + 1, al
    mov     al, 4
    out     PIC + 1, al
    mov     al, 1
    out     PIC + 1, al
    mov     al, ~(1 << 5)
    out     PIC + 1, al
    ret
handler:
    push    eax
    inc     dword [interrupts]
    mov     al, 0x20
    out     PIC, al
    pop     eax
    iretd

interrupts: dd 0
align 8
gate:       dw 0, 0, 0x8E00, 0
table:                                  ; only the gate of request 5 is there
    dw (VECTOR + 6) * 8 - 1
    dd gate - (VECTOR + 5) * 8

%include "end.inc"
