; Guest tables written by every means a guest has, and address spaces switched in storms: the next access must follow
; the tables (SDM vol. 3, 4.10).

%define TEST_NAME "tables: writes to live page tables, storms of CR3 and INVLPG"
%include "asm/test.inc"
%include "asm/flat32.inc"

FRAMES          equ 0x40000             ; 64 frames; the first dword of each is its number
SPACES          equ 0x80000             ; directories of the CR3 storm, each with a table behind it
COUNT           equ 16

%macro shows 2                          ; page number, the frame's number
    invlpg  [PAGE + (%1) * 0x1000]
    equal   dword [PAGE + (%1) * 0x1000], %2
%endmacro
%macro absent 1
    invlpg  [PAGE + (%1) * 0x1000]
    may_fault
    mov     eax, [PAGE + (%1) * 0x1000]
    faulted PF, 0
%endmacro
%define FRAME(n) (FRAMES + (n) * 0x1000)

width 16
test_main:
    to_protected
    call    paging_on
    mov     edi, FRAMES
    xor     eax, eax
.number:
    mov     [edi], eax
    add     edi, 0x1000
    inc     eax
    cmp     eax, 64
    jb      .number
    map     0, FRAME(0)
    map     1, FRAME(1)
    shows   0, 0
    shows   1, 1

    check   "single bytes: the rights, the lowest byte of the frame's number, the next"
    mov     byte [TABLE + 1], (FRAME(2) >> 8) & 0xFF
    shows   0, 2
    mov     byte [TABLE + 2], (FRAMES + 0x10000) >> 16
    shows   0, 18
    mov     byte [TABLE], 0
    absent  0
    mov     byte [TABLE], PRESENT
    shows   0, 18

    check   "words"
    mov     word [TABLE + 2], FRAMES >> 16
    shows   0, 2
    mov     word [TABLE], (FRAME(3) & 0xFFFF) | RIGHTS
    shows   0, 3

    check   "dwords at every offset: two entries at once"
    mov     dword [TABLE], FRAME(4) | RIGHTS
    mov     dword [TABLE + 4], FRAME(5) | RIGHTS
    shows   0, 4
    shows   1, 5
    ; The entries are 00044007h and 00045007h; together they become 00046007h, 00047007h.
    mov     dword [TABLE + 1], 0x07000460
    shows   0, 6
    mov     dword [TABLE + 3], 0x04700700
    shows   1, 7
    mov     word [TABLE + 3], 0x0000
    shows   0, 6
    absent  1
    mov     byte [TABLE + 4], RIGHTS
    shows   1, 7

    check   "a store that straddles from the page before the table into it"
    map     0x10, TABLE_LOW
    mov     dword [TABLE - 2], 0x90070000   ; the low half of entry 0: frame …9
    mov     word [TABLE + 2], FRAMES >> 16
    shows   0, 9
    map     0x10, 0, 0

    check   "8 bytes by the x87: both entries"
    fninit
    mov     dword [VAR0], FRAME(10) | RIGHTS
    mov     dword [VAR1 - 4], FRAME(11) | RIGHTS
    fild    qword [VAR0]
    fistp   qword [TABLE]
    shows   0, 10
    shows   1, 11
    mov     dword [VAR0], FRAME(12) | RIGHTS
    fild    qword [VAR0]
    fistp   qword [TABLE + 1]           ; unaligned: entry 0's upper bytes, all of entry 1, a byte of entry 2
    mov     dword [TABLE], FRAME(10) | RIGHTS
    mov     dword [TABLE + 4], FRAME(11) | RIGHTS
    mov     dword [TABLE + 8], 0
    shows   0, 10

    check   "XCHG, LOCK OR, LOCK AND, XADD, CMPXCHG, CMPXCHG8B, BTR"
    mov     eax, FRAME(13) | RIGHTS
    xchg    [TABLE], eax
    shows   0, 13
    lock and dword [TABLE], ~PRESENT
    absent  0
    lock or dword [TABLE], PRESENT
    shows   0, 13
    mov     eax, 0x1000
    lock xadd [TABLE], eax
    shows   0, 14
    mov     eax, [TABLE]
    mov     ecx, FRAME(15) | RIGHTS
    lock cmpxchg [TABLE], ecx
    must    z
    shows   0, 15
    mov     eax, [TABLE]
    mov     edx, [TABLE + 4]
    mov     ebx, FRAME(16) | RIGHTS
    mov     ecx, FRAME(17) | RIGHTS
    lock cmpxchg8b [TABLE]
    must    z
    shows   0, 16
    shows   1, 17
    lock btr dword [TABLE], 0
    absent  0
    bts     dword [TABLE], 0
    shows   0, 16

    check   "REP STOSD and REP MOVSD over a whole table, REP MOVSB unaligned"
    mov     edi, TABLE
    mov     ecx, 1024
    mov     eax, FRAME(20) | RIGHTS
    rep stosd
    shows   0, 20
    shows   1023, 20
    mov     esi, TABLE_LOW + (FRAMES >> 12) * 4
    mov     edi, TABLE
    mov     ecx, 64
    rep movsd
    shows   0, 0
    shows   63, 63
    mov     edi, TABLE
    mov     ecx, 4096
    xor     eax, eax
    rep stosb
    absent  0
    absent  63
    mov     esi, TABLE_LOW + (FRAMES >> 12) * 4 + 1
    mov     edi, TABLE + 1
    mov     ecx, 255
    mov     byte [TABLE], RIGHTS
    rep movsb
    shows   0, 0
    shows   5, 5

    check   "PUSH, POP and CALL into a table"
    mov     ebx, esp
    mov     esp, TABLE + 4
    push    FRAME(21) | RIGHTS
    mov     esp, ebx
    shows   0, 21
    push    FRAME(22) | RIGHTS
    pop     dword [TABLE]
    shows   0, 22
    mov     esp, TABLE + 8
    call    .into_table                 ; pushes a return address into entry 1
