; Segment limits, on every kind of access, in real and protected mode (SDM vol. 3, 5.3). QEMU's TCG does not check them.

%define TEST_NAME "limits: segment limits"
%include "asm/test.inc"

SLOT_A          equ FREE_SLOT
SLOT_B          equ FREE_SLOT + 8
AREA            equ 0x20000

width 16
test_main:
    check   "real mode: a word at FFFF is beyond the limit, #GP; on the stack segment #SS"
    mov     bx, 0xFFFF
    may_fault
    mov     ax, [bx]
    faulted GP
    may_fault
    mov     al, [bx]
    not_faulted
    mov     bp, 0xFFFF
    may_fault
    mov     ax, [bp]
    faulted SS_
    mov     ebx, 0x10000
    may_fault
    mov     al, [ebx]
    faulted GP

    check   "real mode: a string instruction stops at the end with its registers"
    mov     di, 0xFFF9
    mov     cx, 10
    mov     ax, 0x1111
    may_fault
    push    word 0x2000
    pop     es
    rep stosw
    faulted GP
    equal   di, 0xFFFF
    equal   cx, 7

    check   "real mode: code runs into the end of its segment, #GP"
    mov     ax, 0x2000
    mov     fs, ax
    mov     byte [fs:0xFFFF], 0xB0      ; the first byte of MOV AL, imm8
    may_fault
    jmp     0x2000:0xFFFF
    faulted GP
    equal   dword [ram(FAULT_RETURN)], 0xFFFF

    to_protected

    check   "byte-granular: the last byte is the limit"
    set_descriptor GDT + SLOT_A, AREA, 0xFF, 0x92, FLAG_32
    mov     eax, SLOT_A
    mov     fs, eax
    may_fault
    mov     al, [fs:0xFF]
    mov     ax, [fs:0xFE]
    mov     ebx, [fs:0xFC]
    not_faulted
    may_fault
    mov     al, [fs:0x100]
    faulted GP, 0
    may_fault
    mov     ax, [fs:0xFF]
    faulted GP, 0
    may_fault
    mov     ebx, [fs:0xFD]
    faulted GP, 0
    may_fault
    mov     [fs:0xFD], ebx
    faulted GP, 0
    may_fault
    add     [fs:0xFD], ebx
    faulted GP, 0
    may_fault
    mov     ebx, [fs:0xFFFFFFFE]        ; wraps around
    faulted GP, 0

    check   "the x87's and other wide operands are measured whole"
    fninit
    may_fault
    fld     qword [fs:0xF9]
    faulted GP, 0
    may_fault
    fnstenv [fs:0xFF - 27]
    not_faulted
    may_fault
    fnstenv [fs:0xFF - 26]
    faulted GP, 0
    may_fault
    cmpxchg8b [fs:0xF9]
    faulted GP, 0
    may_fault
    sgdt    [fs:0xFB]
    faulted GP, 0

    check   "page-granular: the limit's low 12 bits are ones"
    set_descriptor GDT + SLOT_A, AREA, 1, 0x92, FLAG_32 | FLAG_PAGES
    mov     eax, SLOT_A
    mov     fs, eax
    may_fault
    mov     al, [fs:0x1FFF]
    not_faulted
    may_fault
    mov     al, [fs:0x2000]
    faulted GP, 0

    check   "expand-down: valid above the limit"
    set_descriptor GDT + SLOT_A, AREA, 0xFF, 0x96, FLAG_32
    mov     ecx, SLOT_A
    mov     fs, ecx
    may_fault
    mov     al, [fs:0xFF]
    faulted GP, 0
    may_fault
    mov     al, [fs:0x100]
    not_faulted
    may_fault
    mov     ax, [fs:0xFE]
    faulted GP, 0
    set_descriptor GDT + SLOT_A, AREA, 0xFF, 0x96, 0
    mov     fs, ecx                     ; 16-bit: up to FFFF only
    may_fault
    mov     al, [fs:0xFFFF]
    not_faulted
    may_fault
    mov     al, [fs:0x10000]
    faulted GP, 0

    check   "read-only data, execute-only code, code is not writable"
    set_descriptor GDT + SLOT_A, AREA, 0xFFF, 0x90, FLAG_32
    mov     fs, ecx
    may_fault
    mov     ebx, [fs:0]
    not_faulted
    may_fault
    mov     [fs:0], ebx
    faulted GP, 0
    may_fault
    mov     ebx, [cs:start]
    not_faulted
    may_fault
    mov     [cs:VAR0], ebx
    faulted GP, 0

    check   "a null selector loads, and faults when used"
    xor     eax, eax
    may_fault
    mov     gs, eax
    not_faulted
    may_fault
    mov     ebx, [gs:0]
    faulted GP, 0

    check   "the stack segment: #SS(0), by EBP and by POP"
    set_descriptor GDT + SLOT_B, AREA, 0xFFF, 0x92, FLAG_32
    mov     ebx, esp
    mov     eax, SLOT_B
    mov     ss, eax
    mov     esp, 0x800
    mov     ebp, 0x1000
    may_fault
    mov     edx, [ebp]
    faulted SS_, 0
    mov     esp, 0xFFE
    may_fault
    pop     edx
    faulted SS_, 0
    equal   esp, 0xFFE
    mov     eax, DATA
    mov     ss, eax
    mov     esp, ebx

    check   "jumps beyond the code segment's limit: #GP(0), at the jump"
    set_descriptor GDT + SLOT_A, 0, 0xFF, 0x9A, FLAG_32 | FLAG_PAGES
    may_fault
    jmp     SLOT_A:.short_code
.short_code:
.jump:
    mov     eax, 0x100000
    jmp     eax
    faulted GP, 0
    equal   dword [FAULT_RETURN], .jump + 5
    may_fault
.far:
    jmp     SLOT_A:0x100000
    faulted GP, 0
    equal   dword [FAULT_RETURN], .far

    check   "REP MOVS meets the limit in the middle, its registers tell where"
    set_descriptor GDT + SLOT_A, AREA, 0x1F, 0x92, FLAG_32
    mov     eax, SLOT_A
    mov     gs, eax
    mov     esi, 0
    mov     edi, AREA + 0x1000
    mov     ecx, 12
    may_fault
    gs rep movsd
    faulted GP, 0
    equal   ecx, 4
    equal   esi, 0x20
    equal   edi, AREA + 0x1020

    check   "a descriptor that the table's limit cuts: #GP"
    mov     word [VAR0], FREE_SLOT + 6
    mov     dword [VAR0 + 2], GDT
    lgdt    [VAR0]
    mov     eax, SLOT_A
    may_fault
    mov     fs, eax
    faulted GP, SLOT_A
    lgdt    [gdt_pointer]

    passed
