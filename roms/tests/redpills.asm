; What a guest can look at to learn that somebody stands between it and the processor: what level 3 may read of tables,
; selectors and flags (the instructions that once made the PC hard to virtualise; Robin and Irvine, 2000), the bytes of its
; page tables and descriptors, its own code, CR2, how often a trap comes, and every page of its linear space. All of it must
; be what bare hardware shows; only time may differ.

%define TEST_NAME "redpills: nothing but time tells a guest that it is watched"
%include "asm/test.inc"
%include "asm/flat32.inc"

ONE_TABLE       equ 0x14000             ; one table for all of linear space
COPY            equ 0x20000             ; code, copied here to be run
FRAMES          equ 0x40000             ; 32 frames
BEFORE          equ 0x70000             ; what was in TABLE or in the GDT
ROUNDS          equ 3000                ; enough for any engine to call it hot
%define FRAME(n) (FRAMES + (n) * 0x1000)

; How table registers, selectors and flags look: into VAR0, VAR2 (ten bytes each at most), AX, BX, CX, DX, SI, DI.
SEEN_GDT        equ VAR0
SEEN_IDT        equ VAR2
%macro look 0
    sgdt    [ram(SEEN_GDT)]
    sidt    [ram(SEEN_IDT)]
    str     ax
    sldt    bx
    smsw    cx
    mov     dx, cs
    mov     si, ss
    pushf
    pop     wdi
%endmacro
%macro seen 2                           ; CS, SS
    cmp     ax, TASK
    must    e
    test    bx, bx
    must    z
    mov     wax, cr0
    cmp     cx, ax
    must    e
    cmp     dx, %1
    must    e
    cmp     si, %2
    must    e
    test    edi, FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_TF
    must    z
    cmp     word [ram(SEEN_GDT)], GDT_SIZE - 1
    must    e
    equal   dword [ram(SEEN_GDT) + 2], GDT
    cmp     word [ram(SEEN_IDT)], VECTORS * 2 * (WIDTH / 8) - 1
    must    e
    equal   dword [ram(SEEN_IDT) + 2], INTERRUPTS
%endmacro

width 16
test_main:
    to_protected
    call    paging_on

    check   "table registers, selectors and flags in ring 0: as they were loaded"
    look
    seen    CODE_32, DATA

    check   "the same in ring 3"
    user_begin
    look
    int     LEAVE_USER
    faulted LEAVE_USER
    seen    CODE_32_USER, DATA_USER

    check   "POPF in ring 3: IF and IOPL stay, and nobody is told"
    user_begin
    push    FLAG_IF | FLAG_IOPL | FLAG_CF | 2
    popfd
    pushfd
    pop     ebx
    int     LEAVE_USER
    faulted LEAVE_USER
    and     ebx, FLAG_IF | FLAG_IOPL | FLAG_CF
    equal   ebx, FLAG_CF

    check   "LAR, LSL, VERR and VERW in ring 3: of the guest's descriptors"
    user_begin
    mov     edx, -1
    mov     esi, DATA_USER
    lar     eax, esi
    setz    dl
    lsl     ebx, esi
    setz    dh
    mov     esi, CODE_32
    lar     ecx, esi                    ; of ring 0: none of its business
    setz    cl
    verr    si
    setz    ch
    mov     esi, CODE_32_USER
    verw    si                          ; code is never written
    setz    [VAR0]
    int     LEAVE_USER
    faulted LEAVE_USER
    equal   edx, 0xFFFF0101
    mov     esi, [GDT + (DATA_USER & ~7) + 4]
    and     esi, 0x00FFFF00
    and     eax, 0x00F0FF00             ; bits 19–16 are undefined
    and     esi, 0x00F0FF00
    equal   eax, esi
    equal   ebx, 0xFFFFFFFF
    test    cx, cx
    must    z
    cmp     byte [VAR0], 0
    must    e

    check   "far calls and returns push the selectors that the guest has"
    push    cs
    push    .near_call
    jmp     .far_call
.far_call_place:
    mov     eax, [esp]
    mov     ebx, [esp + 4]
    retf
.far_call:
    call    CODE_32:.far_call_place
.after_far_call:
    equal   eax, .after_far_call
    equal   ebx, CODE_32
    add     esp, 8
