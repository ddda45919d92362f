; Protected mode: segment loads and their rights, system descriptors, rings, call gates, interrupt gates, privileged
; instructions (SDM vol. 3, chapters 5 and 6). Limits are in limits.asm.

%define TEST_NAME "protected: segments, rings and gates"
%include "asm/test.inc"

SLOT_A          equ FREE_SLOT
SLOT_B          equ FREE_SLOT + 8
SLOT_C          equ FREE_SLOT + 16
LDT             equ 0x2400              ; a local table
DATA_AREA       equ 0x20000

width 16
test_main:
    to_protected

    check   "SGDT, SIDT, STR, SLDT, SMSW give back what was loaded"
    sgdt    [VAR0]
    equal   word [VAR0], GDT_SIZE - 1
    equal   dword [VAR0 + 2], GDT
    sidt    [VAR0]
    equal   word [VAR0], VECTORS * 8 - 1
    equal   dword [VAR0 + 2], INTERRUPTS
    str     ax
    equal   ax, TASK
    sldt    ax
    equal   ax, 0
    smsw    ax
    and     ax, 0xF
    equal   ax, CR0_PE

    check   "a segment's base is added; the cache holds until the next load"
    set_descriptor GDT + SLOT_A, DATA_AREA, 0xFFFF, 0x92, FLAG_32
    mov     dword [DATA_AREA + 0x100], 'old '
    mov     dword [DATA_AREA + 0x1100], 'new '
    mov     eax, SLOT_A
    mov     fs, eax
    equal   dword [fs:0x100], 'old '
    set_descriptor GDT + SLOT_A, DATA_AREA + 0x1000, 0xFFFF, 0x92, FLAG_32
    equal   dword [fs:0x100], 'old '
    mov     fs, eax
    equal   dword [fs:0x100], 'new '

    check   "loading sets the accessed bit in memory"
    equal   byte [GDT + SLOT_A + 5], 0x93

    check   "a selector beyond the table: #GP(selector)"
    mov     eax, GDT_SIZE
    may_fault
    mov     fs, eax
    faulted GP, GDT_SIZE
    mov     ax, fs                      ; unchanged
    equal   ax, SLOT_A

    check   "not present: #NP for data, #SS for the stack"
    set_descriptor GDT + SLOT_B, 0, 0xFFFFF, 0x12, FLAG_PAGES | FLAG_32
    mov     eax, SLOT_B
    may_fault
    mov     fs, eax
    faulted NP, SLOT_B
    may_fault
    mov     ss, eax
    faulted SS_, SLOT_B

    check   "what DS may not be: execute-only code, a system segment"
    set_descriptor GDT + SLOT_B, 0, 0xFFFFF, 0x98, FLAG_PAGES | FLAG_32
    may_fault
    mov     gs, eax
    faulted GP, SLOT_B
    mov     ebx, TASK
    may_fault
    mov     gs, ebx
    faulted GP, TASK
    mov     ebx, CODE_32                ; readable code may be read
    may_fault
    mov     gs, ebx
    not_faulted

    check   "what SS may not be: null, code, read-only, of another ring"
    xor     ebx, ebx
    may_fault
    mov     ss, ebx
    faulted GP, 0
    mov     ebx, CODE_32
    may_fault
    mov     ss, ebx
    faulted GP, CODE_32
    set_descriptor GDT + SLOT_B, 0, 0xFFFFF, 0x90, FLAG_PAGES | FLAG_32
    may_fault
    mov     ss, eax
    faulted GP, SLOT_B
    mov     ebx, DATA_USER
    may_fault
    mov     ss, ebx
    faulted GP, DATA_USER & ~3
    mov     ebx, DATA | 1
    may_fault
    mov     ss, ebx
    faulted GP, DATA

    check   "far jumps: to data #GP, not present #NP, null #GP(0), beyond the table #GP"
    may_fault
    jmp     DATA:0
    faulted GP, DATA
    set_descriptor GDT + SLOT_B, 0, 0xFFFFF, 0x1A, FLAG_PAGES | FLAG_32
    may_fault
    jmp     SLOT_B:0
    faulted NP, SLOT_B
    may_fault
    jmp     0:0
    faulted GP, 0
    may_fault
    jmp     GDT_SIZE:0
    faulted GP, GDT_SIZE
    may_fault
    jmp     CODE_32_USER:0              ; outward: never
    faulted GP, CODE_32_USER & ~3

    check   "LAR, LSL, VERR, VERW"
    mov     ebx, DATA
    xor     eax, eax
    lar     eax, ebx
    must    z
    and     eax, 0xF0FF00
    equal   eax, 0xC09300
    lsl     eax, ebx
    must    z
    equal   eax, 0xFFFFFFFF
    mov     ecx, SLOT_A
    lsl     eax, ecx
    must    z
    equal   eax, 0xFFFF
    verw    bx
    must    z
    mov     ebx, CODE_32
    verr    bx
    must    z
    verw    bx
    must    nz
    mov     ebx, GDT_SIZE
    mov     eax, 0x5555
    lar     eax, ebx
    must    nz
    equal   eax, 0x5555
    xor     ebx, ebx
    verr    bx
    must    nz

    check   "ARPL raises the requested ring"
    mov     ax, 0x10
    mov     bx, 0x33
    arpl    ax, bx
    must    z
    equal   ax, 0x13
    mov     bx, 0x30
    arpl    ax, bx
    must    nz

    check   "a local descriptor table"
    set_descriptor GDT + SLOT_B, LDT, 0x1F, 0x82, 0
    set_descriptor LDT + 8, DATA_AREA + 0x2000, 0xFFFF, 0x92, FLAG_32
    mov     eax, SLOT_B
    lldt    ax
    sldt    bx
    equal   bx, SLOT_B
    mov     dword [DATA_AREA + 0x2004], 'ldt!'
    mov     ecx, 8 | 4
    mov     gs, ecx
    equal   dword [gs:4], 'ldt!'
    mov     ecx, 0x20 | 4
    may_fault
    mov     gs, ecx
    faulted GP, 0x20 | 4
    mov     eax, DATA
    may_fault
    lldt    ax
    faulted GP, DATA
    xor     eax, eax
    lldt    ax                          ; none
    mov     ecx, 8 | 4
    may_fault
    mov     gs, ecx
    faulted GP, 8 | 4

    check   "LTR marks the task busy, and refuses a busy one"
    equal   byte [GDT + TASK + 5], 0x8B
    mov     eax, TASK
    may_fault
    ltr     ax
    faulted GP, TASK

    check   "ring 3 and back through an interrupt gate"
    user_begin
    mov     eax, cs
    and     eax, 3
    mov     ebx, ss
    int     LEAVE_USER
    faulted LEAVE_USER
    equal   eax, 3
    equal   ebx, DATA_USER

    check   "privileged instructions in ring 3: #GP(0)"