.into_table:
    mov     esp, ebx
    cmp     dword [TABLE + 4], .into_table
    must    e
    mov     dword [TABLE + 4], 0

    check   "an SSE store, FXSAVE over entries"
    test    dword [FEATURES], 1 << 25
    jz      .no_sse
    mov     eax, cr4
    or      eax, 3 << 9
    mov     cr4, eax
    mov     dword [VAR0], FRAME(23) | RIGHTS
    mov     dword [VAR0 + 4], FRAME(24) | RIGHTS
    mov     dword [VAR0 + 8], FRAME(25) | RIGHTS
    mov     dword [VAR0 + 12], FRAME(26) | RIGHTS
    movups  xmm0, [VAR0]
    movups  [TABLE], xmm0
    shows   0, 23
    shows   3, 26
    movups  [TABLE + 8], xmm0
    shows   2, 23
    shows   1, 24
    fxsave  [TABLE]                     ; XMM0 is at offset A0h: entry 28h
    shows   0x28, 23
    shows   0x2B, 26
.no_sse:

    check   "an accessed bit set through one entry does not disturb its neighbours"
    map     0, FRAME(0)
    map     1, FRAME(1)
    mov     eax, [PAGE]
    mov     [PAGE + 0x1000], eax
    equal   dword [TABLE], FRAME(0) | RIGHTS | ACCESSED
    equal   dword [TABLE + 4], FRAME(1) | RIGHTS | ACCESSED | DIRTY
    mov     dword [FRAME(1)], 1

    check   "a table maps itself: a store through the page edits the page's own entry"
    map     7, TABLE
    mov     dword [PAGE + 0x7000], FRAME(30) | RIGHTS
    shows   0, 30
    mov     dword [PAGE + 0x7000 + 7 * 4], FRAME(31) | RIGHTS
    shows   7, 31

    check   "a table's frame becomes data, then a table again"
    map     0, FRAME(0)
    mov     dword [TABLE_2], FRAME(32) | RIGHTS
    equal   dword [PAGE + 0x400000], 32
    mov     dword [DIRECTORY + (PAGE >> 22) * 4 + 4], 0
    invlpg  [PAGE + 0x400000]
    mov     ecx, 1000
    mov     edi, TABLE_2
.as_data:
    mov     [edi], ecx
    add     dword [edi + 4], 1
    loop    .as_data
    mov     dword [TABLE_2], FRAME(33) | RIGHTS
    mov     dword [DIRECTORY + (PAGE >> 22) * 4 + 4], TABLE_2 | RIGHTS
    equal   dword [PAGE + 0x400000], 33
    mov     dword [TABLE_2], FRAME(34) | RIGHTS
    invlpg  [PAGE + 0x400000]
    equal   dword [PAGE + 0x400000], 34

    check   "a data frame becomes a table: what it held is followed"
    mov     edi, FRAME(40)
    mov     ecx, 1024
    mov     eax, FRAME(35) | RIGHTS
    rep stosd
    mov     dword [DIRECTORY + 5 * 4], FRAME(40) | RIGHTS
    equal   dword [5 * 0x400000 + 0x123000], 35
    mov     dword [FRAME(40) + 0x123 * 4], FRAME(36) | RIGHTS
    invlpg  [5 * 0x400000 + 0x123000]
    equal   dword [5 * 0x400000 + 0x123000], 36
    mov     dword [DIRECTORY + 5 * 4], 0
    mov     eax, cr3
    mov     cr3, eax
    may_fault
    mov     eax, [5 * 0x400000 + 0x123000]
    faulted PF, 0
    mov     dword [FRAME(40)], 40

    check   "one frame as directory and as table at once"
    mov     dword [DIRECTORY + 6 * 4], DIRECTORY | RIGHTS
    mov     eax, [6 * 0x400000 + (PAGE >> 22) * 0x1000]     ; reads TABLE's first entry
    and     eax, ~0xFFF
    equal   eax, FRAME(0)
    mov     dword [6 * 0x400000 + (PAGE >> 22) * 0x1000], FRAME(37) | RIGHTS
    shows   0, 37

    check   "INVLPG storm: one entry changed 2000 times"
    xor     ebx, ebx
