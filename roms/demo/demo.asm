; The demo guest: a ROM of 64 KiB that walks a person through the machine, on the first serial port and on the screen.
;
; It needs nothing but the reset vector: no firmware, no boot protocol, no disk. It goes from real mode through protected
; mode, 32-bit paging and PAE to long mode. Each step is bracketed by `begin` and `finish`, which read the monitor's
; counters, and its row shows what the step cost the monitor: the printing itself is left out.
;
; Read in this order: this file (real mode), protected.inc, paging.inc, spaces.inc, pae.inc, long.inc; then steps.inc
; (rows and counters), farewell.inc (the summary, power-off). What it shares with the test ROMs is in roms/asm.
; Needs 1 MiB of memory.

%include "asm/width.inc"
%include "asm/ports.inc"
%include "asm/gates.inc"
%include "asm/registers.inc"

; Memory below 64 KiB. Variables take eight bytes each, so that code of any width can load them whole.
COLUMN          equ 0x500               ; of the cursor
MONITOR_KEY     equ 0x508               ; the fw_cfg key of the monitor's counters, 0 if there are none
FAULTS          equ 0x510               ; exceptions taken so far
FAULT_VECTOR    equ 0x518               ; of the last one: its vector, error code, linear address, and where
FAULT_ERROR     equ 0x520
FAULT_LINEAR    equ 0x528
FAULT_PLAN      equ 0x530               ; what to do about the next one: a routine, or 0 if none is expected
RESUME_AT       equ 0x538               ; where the plan `skip` goes on
NEXT_FRAME      equ 0x540               ; the next free frame for holes
SCRATCH         equ 0x548
CPU_LEAF1       equ 0x550               ; CPUID 1: EAX, EDX
CPU_FEATURES    equ 0x558
CPU_EXTENDED    equ 0x560               ; CPUID 80000001h: EDX
CPU_NAME        equ 0x568               ; 12 characters
FAULT_RETURN    equ 0x578
SCREEN_AT       equ 0x580               ; where the next character goes on the screen, and its colour
SCREEN_COLOUR   equ 0x588
VARIABLES_END   equ 0x590

%define ECHO_TO_SCREEN
BEFORE          equ 0x600               ; the counters, as the machine gives them: before a step, after it, at the start
AFTER           equ 0x640
AT_START        equ 0x680
FILE_ENTRY      equ 0x700               ; an entry of the fw_cfg directory
INTERRUPTS      equ 0x800               ; the interrupt descriptor table
VECTORS         equ 32
STACK_TOP       equ 0x7000

; Guest tables, from 64 KiB on.
DIRECTORY_A     equ 0x10000             ; 32-bit paging: the directories of two address spaces, and tables
DIRECTORY_B     equ 0x11000
TABLE_LOW       equ 0x12000
TABLE_HOLES     equ 0x13000
TABLE_A         equ 0x14000
TABLE_B         equ 0x15000
PAE_POINTERS    equ 0x18000
PAE_DIRECTORY   equ 0x19000
PAE_TABLE       equ 0x1A000
LONG_TOP        equ 0x1C000             ; PML4, and one table of each level for low and for high addresses
LONG_POINTERS   equ 0x1D000
LONG_DIRECTORY  equ 0x1E000
HIGH_POINTERS   equ 0x1F000
HIGH_DIRECTORY  equ 0x20000
HIGH_TABLE      equ 0x21000
TABLES_END      equ 0x22000
; Frames with data.
FRAMES          equ 0x30000             ; 64 of them, touched one by one
FRAME_ALFA      equ 0x70000
FRAME_BETA      equ 0x71000
FRAME_ZETA      equ 0x72000
FRAME_READ_ONLY equ 0x73000
FRAME_CODE      equ 0x74000
FRAMES_FOR_HOLES equ 0x78000            ; up to 8FFFFh

org ROM
section .text
section .rodata follows=.text align=4
section .text

width 16
    jmp     start                       ; the first byte is an entry too: F000:0000
%include "asm/screen.inc"
%include "asm/console.inc"
%include "demo/steps.inc"