%macro privileged 1+
    user_begin
    %1
    int     LEAVE_USER
    faulted GP, 0
%endmacro
    privileged hlt
    privileged cli
    privileged sti
    privileged mov eax, cr0
    privileged mov cr3, eax
    privileged mov eax, dr7
    privileged clts
    privileged invlpg [0]
    privileged lgdt [VAR0]
    privileged lidt [VAR0]
    privileged lldt ax
    privileged ltr ax
    privileged lmsw ax
    privileged rdmsr
    privileged wbinvd
    privileged in al, 0x80
    privileged out 0x80, al
    privileged insb

    check   "POPF in ring 3 changes neither IF nor IOPL"
    user_begin
    push    FLAG_IF | FLAG_IOPL | FLAG_CF
    popfd
    pushfd
    pop     eax
    int     LEAVE_USER
    faulted LEAVE_USER
    test    eax, FLAG_CF
    must    nz
    test    eax, FLAG_IF | FLAG_IOPL
    must    z

    check   "ring 3 may not load segments of ring 0"
    mov     eax, DATA
    user_begin
    mov     fs, eax
    faulted GP, DATA
    mov     eax, DATA_USER              ; nor with ring 0 requested … but that is lowered by CPL
    and     eax, ~3
    user_begin
    mov     fs, eax
    int     LEAVE_USER
    faulted LEAVE_USER
    user_begin
    mov     ss, eax                     ; for SS the requested ring counts
    faulted GP, DATA_USER & ~3

    check   "IRET to ring 3 drops the segments that it may not keep"
    mov     eax, DATA
    mov     fs, eax
    mov     eax, DATA_USER
    mov     gs, eax
    user_begin
    mov     eax, fs
    mov     ebx, gs
    int     LEAVE_USER
    faulted LEAVE_USER
    equal   eax, 0
    equal   ebx, DATA_USER

    check   "INT to a gate of ring 0 from ring 3: #GP(vector x 8 + 2)"
    user_begin
    int     0x2F
    faulted GP, 0x2F * 8 + 2
    user_begin
    int     0x31                        ; beyond the table
    faulted GP, 0x31 * 8 + 2
    check   "a gate that is not present: #NP(vector x 8 + 2)"
    mov     byte [INTERRUPTS + 0x2E * 8 + 5], 0x6E
    user_begin
    int     0x2E
    faulted NP, 0x2E * 8 + 2
    mov     byte [INTERRUPTS + 0x2E * 8 + 5], 0x8E

    check   "INT3 and INTO in ring 3 need a gate of ring 3"
    user_begin
    int3
    faulted GP, 3 * 8 + 2
    mov     byte [INTERRUPTS + 3 * 8 + 5], 0xEE
    user_begin
    int3
    faulted BP_
    mov     byte [INTERRUPTS + 3 * 8 + 5], 0x8E

    check   "an interrupt gate clears IF, a trap gate leaves it"
    set_gate INTERRUPTS + 0x2D * 8, CODE_32, .read_flags, 0x8E
    sti
    int     0x2D
    cli
    test    eax, FLAG_IF
    must    z
    mov     byte [INTERRUPTS + 0x2D * 8 + 5], 0x8F
    sti
    int     0x2D
    cli
    test    eax, FLAG_IF
    must    nz
    jmp     .flags_read