.near_call:

    check   "descriptors: an accessed bit where a segment was loaded, and not another bit"
    set_descriptor GDT + FREE_SLOT, 0, 0xFFFFF, 0x92, FLAG_PAGES | FLAG_32
    set_descriptor GDT + FREE_SLOT + 8, 0, 0xFFFFF, 0xF2, FLAG_PAGES | FLAG_32
    mov     esi, GDT
    mov     edi, BEFORE
    mov     ecx, GDT_SIZE / 4
    rep movsd
    mov     ebp, ROUNDS
.load:
    mov     eax, FREE_SLOT
    mov     gs, ax
    mov     eax, DATA
    mov     gs, ax
    dec     ebp
    jnz     .load
    mov     byte [BEFORE + FREE_SLOT + 5], 0x93
    mov     esi, GDT
    mov     edi, BEFORE
    mov     ecx, GDT_SIZE / 4
    repe cmpsd
    must    e
    mov     byte [GDT + FREE_SLOT + 5], 0x92
    mov     eax, FREE_SLOT
    mov     gs, ax
    cmp     byte [GDT + FREE_SLOT + 5], 0x93
    must    e

    check   "page tables: accessed and dirty bits where the guest was, and not another bit"
    ; Entries 0 to 15 are pages, with all that software may keep in them; 16 to 31 are not, whatever else they say.
    xor     ebx, ebx
.fill:
    mov     eax, ebx
    shl     eax, 12
    mov     ecx, ebx
    and     ecx, 7
    shl     ecx, 9                      ; bits 11–9
    lea     eax, [eax + ecx + (FRAMES | RIGHTS)]
    mov     [TABLE + ebx * 4], eax
    imul    eax, ebx, 0x9E3779B1
    and     eax, ~PRESENT
    mov     [TABLE + 64 + ebx * 4], eax
    inc     ebx
    cmp     ebx, 16
    jb      .fill
    mov     eax, cr3
    mov     cr3, eax
    mov     esi, TABLE
    mov     edi, BEFORE
    mov     ecx, 1024
    rep movsd
    mov     ebp, ROUNDS
.use:
    mov     eax, [PAGE + 0x0000]        ; 0: read
    mov     [PAGE + 0x1000], ebp        ; 1: written
    mov     eax, [PAGE + 0x2000]        ; 2: read, then written
    mov     [PAGE + 0x2004], ebp
    mov     [PAGE + 0x4FFE], ebp        ; 4 and 5: written across
    mov     eax, [PAGE + 0x6FFE]        ; 6 and 7: read across
    lock inc dword [PAGE + 0x8000]      ; 8: locked
    cmp     byte [PAGE + 0x9000], 1     ; 9: read
    dec     ebp
    jnz     .use
    mov     eax, [PAGE + 0xA000 - 4]    ; 9 again, right before the untouched
    ; 3 and 10 to 15: never
    %macro used 2                       ; page number, bits
        or      dword [BEFORE + (%1) * 4], %2
    %endmacro
    used    0, ACCESSED
    used    1, ACCESSED | DIRTY
    used    2, ACCESSED | DIRTY
    used    4, ACCESSED | DIRTY
    used    5, ACCESSED | DIRTY
    used    6, ACCESSED
    used    7, ACCESSED
    used    8, ACCESSED | DIRTY
    used    9, ACCESSED
    mov     esi, TABLE
    mov     edi, BEFORE
    mov     ecx, 1024
    repe cmpsd
    must    e

    check   "the same in the directory"
    equal   dword [DIRECTORY], TABLE_LOW | RIGHTS | ACCESSED
    equal   dword [DIRECTORY + (PAGE >> 22) * 4], TABLE | RIGHTS | ACCESSED
    equal   dword [DIRECTORY + (PAGE >> 22) * 4 + 4], TABLE_2 | RIGHTS
    mov     edi, DIRECTORY + 4
    mov     ecx, (PAGE >> 22) - 1
    xor     eax, eax
    repe scasd
    must    e
    mov     edi, DIRECTORY + (PAGE >> 22) * 4 + 8
    mov     ecx, 1024 - (PAGE >> 22) - 2
    repe scasd
    must    e

    check   "bits that are taken back come again after INVLPG, and the others stay away"
    mov     ebp, 50
