; Four-level paging: canonical addresses, the upper half, 2 MiB and 1 GiB pages, no-execute, rights (SDM vol. 3, 4.5).

%define TEST_NAME "paging_long: four-level paging"
%include "asm/test.inc"

TOP             equ LONG_TABLES
DIRECTORY       equ LONG_TABLES + 0x2000
HIGH_POINTERS   equ 0x11000             ; at FFFF8000 00000000
HIGH_DIRECTORY  equ 0x12000
TABLE           equ 0x13000
FRAME           equ 0x30000
FRAME_2         equ 0x31000
%define PAGE    0xFFFF800000000000

%define MATRIX_LINEAR PAGE + 0x5000
MATRIX_UPPER    equ HIGH_DIRECTORY
MATRIX_LEAF     equ TABLE + 5 * 8
MATRIX_TABLE    equ TABLE
MATRIX_FRAME    equ 0x32000
%define MATRIX_NX 1
width 64
%include "asm/matrix.inc"

%macro flush 0
    mov     rax, cr3
    mov     cr3, rax
%endmacro

width 16
test_main:
    to_protected
    test    dword [FEATURES_EXT], HAS_LONG_MODE
    jnz     .has_long_mode
    check   "this processor has no long mode: nothing to do"
    passed
.has_long_mode:
    check   "to long mode: EFER.LMA is set"
    to_long
    mov     ecx, EFER
    rdmsr
    test    eax, 1 << 10
    must    nz
    or      eax, EFER_NXE
    wrmsr

    mov     edi, HIGH_POINTERS
    mov     ecx, 3 * 512
    xor     eax, eax
    rep stosq
    mov     dword [TOP + 256 * 8], HIGH_POINTERS | PRESENT | WRITABLE | USER
    mov     dword [HIGH_POINTERS], HIGH_DIRECTORY | PRESENT | WRITABLE | USER
    mov     dword [HIGH_DIRECTORY], TABLE | PRESENT | WRITABLE | USER
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | USER
    mov     dword [FRAME], 'one '
    mov     dword [FRAME_2], 'two '

    check   "the upper half: a page, and the accessed bit in all four levels"
    mov     rbx, PAGE
    equal   dword [rbx], 'one '
    equal   dword [TABLE], FRAME | PRESENT | WRITABLE | USER | ACCESSED
    equal   dword [HIGH_DIRECTORY], TABLE | PRESENT | WRITABLE | USER | ACCESSED
    equal   dword [HIGH_POINTERS], HIGH_DIRECTORY | PRESENT | WRITABLE | USER | ACCESSED
    equal   dword [TOP + 256 * 8], HIGH_POINTERS | PRESENT | WRITABLE | USER | ACCESSED

    check   "an address that is not canonical: #GP(0)"
    mov     rsi, 0x0000800000000000
    may_fault
    mov     eax, [rsi]
    faulted GP, 0
    mov     rsi, 0xFFFF7FFFFFFFFFFF
    may_fault
    mov     al, [rsi]
    faulted GP, 0
    mov     rsi, 0x00007FFFFFFFFFFC     ; the last bytes of the lower half: no page there
    may_fault
    mov     eax, [rsi]
    faulted PF, 0
    equal   [FAULT_LINEAR], rsi
    mov     rax, 0x0000800000000000
    may_fault
    jmp     rax
    faulted GP, 0

    check   "absent at each level: error code 0, CR2 has 64 bits"
    mov     rsi, 0xFFFF808000000123
    may_fault
    mov     eax, [rsi]
    faulted PF, 0
    equal   [FAULT_LINEAR], rsi
    mov     rsi, PAGE + (1 << 30)
    may_fault
    mov     eax, [rsi]
    faulted PF, 0
    mov     rsi, PAGE + (1 << 21)
    may_fault
    mov     eax, [rsi]
    faulted PF, 0
    mov     rsi, PAGE + 0x7000
    may_fault
    mov     [rsi], eax
    faulted PF, 2

    check   "the matrix of rights, with no-execute in both levels"
    call    fn(matrix)
    mov     dword [HIGH_DIRECTORY], TABLE | PRESENT | WRITABLE | USER
    mov     dword [HIGH_DIRECTORY + 4], 0
    flush

    check   "rights of the upper levels: user is the AND of all four"
    mov     rbx, PAGE
    user_begin
    mov     eax, [rbx]
    int     LEAVE_USER
    faulted LEAVE_USER
    and     dword [TOP + 256 * 8], ~USER
    flush
    user_begin
    mov     eax, [rbx]
    faulted PF, 5
    or      dword [TOP + 256 * 8], USER
    and     dword [HIGH_POINTERS], ~WRITABLE
    flush
    user_begin
    mov     [rbx], eax
    faulted PF, 7
    or      dword [HIGH_POINTERS], WRITABLE
    flush

    check   "no-execute in the top level"
    mov     dword [TOP + 256 * 8 + 4], 1 << 31
    flush
    may_fault
    call    rbx
    faulted PF, 0x11
    mov     dword [TOP + 256 * 8 + 4], 0
    flush

    check   "remapped by an 8-byte store, and by LOCK CMPXCHG16B over two entries"
    mov     rax, FRAME_2 | PRESENT | WRITABLE | USER
    mov     [TABLE], rax
    invlpg  [rbx]
    equal   dword [rbx], 'two '
    mov     eax, 1
    cpuid
    test    ecx, 1 << 13
    mov     rbx, PAGE
    jz      .no_cx16
    mov     rax, [TABLE]
    mov     rdx, [TABLE + 8]
    mov     rdi, rbx
    mov     ebx, FRAME | PRESENT | WRITABLE | USER
    mov     ecx, FRAME_2 | PRESENT | WRITABLE | USER
    lock cmpxchg16b [TABLE]
    must    z
    mov     rbx, rdi
    invlpg  [rbx]
    equal   dword [rbx], 'one '
    equal   dword [rbx + 0x1000], 'two '