.read_flags:
    pushfd
    pop     eax
    iretd
.flags_read:

    check   "a call gate from ring 3: the stack of ring 0, two parameters copied; RETF gives them back"
    set_gate GDT + SLOT_C, CODE_32, .gate_target, 0xEC, 2
    mov     ecx, USER_STACK
    user_begin
    push    'par2'
    push    'par1'
    call    SLOT_C:0
    mov     ecx, esp
    mov     edx, cs
    int     LEAVE_USER
.gate_target:
    mov     eax, [esp + 8]              ; EIP, CS, parameters, ESP, SS
    mov     ebx, [esp + 12]
    mov     esi, [esp + 16]
    mov     edi, esp
    retf    8
    faulted LEAVE_USER
    equal   eax, 'par1'
    equal   ebx, 'par2'
    equal   esi, USER_STACK - 8
    equal   edi, RING0_STACK - 24
    equal   ecx, USER_STACK
    equal   edx, CODE_32_USER

    check   "a call gate of ring 0 is closed to ring 3; a gate not present: #NP"
    mov     byte [GDT + SLOT_C + 5], 0x8C
    user_begin
    call    SLOT_C:0
    faulted GP, SLOT_C
    mov     byte [GDT + SLOT_C + 5], 0x6C
    user_begin
    call    SLOT_C:0
    faulted NP, SLOT_C

    check   "a call gate within ring 0 copies nothing and stays on the stack"
    set_gate GDT + SLOT_C, CODE_32, .same_ring, 0x8C, 2
    mov     ebx, esp
    call    SLOT_C:0
    equal   esp, ebx
    jmp     .same_ring_done
.same_ring:
    mov     ecx, ebx
    sub     ecx, esp
    equal   ecx, 8
    retf
.same_ring_done:

    check   "conforming code runs in the ring of its caller"
    set_descriptor GDT + SLOT_C, 0, 0xFFFFF, 0x9E, FLAG_PAGES | FLAG_32
    user_begin
    call    SLOT_C:.conforming
    int     LEAVE_USER
.conforming:
    mov     eax, cs
    retf
    faulted LEAVE_USER
    equal   eax, SLOT_C | 3

    check   "the I/O permission bitmap"
    mov     byte [GDT + TASK + 5], 0x89
    mov     word [GDT + TASK], 0x68 + 0x20 ; room for a bitmap of ports 0 to FFh
    mov     word [TSS + 0x66], 0x68
    mov     edi, TSS + 0x68
    mov     ecx, 0x20
    mov     al, 0xFF
    rep stosb
    mov     byte [TSS + 0x68 + 0x80 / 8], 0xFE
    mov     byte [TSS + 0x68 + 0x20], 0xFF
    mov     eax, TASK
    ltr     ax
    user_begin
    mov     al, 0x5A
    out     0x80, al
    int     LEAVE_USER
    faulted LEAVE_USER
    user_begin
    in      ax, 0x80                    ; two ports, the second is closed
    faulted GP, 0
    user_begin
    in      al, 0x81
    faulted GP, 0

    check   "IOPL 3 opens all ports and the interrupt flag to ring 3"
    mov     eax, DATA_USER
    may_fault
    push    DATA_USER
    push    USER_STACK
    push    FLAG_IOPL | 2
    push    CODE_32_USER
    push    .with_iopl
    iretd
.with_iopl:
    in      al, 0x81
    sti
    pushfd
    pop     ebx
    cli
    int     LEAVE_USER
    faulted LEAVE_USER
    test    ebx, FLAG_IF
    must    nz

    check   "16-bit code, real mode, and back to protected mode"
    mov     [VAR0], esp
    jmp     CODE_16:.sixteen - ROM
    width 16
.sixteen:
    mov     eax, DATA_16
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     bx, 0xFFF0
    add     bx, 0x20                    ; a word wraps
    mov     eax, cr0
    and     al, ~CR0_PE
    mov     cr0, eax
    jmp     0xF000:.real - ROM
.real:
    mov     ax, cs
    mov     ds, ax
    xor     ax, ax
    mov     es, ax
    mov     ss, ax
    equal   ax, 0
    equal   bx, 0x10
    mov     eax, CR0_PE | CR0_ET
    mov     cr0, eax
    jmp     dword CODE_32:.again
    width 32
.again:
    mov     eax, DATA
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    equal   esp, [VAR0]
    passed