.again:
    and     dword [TABLE], ~ACCESSED
    and     dword [TABLE + 4], ~(ACCESSED | DIRTY)
    invlpg  [PAGE]
    invlpg  [PAGE + 0x1000]
    mov     eax, [PAGE]
    mov     eax, [PAGE + 0x1000]
    mov     eax, [TABLE]
    and     eax, ACCESSED | DIRTY
    equal   eax, ACCESSED
    mov     eax, [TABLE + 4]
    and     eax, ACCESSED | DIRTY
    equal   eax, ACCESSED
    dec     ebp
    jnz     .again

    check   "CR2 stays while pages are met, tables are written and code is written over"
    mov     eax, 0x1BADB002
    mov     cr2, eax
    mov     byte [COPY], 0xC3           ; RET
    mov     ebp, 64
.quiet:
    mov     eax, ebp
    and     eax, 15
    or      eax, 16
    shl     eax, 12
    add     eax, FRAMES | RIGHTS
    mov     [TABLE + 0x80 + ebp * 4], eax   ; a page that was none before
    mov     edx, ebp
    shl     edx, 12
    mov     eax, [PAGE + 0x20000 + edx]
    mov     [PAGE + 0x20000 + edx], eax
    lock inc dword [PAGE + 0x20000 + edx]
    mov     ebx, COPY
    call    ebx
    mov     byte [COPY], 0x90
    mov     byte [COPY + 1], 0xC3
    call    ebx
    mov     byte [COPY], 0xC3
    dec     ebp
    jnz     .quiet
    mov     eax, cr2
    equal   eax, 0x1BADB002

    check   "CR3 reads as it was loaded, and so do CR0, CR4 and the debug registers"
    mov     eax, DIRECTORY | 0x18       ; PWT and PCD
    mov     cr3, eax
    mov     ebx, cr3
    equal   eax, ebx
    mov     eax, DIRECTORY
    mov     cr3, eax
    mov     ebx, cr3
    equal   eax, ebx
    mov     ecx, cr4
    mov     eax, ecx
    xor     eax, CR4_TSD
    mov     cr4, eax
    mov     ebx, cr4
    mov     cr4, ecx
    equal   eax, ebx
    mov     ecx, cr0
    mov     eax, ecx
    xor     eax, CR0_TS | CR0_MP
    mov     cr0, eax
    mov     ebx, cr0
    mov     cr0, ecx
    equal   eax, ebx
    mov     eax, 0xC0FFEE00
    mov     dr0, eax
    mov     ebx, dr0
    equal   eax, ebx
    mov     ebx, dr7
    equal   ebx, 0x400

    check   "code reads as it was written, however often it has run"
    mov     esi, text(.sample)
    mov     edi, COPY
    mov     ecx, .sample_end - .sample
    rep movsb
    mov     ebx, COPY
    xor     eax, eax
    mov     ebp, ROUNDS
.run:
    call    ebx
    dec     ebp
    jnz     .run
    equal   eax, ROUNDS * 7
    mov     esi, text(.sample)
    mov     edi, COPY
    mov     ecx, .sample_end - .sample
    repe cmpsb
    must    e

    check   "a trap after each instruction, in code that was run often and in code that was not"
    mov     ebp, 3
.traps:
    mov     dword [FAULTS], 0
    mov     dword [FAULT_PLAN], fn(count)
    pushfd
    or      dword [esp], FLAG_TF
    popfd
    call    ebx                         ; 1
    call    ebx                         ; and its instructions, twice
    pushfd                              ; 3
    and     dword [esp], ~FLAG_TF       ; 4
    popfd                               ; 5
    mov     dword [FAULT_PLAN], 0
    equal   dword [FAULT_VECTOR], DB_
    equal   dword [FAULTS], 5 + 2 * SAMPLE_STEPS
    mov     ecx, ROUNDS
.heat:
    call    ebx
    dec     ecx
    jnz     .heat
    dec     ebp
    jnz     .traps

    check   "REP MOVSB over pages that were never met: registers as after one instruction"
    mov     ecx, 16
    xor     edx, edx