.storm:
    mov     eax, ebx
    and     eax, 63
    mov     edx, eax
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    mov     [TABLE], eax
    invlpg  [PAGE]
    equal   [PAGE], edx
    inc     ebx
    cmp     ebx, 2000
    jb      .storm

    check   "1024 entries filled, read, cleared, filled the other way round"
    mov     edi, TABLE
    xor     ebx, ebx
.fill:
    mov     eax, ebx
    and     eax, 63
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    stosd
    inc     ebx
    cmp     ebx, 1024
    jb      .fill
    mov     eax, cr3
    mov     cr3, eax
    xor     ebx, ebx
.read:
    mov     esi, ebx
    shl     esi, 12
    mov     edx, ebx
    and     edx, 63
    equal   [PAGE + esi], edx
    inc     ebx
    cmp     ebx, 1024
    jb      .read
    mov     edi, TABLE
    xor     ebx, ebx
.fill_back:
    mov     eax, 1023
    sub     eax, ebx
    and     eax, 63
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    stosd
    inc     ebx
    cmp     ebx, 1024
    jb      .fill_back
    mov     eax, cr3
    mov     cr3, eax
    xor     ebx, ebx
.read_back:
    mov     esi, ebx
    shl     esi, 12
    mov     edx, 1023
    sub     edx, ebx
    and     edx, 63
    equal   [PAGE + esi], edx
    inc     ebx
    cmp     ebx, 1024
    jb      .read_back

    check   "CR3 storm: 16 address spaces, 100 rounds, one frame each at the same address"
    xor     ebx, ebx
.make:                                  ; directory n at SPACES + 2000h n, its table behind it
    mov     edx, ebx
    shl     edx, 13
    add     edx, SPACES
    mov     esi, DIRECTORY
    mov     edi, edx
    mov     ecx, 1024
    rep movsd
    xor     eax, eax
    mov     ecx, 1024
    rep stosd
    lea     eax, [edx + 0x1000 + RIGHTS]
    mov     [edx + (PAGE >> 22) * 4], eax
    mov     eax, ebx
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    mov     [edx + 0x1000], eax
    inc     ebx
    cmp     ebx, COUNT
    jb      .make
    mov     ebp, 100
.round:
    xor     ebx, ebx
.space:
    mov     edx, ebx
    shl     edx, 13
    add     edx, SPACES
    mov     cr3, edx
    equal   [PAGE], ebx
    mov     eax, cr3
    equal   eax, edx
    inc     ebx
    cmp     ebx, COUNT
    jb      .space
    dec     ebp
    jnz     .round

    check   "each space edited from within another shows it when it is loaded"
    xor     ebx, ebx
.edit:
    mov     edx, ebx                    ; load space n
    shl     edx, 13
    add     edx, SPACES
    mov     cr3, edx
    lea     esi, [ebx + 1]              ; edit space n + 1
    and     esi, COUNT - 1
    shl     esi, 13
    mov     eax, ebx
    add     eax, 32
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    mov     [SPACES + 0x1000 + esi], eax
    add     esi, SPACES
    mov     cr3, esi
    lea     eax, [ebx + 32]
    equal   [PAGE], eax
    inc     ebx
    cmp     ebx, COUNT
    jb      .edit

    check   "WP toggled 200 times on a warm page"
    mov     eax, DIRECTORY
    mov     cr3, eax
    map     0, FRAME(0), PRESENT
    mov     ebp, 200
    mov     ebx, cr0
.toggle:
    and     ebx, ~CR0_WP
    mov     cr0, ebx
    may_fault
    mov     dword [PAGE], 0
    not_faulted
    or      ebx, CR0_WP
    mov     cr0, ebx
    may_fault
    mov     dword [PAGE], 1
    faulted PF, 3
    equal   dword [PAGE], 0
    dec     ebp
    jnz     .toggle
    passed
