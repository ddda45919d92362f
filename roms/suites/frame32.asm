; The frame of the suites in 32-bit protected mode: sets up what a case says, runs it, notes what it did.
;
; A case starts by IRETD from the stack that it names, and ends with the first interrupt or exception whose gate leads to the
; frame: `exception_stubs`, one per vector, which the case's own IDT names. Code in rings 1 to 3 and targets of gates end with
; INT 20h. suite/*.py make the cases; suite/layout.py knows this file's addresses.
;
; Leaves out: everything about single cases. See record.inc for their form.

%include "asm/width.inc"
%include "asm/ports.inc"
%include "asm/gates.inc"
%include "suites/layout.inc"

OWN_CODE        equ 0x1F0               ; selectors that every case's GDT has
OWN_DATA        equ 0x1F8

    org ROM
section .text
section .rodata follows=.text align=8
section .text

width 32
stubs:                                  ; sixteen bytes each, at F0000h
%assign vector 0
%rep 0x28
    align 16
    mov     dr0, eax
    mov     eax, vector << 16
    jmp     strict near noted
    %assign vector vector + 1
%endrep

noted:                                  ; nothing is on our side yet but CS and DR0 = EAX, EAX = vector << 16
    mov     ax, ds
    mov     dr1, eax
    mov     eax, ss
    mov     dr2, eax
    mov     dr3, esp
    lgdt    [cs:own_gdt]
    mov     eax, OWN_DATA
    mov     ds, eax
    mov     ss, eax
    mov     esp, OWN_STACK
    pushfd
    cld
    mov     eax, dr0
    mov     [RECORD + 1 * 4], eax
    mov     [RECORD + 2 * 4], ecx
    mov     [RECORD + 3 * 4], edx
    mov     [RECORD + 4 * 4], ebx
    mov     eax, dr3
    mov     [RECORD + 5 * 4], eax
    mov     [RECORD + 6 * 4], ebp
    mov     [RECORD + 7 * 4], esi
    mov     [RECORD + 8 * 4], edi
    pop     eax
    and     eax, [STATE + 30 * 4]       ; flags that the manual defines here
    mov     [RECORD + 9 * 4], eax
    mov     eax, dr1
    movzx   ecx, ax                     ; DS
    shr     eax, 16
    mov     [RECORD], eax
    shl     ecx, 16
    mov     eax, dr2
    mov     cx, ax                      ; SS
    mov     [RECORD + 10 * 4], ecx
    mov     ecx, fs
    shl     ecx, 16
    mov     cx, es
    mov     [RECORD + 11 * 4], ecx
    sldt    ecx
    shl     ecx, 16
    mov     cx, gs
    mov     [RECORD + 12 * 4], ecx
    str     ecx
    movzx   ecx, cx
    mov     [RECORD + 13 * 4], ecx
    mov     eax, cr0
    mov     [RECORD + 14 * 4], eax
    mov     eax, cr2
    mov     [RECORD + 15 * 4], eax
    mov     eax, dr6
    and     eax, 0xE00F
    mov     [RECORD + 16 * 4], eax
    mov     eax, dr7
    mov     [RECORD + 13 * 4 + 2], ax
    mov     eax, 0x400
    mov     dr7, eax
    mov     eax, OWN_DATA
    mov     es, eax
    mov     eax, 0x11
    mov     cr0, eax
    xor     eax, eax
    mov     cr4, eax
    mov     cr3, eax
    lidt    [own_idt]
    lldt    ax
    mov     edi, RECORD + 17 * 4
    jmp     case_done

run_case:
    mov     eax, [STATE + 32 * 4]
    mov     ecx, 0xC0000080             ; EFER
    xor     edx, edx
    wrmsr
    mov     eax, [STATE + 18 * 4]
    mov     cr4, eax
    mov     eax, [STATE + 17 * 4]
    mov     cr3, eax
    mov     eax, [STATE + 16 * 4]
    and     eax, ~8                     ; TS: below
    mov     cr0, eax
    lgdt    [STATE + 19 * 4 + 2]
    lidt    [STATE + 21 * 4 + 2]
    mov     ax, [STATE + 14 * 4]
    test    ax, ax
    jz      .no_task
    movzx   ebx, ax
    and     ebx, ~7
    add     ebx, [STATE + 20 * 4]
    and     byte [ebx + 5], ~2          ; LTR makes it busy again
    ltr     ax
.no_task:
    mov     ax, [STATE + 13 * 4]
    lldt    ax
    mov     eax, [STATE + 29 * 4]
    mov     cr2, eax
    mov     eax, [STATE + 23 * 4]
    mov     dr0, eax
    mov     eax, [STATE + 24 * 4]
    mov     dr1, eax
    mov     eax, [STATE + 25 * 4]
    mov     dr2, eax
    mov     eax, [STATE + 26 * 4]
    mov     dr3, eax
    mov     eax, [STATE + 27 * 4]
    mov     dr6, eax
    push    2
    popfd
    mov     ecx, [STATE + 1 * 4]
    mov     edx, [STATE + 2 * 4]
    mov     ebx, [STATE + 3 * 4]
    mov     ebp, [STATE + 4 * 4]
    mov     esi, [STATE + 5 * 4]
    mov     edi, [STATE + 6 * 4]
    mov     es, [STATE + 10 * 4]
    mov     fs, [STATE + 11 * 4]
    mov     gs, [STATE + 12 * 4]
    mov     eax, [STATE + 16 * 4]
    mov     cr0, eax
    mov     ds, [STATE + 9 * 4]
    mov     eax, [cs:STATE + 28 * 4]
    mov     dr7, eax
    mov     eax, [cs:STATE]
    lss     esp, [cs:STATE + 7 * 4]
    iretd

%include "asm/console.inc"
%include "suites/record.inc"

align 8
own_gdt:
    dw own_gdt_end - own_gdt_table - 1
    dd own_gdt_table
own_idt:
    dw 0
    dd 0
align 8
own_gdt_table:
    times OWN_CODE / 8 dq 0
    descriptor 0, 0xFFFFF, CODE_RING0, FLAG_PAGES | FLAG_32
    descriptor 0, 0xFFFFF, DATA_RING0, FLAG_PAGES | FLAG_32
own_gdt_end:

%define FLAT_CODE OWN_CODE
%include "suites/start.inc"
    xor     eax, eax
    mov     fs, eax
    mov     gs, eax
    mov     esp, OWN_STACK
    fninit
    cmp     dword [RUNNING], RUNNING_MAGIC
    je      was_shutdown
    jmp     first_case

section .reset start=0xFFFE0
CASES_AT:
    dd 0                                ; patched by whoever adds the cases
    times 0x10 - ($ - $$) db 0xFF
    bits 16
    jmp     0xF000:(start - ROM)
    times 0x20 - ($ - $$) db 0xFF
section .text
