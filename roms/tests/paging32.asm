; 32-bit paging: rights, error codes, accessed and dirty bits, large pages, remapping, aliases, the recursive directory
; (SDM vol. 3, 4.3 and 4.6 to 4.10). QEMU's TCG leaves the present bit out of the error code for reserved bits.

%define TEST_NAME "paging32: 32-bit paging"
%include "asm/test.inc"

DIRECTORY       equ 0x10000
TABLE_LOW       equ 0x11000             ; the first 4 MiB to themselves
TABLE           equ 0x12000             ; at 00800000
DIRECTORY_2     equ 0x13000
FRAME           equ 0x30000
FRAME_2         equ 0x31000
PAGE            equ 0x00800000

MATRIX_LINEAR   equ PAGE + 0x5000
MATRIX_UPPER    equ DIRECTORY + 2 * 4
MATRIX_LEAF     equ TABLE + 5 * 4
MATRIX_TABLE    equ TABLE
MATRIX_FRAME    equ 0x32000
%define MATRIX_NX 0
width 32
%include "asm/matrix.inc"

%macro flush 0
    mov     eax, cr3
    mov     cr3, eax
%endmacro

width 16
test_main:
    to_protected
    mov     edi, DIRECTORY
    mov     ecx, 4 * 1024
    xor     eax, eax
    rep stosd
    mov     edi, TABLE_LOW
    mov     eax, PRESENT | WRITABLE | USER
.identity:
    stosd
    add     eax, 0x1000
    cmp     eax, 0x400000
    jb      .identity
    mov     dword [DIRECTORY], TABLE_LOW | PRESENT | WRITABLE | USER
    mov     dword [DIRECTORY + 2 * 4], TABLE | PRESENT | WRITABLE | USER
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | USER
    mov     dword [FRAME], 'one '
    mov     dword [FRAME_2], 'two '

    check   "paging on: CR3 and CR0 read back"
    mov     eax, DIRECTORY
    mov     cr3, eax
    mov     eax, cr0
    or      eax, CR0_PG
    mov     cr0, eax
    mov     ebx, cr3
    equal   ebx, DIRECTORY
    mov     ebx, cr0
    equal   eax, ebx
    equal   dword [PAGE], 'one '

    check   "accessed in both levels after a read, dirty in the leaf after a write"
    mov     eax, [TABLE]
    equal   eax, FRAME | PRESENT | WRITABLE | USER | ACCESSED
    mov     eax, [DIRECTORY + 2 * 4]
    and     eax, ACCESSED | DIRTY
    equal   eax, ACCESSED
    mov     dword [PAGE + 4], 1
    mov     eax, [TABLE]
    equal   eax, FRAME | PRESENT | WRITABLE | USER | ACCESSED | DIRTY

    check   "cleared by the guest, the bits are set again (after INVLPG)"
    and     dword [TABLE], ~(ACCESSED | DIRTY)
    invlpg  [PAGE]
    mov     eax, [PAGE]
    mov     eax, [TABLE]
    and     eax, ACCESSED | DIRTY
    equal   eax, ACCESSED
    or      byte [PAGE + 8], 0
    test    byte [TABLE], DIRTY
    must    nz

    check   "the matrix of rights: 2 levels x 3 accesses x 2 rings x WP"
    call    fn(matrix)
    mov     dword [DIRECTORY + 2 * 4], TABLE | PRESENT | WRITABLE | USER
    flush

    check   "CR2 is the exact address, EIP the instruction; registers are kept"
    mov     eax, 'keep'
    mov     ebx, 0x00C12345
    may_fault
