; The frame of the suites in long mode: as frame32.asm, with 64-bit registers. A case starts by IRETQ and ends at one of the
; frame's 64-bit interrupt stubs. Memory below 1 GiB is mapped to itself for all rings, and the last GiB below 4 GiB.
;
; Leaves out: everything about single cases. See record.inc for their form.

%include "asm/width.inc"
%include "asm/ports.inc"
%include "asm/gates.inc"
%include "suites/layout.inc"

OWN_CODE        equ 0x1F0               ; 64-bit
OWN_CODE_32     equ 0x1E8
OWN_DATA        equ 0x1F8
MORE            equ STATE + 128         ; dwords after the sixteen registers
FS_BASE         equ 0xC0000100
GS_BASE         equ 0xC0000101
KERNEL_GS_BASE  equ 0xC0000102

    org ROM
section .text
section .rodata follows=.text align=8
section .text

width 64
stubs:
%assign vector 0
%rep 0x28
    align 16
    mov     dr0, rax
    mov     eax, vector
    jmp     strict near noted
    %assign vector vector + 1
%endrep

noted:
    mov     [RECORD], eax
    mov     rax, dr0
    mov     [RECORD + 4], rax
    mov     [RECORD + 12], rcx
    mov     [RECORD + 20], rdx
    mov     [RECORD + 28], rbx
    mov     [RECORD + 36], rsp
    mov     [RECORD + 44], rbp
    mov     [RECORD + 52], rsi
    mov     [RECORD + 60], rdi
    mov     [RECORD + 68], r8
    mov     [RECORD + 76], r9
    mov     [RECORD + 84], r10
    mov     [RECORD + 92], r11
    mov     [RECORD + 100], r12
    mov     [RECORD + 108], r13
    mov     [RECORD + 116], r14
    mov     [RECORD + 124], r15
    mov     ax, ss
    mov     [RECORD + 136], ax
    mov     ax, ds
    mov     [RECORD + 138], ax
    mov     ax, es
    mov     [RECORD + 140], ax
    mov     ax, fs
    mov     [RECORD + 142], ax
    mov     ax, gs
    mov     [RECORD + 144], ax
    sldt    ax
    mov     [RECORD + 146], ax
    str     ax
    mov     [RECORD + 148], ax
    mov     word [RECORD + 150], 0
    mov     esp, OWN_STACK
    pushfq
    pop     rax
    and     eax, [MORE + 7 * 4]
    mov     [RECORD + 132], eax
    cld
    mov     edi, RECORD + 152
    mov     ecx, FS_BASE
    call    base
    mov     ecx, GS_BASE
    call    base
    mov     ecx, KERNEL_GS_BASE
    call    base
    mov     rax, cr2
    stosq
    lgdt    [own_gdt]
    lidt    [own_idt]
    mov     eax, OWN_DATA
    mov     ss, eax
    mov     ds, eax
    mov     es, eax
    xor     eax, eax
    lldt    ax
    mov     eax, OWN_TABLES
    mov     cr3, rax
    mov     eax, 0x220                  ; PAE, OSFXSR
    mov     cr4, rax
    jmp     case_done

base:
    rdmsr
    stosd
    mov     eax, edx
    stosd
    ret

run_case:
    mov     esi, msrs
    xor     edi, edi
.msr:
    mov     ecx, [rsi]
    movzx   ebx, byte [rsi + 4]
    mov     eax, [MORE + rbx * 4]
    mov     edx, [MORE + 4 + rbx * 4]
    wrmsr
    add     esi, 5
    cmp     esi, msrs_end
    jb      .msr
    lgdt    [MORE + 12 * 4 + 2]
    lidt    [MORE + 16 * 4 + 2]
    movzx   ebx, word [MORE + 6 * 4]
    test    ebx, ebx
    jz      .no_task
    mov     rax, [MORE + 13 * 4]
    and     byte [rax + rbx + 5], ~2
    ltr     bx
