; Accesses that straddle two pages: the bytes, the fault in either page, its address, and that nothing is written before
; (SDM vol. 3, 9.1.1 and 4.7). QEMU's TCG says "read" for the fault of a read-modify-write;
; Bochs runs a straddling instruction from its cache after the second page has gone.

%define TEST_NAME "straddle: accesses across two pages"
%include "asm/test.inc"
%include "asm/flat32.inc"

FRAME_A         equ 0x48000             ; the first page's frame lies behind the second's
FRAME_B         equ 0x40000
EDGE            equ PAGE + 0x1000

%macro both_pages 0
    map     0, FRAME_A
    map     1, FRAME_B
%endmacro

width 16
test_main:
    to_protected
    call    paging_on
    both_pages

    check   "loads of 2, 4 and 8 bytes at every offset put both frames' bytes together"
    mov     dword [FRAME_A + 0xFF8], 0x44332211
    mov     dword [FRAME_A + 0xFFC], 0x88776655
    mov     dword [FRAME_B], 0xCCBBAA99
    mov     dword [FRAME_B + 4], 0x00FFEEDD
    equal   word [EDGE - 1], 0x9988
    equal   dword [EDGE - 1], 0xBBAA9988
    equal   dword [EDGE - 2], 0xAA998877
    equal   dword [EDGE - 3], 0x99887766
    fninit
    mov     ebx, 1
.each_offset:
    mov     esi, EDGE
    sub     esi, ebx
    fild    qword [esi]
    fistp   qword [VAR0]
    mov     eax, [esi]
    equal   eax, [VAR0]
    mov     eax, [esi + 4]
    equal   eax, [VAR0 + 4]
    inc     ebx
    cmp     ebx, 8
    jb      .each_offset

    check   "stores reach both frames, and only their bytes"
    mov     dword [EDGE - 3], 0xD4C3B2A1
    equal   dword [FRAME_A + 0xFFC], 0xC3B2A155
    equal   dword [FRAME_B], 0xCCBBAAD4
    mov     word [EDGE - 1], 0x1234
    equal   byte [FRAME_A + 0xFFF], 0x34
    equal   byte [FRAME_B], 0x12

    check   "read-modify-write: ADD, XCHG, XADD, CMPXCHG, CMPXCHG8B, LOCK, BTS"
    mov     dword [EDGE - 2], 0xFFFFFFFF
    add     dword [EDGE - 2], 2
    must    c
    equal   dword [EDGE - 2], 1
    mov     eax, 0x11223344
    xchg    [EDGE - 2], eax
    equal   eax, 1
    equal   word [FRAME_A + 0xFFE], 0x3344
    equal   word [FRAME_B], 0x1122
    mov     eax, 0x01010101
    lock xadd [EDGE - 2], eax
    equal   eax, 0x11223344
    mov     eax, 0x12233445
    mov     ecx, 'done'
    lock cmpxchg [EDGE - 2], ecx
    must    z
    equal   dword [EDGE - 2], 'done'
    mov     eax, [EDGE - 5]
    mov     edx, [EDGE - 1]
    mov     ebx, 'low '
    mov     ecx, 'high'
    lock cmpxchg8b [EDGE - 5]
    must    z
    equal   dword [EDGE - 5], 'low '
    equal   dword [EDGE - 1], 'high'
    mov     dword [EDGE - 2], 0
    lock bts dword [EDGE - 2], 17
    equal   byte [FRAME_B], 2

    check   "the second page is absent: its first byte is the fault's address; nothing is written"
    mov     dword [EDGE - 4], 0x55555555
    unmap   1
    mov     eax, 0x12345678
%macro second_faults 2+                 ; error code, an instruction
    may_fault
    %2
    faulted PF, %1
    equal   dword [FAULT_LINEAR], EDGE
    equal   dword [FRAME_A + 0xFFC], 0x55555555