.drop:
    mov     eax, [TABLE + edx * 4]
    and     eax, ~(ACCESSED | DIRTY)
    or      eax, RIGHTS
    mov     [TABLE + edx * 4], eax
    inc     edx
    loop    .drop
    mov     eax, cr3
    mov     cr3, eax
    mov     esi, PAGE + 3
    mov     edi, PAGE + 0x8000 + 1
    mov     ecx, 0x7FF0
    rep movsb
    test    ecx, ecx
    must    z
    equal   esi, PAGE + 3 + 0x7FF0
    equal   edi, PAGE + 0x8000 + 1 + 0x7FF0

    check   "every page of linear space is the guest's"
    mov     dword [FRAME(1)], 0x600DF00D
    mov     edi, ONE_TABLE
    mov     eax, FRAME(1) | RIGHTS
    mov     ecx, 1024
    rep stosd
    mov     edi, DIRECTORY + 4
    mov     eax, ONE_TABLE | RIGHTS
    mov     ecx, 1023
    rep stosd
    mov     eax, cr3
    mov     cr3, eax
    mov     edi, 0x400000
    mov     eax, 0x600DF00D
.all:
    cmp     [edi], eax
    must    e
    test    edi, 0xFF000
    jnz     .only_read
    mov     [edi + 4], edi
    equal   [FRAME(1) + 4], edi
.only_read:
    add     edi, 0x1000
    jnz     .all
    mov     edi, DIRECTORY + 4
    mov     eax, ONE_TABLE | RIGHTS | ACCESSED
    mov     ecx, 1023
    repe scasd
    must    e

    test    dword [ram(FEATURES_EXT)], HAS_LONG_MODE
    jz      .no_long_mode
    to_long

    check   "64 bits: table registers, selectors and flags in ring 0"
    mov     ax, TASK
    and     byte [GDT + TASK + 5], ~2   ; not busy
    mov     dword [GDT + TASK + 8], 0
    mov     dword [GDT + TASK + 12], 0
    ltr     ax
    look
    seen    CODE_64, DATA
    equal   dword [SEEN_GDT + 6], 0
    equal   dword [SEEN_IDT + 6], 0

    check   "64 bits: the same in ring 3"
    user_begin
    look
    int     LEAVE_USER
    faulted LEAVE_USER
    seen    CODE_64_USER, DATA_USER
    equal   dword [SEEN_GDT + 6], 0
    equal   dword [SEEN_IDT + 6], 0

    check   "64 bits: tables hold what was written and the bits of what was used"
    equal   dword [LONG_TABLES], (LONG_TABLES + 0x1000) | RIGHTS | ACCESSED
    equal   dword [LONG_TABLES + 0x1000], (LONG_TABLES + 0x2000) | RIGHTS | ACCESSED
    equal   dword [LONG_TABLES + 0x2000], RIGHTS | LARGE | ACCESSED | DIRTY
    mov     edi, LONG_TABLES + 0x2000 + 8
    mov     edx, (1 << 21) | LARGE | RIGHTS
.untouched:
    equal   [rdi], edx
    equal   dword [rdi + 4], 0
    add     edx, 1 << 21
    add     edi, 8
    cmp     edi, LONG_TABLES + 0x3000
    jb      .untouched

    check   "64 bits: CR2 and CR3 keep 64 bits, and read as they were loaded"
    mov     rax, 0xFFFF800012345678
    mov     cr2, rax
    mov     ebx, 0x300000
    mov     ecx, 64
.far:
    mov     rdx, [rbx]
    add     ebx, 0x200000
    loop    .far
    mov     rdx, cr2
    cmp     rax, rdx
    must    e
    mov     eax, LONG_TABLES | 0x18
    mov     cr3, rax
    mov     rdx, cr3
    cmp     rax, rdx
    must    e
    passed

width 32
.no_long_mode:
    passed

; Adds 7 to EAX in SAMPLE_STEPS instructions, its RET included.
.sample:
    push    ecx
    mov     ecx, 3
.sample_loop:
    inc     eax
    inc     eax
    dec     ecx
    jnz     .sample_loop
    inc     eax
    pop     ecx
    ret
.sample_end:
SAMPLE_STEPS    equ 2 + 3 * 4 + 3

fn(count):                              ; a plan: go on
    ret