.no_task:
    mov     ax, [MORE + 5 * 4]
    lldt    ax
    mov     eax, [MORE + 9 * 4]
    mov     cr3, rax
    mov     eax, [MORE + 10 * 4]
    mov     cr4, rax
    xor     eax, eax
    mov     cr2, rax
    mov     eax, [MORE + 8 * 4]
    mov     cr0, rax
    mov     ss, [MORE]
    mov     ds, [MORE + 1 * 4]
    mov     es, [MORE + 2 * 4]
    mov     rcx, [STATE + 1 * 8]
    mov     rdx, [STATE + 2 * 8]
    mov     rbx, [STATE + 3 * 8]
    mov     rsp, [STATE + 4 * 8]
    mov     rbp, [STATE + 5 * 8]
    mov     rsi, [STATE + 6 * 8]
    mov     rdi, [STATE + 7 * 8]
    mov     r8, [STATE + 8 * 8]
    mov     r9, [STATE + 9 * 8]
    mov     r10, [STATE + 10 * 8]
    mov     r11, [STATE + 11 * 8]
    mov     r12, [STATE + 12 * 8]
    mov     r13, [STATE + 13 * 8]
    mov     r14, [STATE + 14 * 8]
    mov     r15, [STATE + 15 * 8]
    mov     rax, [STATE]
    iretq

; MSR, and the dword of the state that holds it.
%macro msr 2
    dd %1
    db %2
%endmacro
msrs:
    msr 0xC0000080, 20                  ; EFER
    msr FS_BASE, 22
    msr GS_BASE, 24
    msr KERNEL_GS_BASE, 26
    msr 0xC0000081, 28                  ; STAR
    msr 0xC0000082, 30                  ; LSTAR
    msr 0xC0000083, 32                  ; CSTAR
    msr 0xC0000084, 34                  ; SFMASK
    msr 0x174, 36                       ; SYSENTER: CS, ESP, EIP
    msr 0x175, 38
    msr 0x176, 40
msrs_end:

%include "asm/console.inc"
%include "suites/record.inc"

align 8
own_gdt:
    dw own_gdt_end - own_gdt_table - 1
    dq own_gdt_table
own_idt:
    dw 0
    dq 0
align 8
own_gdt_table:
    times OWN_CODE_32 / 8 dq 0
    descriptor 0, 0xFFFFF, CODE_RING0, FLAG_PAGES | FLAG_32
    descriptor 0, 0xFFFFF, CODE_RING0, FLAG_PAGES | FLAG_64
    descriptor 0, 0xFFFFF, DATA_RING0, FLAG_PAGES | FLAG_32
own_gdt_end:

%define FLAT_CODE OWN_CODE_32
%include "suites/start.inc"
    xor     eax, eax
    mov     fs, eax
    mov     gs, eax
    mov     esp, OWN_STACK
    fninit
    mov     edi, OWN_TABLES
    mov     ecx, 0x4000 / 4
    rep stosd
    mov     dword [OWN_TABLES], OWN_TABLES + 0x1007
    mov     dword [OWN_TABLES + 0x1000], OWN_TABLES + 0x2007
    mov     dword [OWN_TABLES + 0x1018], OWN_TABLES + 0x3007
    mov     edi, OWN_TABLES + 0x2000
    mov     eax, 0xE7                   ; 2 MiB, all rights, accessed, dirty
.low:
    mov     [edi], eax
    add     edi, 8
    add     eax, 0x200000
    cmp     edi, OWN_TABLES + 0x3000
    jb      .low
    mov     eax, 0xC00000E7
.high:
    mov     [edi], eax
    add     edi, 8
    add     eax, 0x200000
    jnc     .high
    mov     eax, 0x220
    mov     cr4, eax
    mov     eax, OWN_TABLES
    mov     cr3, eax
    mov     ecx, 0xC0000080
    mov     eax, 0x900                  ; LME, NXE
    xor     edx, edx
    wrmsr
    mov     eax, 0x80000011
    mov     cr0, eax
    jmp     OWN_CODE:.long
    width 64
.long:
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