%endmacro
    second_faults 0, mov ebx, [EDGE - 1]
    second_faults 2, mov [EDGE - 1], eax
    second_faults 2, mov [EDGE - 3], eax
    second_faults 2, mov word [EDGE - 1], 1
    second_faults 2, add [EDGE - 2], eax
    second_faults 2, xchg [EDGE - 2], eax
    second_faults 2, lock or [EDGE - 2], eax
    second_faults 2, not dword [EDGE - 2]
    second_faults 2, fistp qword [EDGE - 4]
    equal   eax, 0x12345678

    check   "the first page is absent: the fault is at the access's own address"
    both_pages
    mov     dword [FRAME_B], 0x66666666
    unmap   0
    may_fault
    mov     ebx, [EDGE - 1]
    faulted PF, 0
    equal   dword [FAULT_LINEAR], EDGE - 1
    may_fault
    mov     [EDGE - 3], eax
    faulted PF, 2
    equal   dword [FAULT_LINEAR], EDGE - 3
    equal   dword [FRAME_B], 0x66666666

    check   "both are absent: the first page's fault comes first"
    unmap   1
    may_fault
    mov     [EDGE - 2], eax
    faulted PF, 2
    equal   dword [FAULT_LINEAR], EDGE - 2

    check   "the second page is read-only: error 3, nothing written"
    map     0, FRAME_A
    map     1, FRAME_B, PRESENT | USER
    second_faults 3, mov [EDGE - 2], eax
    test    byte [TABLE + 4], DIRTY
    must    z
    may_fault
    mov     ebx, [EDGE - 2]
    not_faulted
    equal   ebx, 0x66665555

    check   "the second page belongs to ring 0"
    map     1, FRAME_B, PRESENT | WRITABLE
    user_begin
    mov     ebx, [EDGE - 2]
    faulted PF, 5
    equal   dword [FAULT_LINEAR], EDGE
    user_begin
    mov     [EDGE - 2], ebx
    faulted PF, 7
    equal   dword [FRAME_A + 0xFFC], 0x55555555

    check   "PUSH and CALL across the edge, and with the lower page absent"
    both_pages
    mov     ebx, esp
    mov     esp, EDGE + 2
    push    'push'
    equal   word [FRAME_A + 0xFFE], 'pu'
    equal   word [FRAME_B], 'sh'
    pop     eax
    mov     esp, ebx
    equal   eax, 'push'

    check   "PUSHA in ring 3 with its lower part on an absent page: ESP is kept"
    unmap   0
    user_begin
    mov     esp, EDGE + 12
    pusha
    faulted PF, 6
    equal   dword [RING0_STACK - 8], EDGE + 12  ; ESP in the frame

    check   "instructions that straddle: fetched from both, and the fault at the second page"
    both_pages
    mov     word [FRAME_A + 0xFFE], 0xB890      ; NOP; MOV EAX, imm32
    mov     dword [FRAME_B], 0x76543210
    mov     byte [FRAME_B + 4], 0xC3
    mov     edx, EDGE - 2
    call    edx
    equal   eax, 0x76543210
    unmap   1
    mov     ebp, esp
    may_fault
    call    edx
    faulted PF, 0
    mov     esp, ebp
    equal   dword [FAULT_LINEAR], EDGE
    equal   dword [FAULT_RETURN], EDGE - 1
    both_pages
    call    edx
    equal   eax, 0x76543210

    check   "descriptor tables across two pages: LGDT's operand, a descriptor, its accessed bit"
MOVED_GDT       equ EDGE - FREE_SLOT - 4        ; the free slot straddles
    mov     word [EDGE - 3], GDT_SIZE - 1
    mov     dword [EDGE - 1], GDT
    lgdt    [EDGE - 3]
    set_descriptor GDT + FREE_SLOT, 0x20000, 0xFFFF, 0x92, FLAG_32
    mov     esi, GDT
    mov     edi, MOVED_GDT
    mov     ecx, GDT_SIZE / 4
    rep movsd
    mov     word [VAR0], GDT_SIZE - 1
    mov     dword [VAR0 + 2], MOVED_GDT
    lgdt    [VAR0]
    mov     dword [0x20010], 'base'
    mov     eax, FREE_SLOT
    mov     fs, eax
    equal   dword [fs:0x10], 'base'
    equal   byte [FRAME_B + 1], 0x93
    unmap   1
    may_fault
    mov     gs, eax
    faulted PF, 0
    equal   dword [FAULT_LINEAR], EDGE
    both_pages
    mov     gs, eax
    lgdt    [gdt_pointer]

    test    dword [FEATURES], 1 << 26
    jz      .no_sse
    check   "16 bytes: MOVUPS whole or not at all"
    mov     eax, cr4
    or      eax, 3 << 9                 ; OSFXSR, OSXMMEXCPT
    mov     cr4, eax
    mov     dword [FRAME_A + 0xFF8], 1
    mov     dword [FRAME_A + 0xFFC], 2
    mov     dword [FRAME_B], 3
    mov     dword [FRAME_B + 4], 4
    movups  xmm0, [EDGE - 8]
    movups  [VAR0], xmm0
    equal   dword [VAR0 + 12], 4
    equal   dword [VAR0 + 4], 2
    map     1, FRAME_B, PRESENT
    xorps   xmm0, xmm0
    may_fault
    movups  [EDGE - 8], xmm0
    faulted PF, 3
    equal   dword [FRAME_A + 0xFFC], 2
    may_fault
    movaps  [EDGE - 8], xmm0            ; not aligned: before the page is looked at
    faulted GP, 0
    may_fault
    fxsave  [EDGE - 0x100]
    faulted PF, 3
    equal   dword [FRAME_A + 0xFFC], 2
.no_sse:
    passed