start:
    cli
    cld
    mov     ax, cs                      ; F000h: the ROM
    mov     ds, ax
    xor     ax, ax
    mov     es, ax
    mov     ss, ax
    mov     esp, STACK_TOP
    mov     edi, COLUMN
    mov     cx, VARIABLES_END - COLUMN
    rep stosb
    mov     word [ram(NEXT_FRAME + 2)], FRAMES_FOR_HOLES >> 16
    mov     word [ram(NEXT_FRAME)], FRAMES_FOR_HOLES & 0xFFFF
    call    serial_start
    call    screen_start
    call    find_monitor
    mov     edi, AT_START
    call    fn(read_counters)
    say     10, BRIGHT, " UMBRA", PLAIN, "  a walk through the machine, told by the guest itself", 10
    say     DIM, " At the right: what the monitor did for each step, and nothing for the printing.", PLAIN, 10

    post 1
    section_title CYAN, "1 Real mode: segment x 16 + offset"
    begin
    call    identify
    finish
    say     "  processor "
    call    say_processor
    row_end
    begin
    call    memory_size
    finish
    say     "  memory    "
    say_decimal eax
    say     " MiB"
    row_end

    ; Two names for the same byte.
    begin
    mov     ax, 0x1000
    mov     fs, ax
    mov     dword [fs:0x10], 'ALFA'
    mov     ax, 0x1001
    mov     fs, ax
    mov     eax, [fs:0]
    finish
    say     "  1000:0010 written, 1001:0000 reads "
    say_word eax
    row_end
    jmp     to_protected_mode

; Who made the processor, and what it can do. A processor without CPUID leaves the variables 0.
identify:
    pushfd
    pop     eax
    mov     ecx, eax
    xor     eax, 1 << 21                ; EFLAGS.ID
    push    eax
    popfd
    pushfd
    pop     eax
    xor     eax, ecx
    test    eax, 1 << 21
    jz      .end
    xor     eax, eax
    cpuid
    mov     [ram(CPU_NAME)], ebx
    mov     [ram(CPU_NAME + 4)], edx
    mov     [ram(CPU_NAME + 8)], ecx
    mov     eax, 1
    cpuid
    mov     [ram(CPU_LEAF1)], eax
    mov     [ram(CPU_FEATURES)], edx
    mov     eax, 0x80000000
    cpuid
    cmp     eax, 0x80000001
    jb      .end
    mov     eax, 0x80000001
    cpuid
    mov     [ram(CPU_EXTENDED)], edx
.end:
    ret

say_processor:
    cmp     dword [ram(CPU_NAME)], 0
    je      .without_cpuid
    say_word [ram(CPU_NAME)]
    say_word [ram(CPU_NAME + 4)]
    say_word [ram(CPU_NAME + 8)]
    mov     ecx, [ram(CPU_LEAF1)]
    mov     eax, ecx                    ; the family, with its extension if it is 15
    shr     eax, 8
    and     eax, 15
    cmp     eax, 15
    jne     .family
    mov     edx, ecx
    shr     edx, 20
    movzx   edx, dl
    add     eax, edx
.family:
    say     " family "
    say_decimal eax
    mov     eax, ecx                    ; the model likewise
    shr     eax, 4
    and     eax, 15
    mov     edx, ecx
    shr     edx, 12
    and     edx, 0xF0
    add     eax, edx
    say     " model "
    say_decimal eax
    ret
.without_cpuid:
    say     "too old to have CPUID"
    ret

; EAX = memory in MiB: from fw_cfg if it is there, else from CMOS, where PC firmware keeps it.
memory_size:
    mov     dx, FW_CFG_SELECT
    xor     ax, ax                      ; item 0: "QEMU"
    out     dx, ax
    inc     dx
    mov     di, SCRATCH
    mov     cx, 4
    rep insb
    cmp     dword [ram(SCRATCH)], 'QEMU'
    jne     .cmos
    dec     dx
    mov     ax, 3                       ; item 3: bytes of RAM
    out     dx, ax
    inc     dx
    mov     di, SCRATCH
    mov     cx, 8
    rep insb
    mov     eax, [ram(SCRATCH)]
    mov     edx, [ram(SCRATCH + 4)]
    shrd    eax, edx, 20
    test    eax, eax
    jnz     .end
.cmos:
    mov     al, 0x35                    ; 34h and 35h: units of 64 KiB above 16 MiB
    call    .read
    mov     ah, al
    mov     al, 0x34
    call    .read
    movzx   eax, ax
    shr     eax, 4
    add     eax, 16
.end:
    ret
.read:
    out     CMOS_INDEX, al
    in      al, CMOS_DATA
    ret

%include "demo/protected.inc"
%include "demo/paging.inc"
%include "demo/spaces.inc"
%include "demo/pae.inc"
%include "demo/steps.inc"
%include "asm/faults.inc"
%include "demo/farewell.inc"
%include "asm/screen.inc"
%include "asm/console.inc"
%include "demo/long.inc"
%include "demo/steps.inc"
%include "asm/faults.inc"
%include "demo/farewell.inc"
%include "asm/screen.inc"
%include "asm/console.inc"

; Where the processor starts: F000:FFF0, the last 16 bytes below 4 GiB, which are also the last below 1 MiB.
section .reset start=0xFFFF0
    bits 16
    jmp     0xF000:(start - ROM)
    times 16 - ($ - $$) db 0xFF
