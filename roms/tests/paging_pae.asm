; PAE paging: the four directory pointers, 64-bit entries, no-execute, 2 MiB pages (SDM vol. 3, 4.4). The last checks want
; the directory pointers to be registers that MOV CR3 loads, as the SDM says; QEMU's TCG reads them from memory each time.

%define TEST_NAME "paging_pae: PAE paging"
%include "asm/test.inc"

POINTERS        equ 0x10000
DIRECTORY       equ 0x11000
TABLE           equ 0x12000             ; at 00C00000
DIRECTORY_2     equ 0x13000
FRAME           equ 0x30000
FRAME_2         equ 0x31000
PAGE            equ 0x00C00000

MATRIX_LINEAR   equ PAGE + 0x5000
MATRIX_UPPER    equ DIRECTORY + 6 * 8
MATRIX_LEAF     equ TABLE + 5 * 8
MATRIX_TABLE    equ TABLE
MATRIX_FRAME    equ 0x32000
%define MATRIX_NX 1
width 32
%include "asm/matrix.inc"

%macro flush 0
    mov     eax, cr3
    mov     cr3, eax
%endmacro

width 16
test_main:
    to_protected
    test    dword [FEATURES], HAS_PAE
    jnz     .has_pae
    check   "this processor has no PAE: nothing to do"
    passed
.has_pae:
    mov     edi, POINTERS
    mov     ecx, 4 * 1024
    xor     eax, eax
    rep stosd
    mov     dword [POINTERS], DIRECTORY | PRESENT
    mov     dword [DIRECTORY], LARGE | PRESENT | WRITABLE | USER
    mov     dword [DIRECTORY + 6 * 8], TABLE | PRESENT | WRITABLE | USER
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | USER
    mov     dword [FRAME], 'one '
    mov     dword [FRAME_2], 'two '

    check   "paging on"
    mov     eax, cr4
    or      eax, CR4_PAE
    mov     cr4, eax
    mov     eax, POINTERS
    mov     cr3, eax
    mov     eax, cr0
    or      eax, CR0_PG
    mov     cr0, eax
    equal   dword [PAGE], 'one '
    mov     eax, cr3
    equal   eax, POINTERS

    check   "accessed and dirty in 64-bit entries"
    equal   dword [TABLE], FRAME | PRESENT | WRITABLE | USER | ACCESSED
    mov     dword [PAGE + 4], 1
    equal   dword [TABLE], FRAME | PRESENT | WRITABLE | USER | ACCESSED | DIRTY
    equal   dword [DIRECTORY], LARGE | PRESENT | WRITABLE | USER | ACCESSED | DIRTY

    check   "an absent pointer, directory entry, page: error code 0"
    may_fault
    mov     eax, [0x40000000]
    faulted PF, 0
    may_fault
    mov     eax, [0x00A00000]
    faulted PF, 0
    may_fault
    mov     eax, [PAGE + 0x8000]
    faulted PF, 0
    may_fault
    mov     [0x40000000], eax
    faulted PF, 2

    check   "a large page of 2 MiB at another address"
    mov     dword [DIRECTORY + 7 * 8], 0 | LARGE | PRESENT | WRITABLE
    equal   dword [7 * 0x200000 + FRAME_2], 'two '
    mov     byte [7 * 0x200000 + FRAME_2 + 8], 1
    equal   byte [FRAME_2 + 8], 1

    check   "both halves of an entry count: the upper one alone moves the page away and back"
    mov     dword [TABLE + 9 * 8], FRAME_2 | PRESENT | WRITABLE
    equal   dword [PAGE + 0x9000], 'two '
    mov     dword [TABLE + 9 * 8], 0
    invlpg  [PAGE + 0x9000]
    may_fault
    mov     eax, [PAGE + 0x9000]
    faulted PF, 0

    check   "an entry replaced at once by CMPXCHG8B"
    mov     eax, [TABLE]
    mov     edx, [TABLE + 4]
    mov     ebx, FRAME_2 | PRESENT | WRITABLE | USER
    xor     ecx, ecx
    lock cmpxchg8b [TABLE]
    must    z
    invlpg  [PAGE]
    equal   dword [PAGE], 'two '
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | USER
    invlpg  [PAGE]

    test    dword [FEATURES_EXT], HAS_NX
    jz      .no_nx
    check   "bit 63 is reserved while EFER.NXE is 0: error code 9"
    mov     dword [TABLE + 4], 1 << 31
    invlpg  [PAGE]
    may_fault
    mov     eax, [PAGE]
    faulted PF
    mov     eax, [FAULT_ERROR]
    and     eax, ~1                     ; QEMU leaves the present bit out
    equal   eax, 8

    check   "with EFER.NXE it forbids execution: error code 11h"
    mov     ecx, EFER
    rdmsr
    or      eax, EFER_NXE
    wrmsr
    flush
    equal   dword [PAGE], 'one '
    mov     byte [PAGE], 0xC3
    mov     eax, PAGE
    may_fault
    call    eax
    faulted PF, 0x11
    equal   dword [FAULT_LINEAR], PAGE
    equal   dword [FAULT_RETURN], PAGE
    mov     dword [TABLE + 4], 0
    invlpg  [PAGE]
    mov     eax, PAGE
    call    eax
    mov     dword [PAGE], 'one '

    check   "a fetch that faults in the second page of an instruction: CR2 is the page"
    mov     dword [TABLE + 0x10 * 8], FRAME | PRESENT | WRITABLE
    mov     dword [TABLE + 0x11 * 8], FRAME_2 | PRESENT | WRITABLE
    mov     dword [TABLE + 0x11 * 8 + 4], 1 << 31
    mov     byte [FRAME + 0xFFE], 0xB8  ; MOV EAX, imm32
    mov     eax, PAGE + 0x10FFE
    may_fault
    call    eax
    faulted PF, 0x11
    equal   dword [FAULT_LINEAR], PAGE + 0x11000
    equal   dword [FAULT_RETURN], PAGE + 0x10FFE

    check   "the matrix of rights, with no-execute in both levels"
    call    fn(matrix)
    mov     dword [DIRECTORY + 6 * 8], TABLE | PRESENT | WRITABLE | USER
    mov     dword [DIRECTORY + 6 * 8 + 4], 0
    flush
.no_nx:

    check   "MOV to CR3 with a reserved bit in a directory pointer: #GP(0), nothing changes"
    mov     dword [POINTERS + 8], DIRECTORY | PRESENT | WRITABLE
    mov     eax, cr3
    may_fault
    mov     cr3, eax
    faulted GP, 0
    equal   dword [PAGE], 'one '
    mov     dword [POINTERS + 8], 0
    mov     cr3, eax

    check   "the directory pointers have no accessed bit"
    equal   dword [POINTERS], DIRECTORY | PRESENT

    check   "a store to a directory pointer has no effect until CR3 is loaded"
    mov     esi, DIRECTORY
    mov     edi, DIRECTORY_2
    mov     ecx, 1024
    rep movsd
    mov     dword [DIRECTORY_2 + 6 * 8], 0 | LARGE | PRESENT | WRITABLE
    mov     dword [POINTERS + 8], DIRECTORY_2 | PRESENT
    invlpg  [0x40000000 + PAGE + FRAME]
    may_fault
    mov     eax, [0x40000000 + PAGE + FRAME]
    faulted PF, 0
    flush
    may_fault
    mov     eax, [0x40000000 + PAGE + FRAME]
    not_faulted
    equal   eax, 'one '
    passed