.access:
    add     eax, [ebx]
    faulted PF, 0
    equal   dword [FAULT_LINEAR], 0x00C12345
    equal   dword [FAULT_RETURN], .access
    equal   eax, 'keep'

    check   "CR2 can be written, and stays until the next fault"
    mov     eax, 0x12345678
    mov     cr2, eax
    mov     ebx, [PAGE]
    mov     ecx, cr2
    equal   ecx, 0x12345678

    check   "remapped: INVLPG shows the new frame, a reload of CR3 does too"
    mov     dword [TABLE], FRAME_2 | PRESENT | WRITABLE | USER
    invlpg  [PAGE + 0x123]
    equal   dword [PAGE], 'two '
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | USER
    flush
    equal   dword [PAGE], 'one '

    check   "present becomes visible without INVLPG"
    mov     dword [TABLE + 9 * 4], 0
    may_fault
    mov     eax, [PAGE + 0x9000]
    faulted PF, 0
    mov     dword [TABLE + 9 * 4], FRAME_2 | PRESENT | WRITABLE
    equal   dword [PAGE + 0x9000], 'two '

    check   "a directory entry replaced moves 1024 pages"
    mov     dword [DIRECTORY + 5 * 4], TABLE | PRESENT | WRITABLE
    equal   dword [5 * 0x400000], 'one '
    mov     dword [DIRECTORY + 5 * 4], TABLE_LOW | PRESENT | WRITABLE
    flush
    equal   dword [5 * 0x400000 + FRAME_2], 'two '
    mov     dword [DIRECTORY + 5 * 4], 0
    flush
    may_fault
    mov     eax, [5 * 0x400000 + FRAME_2]
    faulted PF, 0

    check   "aliases: a store by one name is seen by the other; dirty is per entry"
    mov     dword [TABLE + 10 * 4], FRAME | PRESENT | WRITABLE
    mov     dword [TABLE + 11 * 4], FRAME | PRESENT | WRITABLE
    mov     eax, [PAGE + 0xB000]
    mov     dword [PAGE + 0xA000], 'both'
    equal   dword [PAGE + 0xB000], 'both'
    equal   dword [FRAME], 'both'
    test    byte [TABLE + 10 * 4], DIRTY
    must    nz
    test    byte [TABLE + 11 * 4], DIRTY
    must    z
    mov     dword [FRAME], 'one '

    check   "the directory as a table of itself"
    mov     dword [DIRECTORY + 1023 * 4], DIRECTORY | PRESENT | WRITABLE
    equal   dword [0xFFFFF000], TABLE_LOW | PRESENT | WRITABLE | USER | ACCESSED
    mov     eax, [0xFFC02000]           ; the table's first entry, by the recursive window
    and     eax, 0xFFFFF000
    equal   eax, FRAME
    mov     dword [0xFFC02000], FRAME_2 | PRESENT | WRITABLE
    invlpg  [PAGE]
    equal   dword [PAGE], 'two '
    mov     dword [0xFFC02000], FRAME | PRESENT | WRITABLE
    invlpg  [PAGE]
    equal   dword [PAGE], 'one '

    check   "without CR4.PSE the size bit is ignored"
    mov     dword [DIRECTORY + 6 * 4], TABLE | PRESENT | WRITABLE | LARGE
    equal   dword [6 * 0x400000], 'one '

    test    dword [FEATURES], HAS_PSE
    jz      .no_pse
    check   "large pages: 4 MiB by one entry, with its accessed and dirty bits"
    mov     eax, cr4
    or      eax, CR4_PSE
    mov     cr4, eax
    mov     dword [DIRECTORY + 6 * 4], 0 | PRESENT | WRITABLE | LARGE
    flush
    equal   dword [6 * 0x400000 + FRAME], 'one '
    equal   dword [DIRECTORY + 6 * 4], PRESENT | WRITABLE | LARGE | ACCESSED
    mov     dword [6 * 0x400000 + FRAME_2 + 4], 'more'
    equal   dword [FRAME_2 + 4], 'more'
    equal   dword [DIRECTORY + 6 * 4], PRESENT | WRITABLE | LARGE | ACCESSED | DIRTY

    check   "a large page: rights and error codes"
    mov     dword [DIRECTORY + 6 * 4], PRESENT | LARGE
    mov     eax, cr0
    or      eax, CR0_WP
    mov     cr0, eax
    flush
    may_fault
    mov     dword [6 * 0x400000 + FRAME], 0
    faulted PF, 3
    user_begin
    mov     eax, [6 * 0x400000 + FRAME]
    faulted PF, 5
    equal   dword [FAULT_LINEAR], 6 * 0x400000 + FRAME

    check   "reserved bits of a large page: error code 9"
    mov     dword [DIRECTORY + 6 * 4], PRESENT | LARGE | WRITABLE | USER | 1 << 21
    flush
    may_fault
    mov     eax, [6 * 0x400000]
    faulted PF, 9
    mov     dword [DIRECTORY + 6 * 4], 0
    mov     eax, cr0
    and     eax, ~CR0_WP
    mov     cr0, eax
    flush

    check   "a large page that covers the tables: a store through it edits them"
    mov     dword [DIRECTORY + 7 * 4], PRESENT | WRITABLE | LARGE
    flush
    mov     dword [7 * 0x400000 + TABLE], FRAME_2 | PRESENT | WRITABLE
    invlpg  [PAGE]
    equal   dword [PAGE], 'two '
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE
    invlpg  [PAGE]
    equal   dword [PAGE], 'one '
.no_pse:

    check   "two directories share a table: an edit shows in both"
    mov     esi, DIRECTORY
    mov     edi, DIRECTORY_2
    mov     ecx, 1024
    rep movsd
    mov     eax, DIRECTORY_2
    mov     cr3, eax
    equal   dword [PAGE], 'one '
    mov     dword [TABLE], FRAME_2 | PRESENT | WRITABLE
    invlpg  [PAGE]
    equal   dword [PAGE], 'two '
    mov     eax, DIRECTORY
    mov     cr3, eax
    equal   dword [PAGE], 'two '

    check   "paging off and on again"
    mov     eax, cr0
    and     eax, ~CR0_PG
    mov     cr0, eax
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE
    equal   dword [FRAME], 'one '
    or      eax, CR0_PG
    mov     cr0, eax
    equal   dword [PAGE], 'one '

    check   "PG without PE: #GP(0)"
    mov     eax, cr0
    and     eax, ~CR0_PE
    may_fault
    mov     cr0, eax
    faulted GP, 0
    passed