.no_cx16:

    check   "2 MiB pages; one is split into small ones and joined again"
    mov     dword [HIGH_DIRECTORY + 8], 0 | LARGE | PRESENT | WRITABLE
    mov     rsi, PAGE + (1 << 21)
    equal   dword [rsi + FRAME_2], 'two '
    mov     dword [TABLE + 0x30 * 8], FRAME_2 | PRESENT | WRITABLE
    mov     dword [HIGH_DIRECTORY + 8], TABLE | PRESENT | WRITABLE
    flush
    equal   dword [rsi + 0x30000], 'two '
    mov     dword [HIGH_DIRECTORY + 8], 0 | LARGE | PRESENT | WRITABLE
    flush
    cmp     dword [rsi + 0x30000], 'two '
    must    ne

    mov     eax, 0x80000001
    cpuid
    test    edx, 1 << 26
    jz      .no_1g
    check   "1 GiB pages"
    mov     dword [HIGH_POINTERS + 8], 0 | LARGE | PRESENT | WRITABLE
    mov     rsi, PAGE + (1 << 30)
    equal   dword [rsi + FRAME_2], 'two '
    mov     dword [rsi + FRAME_2 + 4], 'more'
    equal   dword [FRAME_2 + 4], 'more'
    test    byte [HIGH_POINTERS + 8], DIRTY
    must    nz
.no_1g:

    check   "global pages survive a reload of CR3 if at all; INVLPG drops them"
    mov     rax, cr4
    or      eax, CR4_PGE
    mov     cr4, rax
    mov     rbx, PAGE
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE | GLOBAL_PAGE
    flush
    mov     eax, [rbx]
    mov     dword [TABLE], FRAME_2 | PRESENT | WRITABLE | GLOBAL_PAGE
    invlpg  [rbx]
    equal   dword [rbx], 'two '
    mov     dword [TABLE], FRAME | PRESENT | WRITABLE
    mov     rax, cr4
    and     eax, ~CR4_PGE
    mov     cr4, rax
    equal   dword [rbx], 'one '

    check   "compatibility mode runs 32-bit code on these tables"
    mov     eax, DATA                   ; null since ring 3
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     [VAR0], rsp
    jmp     far dword [.to_32]
.to_32:
    dd .code_32, CODE_32
    width 32
.code_32:
    mov     eax, -1
    inc     eax                         ; 40h: INC EAX here, a REX prefix in 64-bit mode
    mov     ecx, [FRAME]
    jmp     CODE_64:.back
    width 64
.back:
    mov     rsp, [VAR0]
    equal   eax, 0
    equal   ecx, [FRAME]
    passed
