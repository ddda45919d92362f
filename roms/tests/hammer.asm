; Several processors against each other: locked updates of every width and alignment, translations that change under other
; processors' feet (with INVLPG by IPI), interprocessor interrupts, code that is written while others run it.
;
; Processors come from fw_cfg (item 5). They do random operations for a while: DURATION, a qword of nanoseconds that whoever
; starts the ROM may put into memory, or 1/8 s. A lost update, a stale translation, stale code or a lost interrupt fails the
; check; each processor counts what it did, and at the end the shared counters must be the sums.
; (SDM vol. 3: 9.1 locked operations, 9.1.3 code, 5.10.5 propagation of table changes, 11.6 IPIs.)

%define TEST_NAME "hammer: several processors, one memory"
%include "asm/test.inc"
%include "asm/hammer.inc"

section .start start=0xFE000            ; where the start-up interrupt sends the others
    bits 16
    jmp     0xF000:(started - ROM)
section .text

width 16
test_main:
    to_protected
    test    dword [FEATURES_EXT], HAS_LONG_MODE
    jnz     .has_long_mode
    check   "this processor has no long mode: nothing to do"
    passed
.has_long_mode:
    to_long
    xor     r15d, r15d
    mov     r13d, PRIVATE
    call    set_up
    check   "all processors start"
    call    start_others
    check   "they work on the same memory"
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    mov     rcx, [DURATION]
    test    rcx, rcx
    jnz     .given
    mov     ecx, 125_000_000
.given:
    add     rax, rcx
    mov     [END_TIME], rax
    mov     dword [GO], 1
    call    work
    mov     ecx, [CPUS]
    await   [DONE], ecx, e
    jmp     verdict

width 16
started:                                ; the others: straight to long mode on the first one's tables
    cli
    cld
    mov     ax, cs
    mov     ds, ax
    mov     ebx, text(gdt_pointer)
    o32 lgdt [ebx]
    mov     eax, cr4
    or      eax, CR4_PAE
    mov     cr4, eax
    mov     eax, LONG_TABLES
    mov     cr3, eax
    mov     ecx, EFER
    rdmsr
    or      eax, EFER_LME
    wrmsr
    mov     eax, CR0_PE | CR0_ET | CR0_PG
    mov     cr0, eax
    jmp     dword CODE_64:.long
    width 64
.long:
    mov     eax, DATA
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    lidt    [interrupts_pointer]
    mov     r15d, 1
    lock xadd [STARTED], r15d
    inc     r15d                        ; this processor's number
    mov     r13d, r15d
    shl     r13d, 12
    lea     esp, [r13d + STACKS + 0x1000]
    add     r13d, PRIVATE
    call    apic_on
    lock inc dword [ONLINE]             ; from now on it takes interrupts
.wait:
    pause
    cmp     dword [GO], 0
    je      .wait
    call    work
.idle:
    hlt                                 ; interrupts are still answered
    jmp     .idle

; ---- set-up ----

set_up:
    mov     al, 0xFF                    ; the 8259s stay out of it
    out     0x21, al
    out     0xA1, al
    mov     dx, FW_CFG_SELECT
    mov     ax, 5
    out     dx, ax
    inc     edx
    in      al, dx
    movzx   ecx, al
    in      al, dx
    mov     eax, 1
    cmp     ecx, 1
    cmovb   ecx, eax
    mov     eax, MAX_CPUS
    cmp     ecx, eax
    cmova   ecx, eax
    mov     [CPUS], ecx
    ; Tables: the APIC, the pages that move; two roots for each processor.
    mov     edi, HIGH_DIRECTORY
    mov     ecx, 3 * 512
    xor     eax, eax
    rep stosq
    mov     dword [LONG_TABLES + 0x1000 + 3 * 8], HIGH_DIRECTORY | PRESENT | WRITABLE
    mov     eax, APIC | LARGE | PRESENT | WRITABLE
    mov     [HIGH_DIRECTORY + ((APIC >> 21) & 511) * 8], rax
    mov     dword [LONG_TABLES + 0x1000 + 1 * 8], PAGE_DIRECTORY | PRESENT | WRITABLE
    mov     dword [PAGE_DIRECTORY], PAGE_TABLE | PRESENT | WRITABLE
    mov     dword [BITS_ENTRY], BITS_FRAME | PRESENT | WRITABLE
    mov     edi, ROOTS
    mov     ecx, MAX_CPUS * 2 * 512
    rep stosq
    mov     edi, ROOTS
    mov     ecx, MAX_CPUS * 2
    mov     eax, [LONG_TABLES]
.root:
    mov     [rdi], rax
    add     edi, 0x1000
    loop    .root
    mov     rax, cr3
    mov     cr3, rax
    ; Frames: poison everywhere, then as many as there are pages.
    mov     edi, FRAMES
    mov     ecx, FRAME_COUNT * 1024
    mov     eax, POISON
    rep stosd
    xor     edx, edx
.page:
    mov     ebx, edx
    call    open_frame
    mov     eax, edx
    shl     eax, 12
    add     eax, FRAMES | PRESENT | WRITABLE
    mov     [PAGE_TABLE + rdx * 8], rax
    mov     [FRAME_OF + rdx], dl
    inc     edx
    cmp     edx, PAGE_COUNT
    jb      .page
    ; Code: mov eax, 0; ret. The number in the common code is aligned.
    mov     edi, OWN_CODE
.code:
    mov     byte [rdi], 0xB8
    mov     byte [rdi + 5], 0xC3
    add     edi, 0x1000
    cmp     edi, OWN_CODE + MAX_CPUS * 0x1000
    jb      .code
    mov     byte [COMMON_CODE + 3], 0xB8
    mov     byte [COMMON_CODE + 8], 0xC3
    gate    PF, page_fault
    gate    SHOOT_VECTOR, forget
    gate    SELF_VECTOR, take_self
    gate    MAIL_VECTOR, take_mail
    gate    SPURIOUS, spurious
    lidt    [interrupts_pointer]

apic_on:                                ; this processor's local APIC, and its random numbers
    mov     edi, APIC
    mov     dword [rdi + 0xF0], 0x100 | SPURIOUS
    mov     dword [rdi + 0x80], 0       ; the task priority lets everything in
    mov     eax, [rdi + 0x20]
    mov     [r13 + APIC_ID], eax
    mov     r14, 0x9E3779B97F4A7C15
    lea     rax, [r15 + 1]
    imul    r14, rax
    ret

set_gate_64:                            ; at EDI, to the routine EAX
    mov     [rdi], ax
    mov     word [rdi + 2], CODE_64
    mov     word [rdi + 4], 0x8E00
    shr     eax, 16
    mov     [rdi + 6], ax
    mov     qword [rdi + 8], 0
    ret

[section .rodata]
interrupts_pointer:
    dw 256 * 16 - 1
    dq INTERRUPTS
align 8
operations:                             ; sixteen, as often as they stand here
    dq count, count, count, behind_lock, read, read, read, shoot
    dq shoot, self, mail, own_code, cross, cross, root, bits_of_an_entry
__SECT__

start_others:
    cmp     dword [CPUS], 1
    je      .all
    mov     edi, APIC
    mov     dword [rdi + 0x300], INIT_OTHERS
    mov     ecx, 10_000_000
    call    pass_time
    mov     dword [rdi + 0x300], START_OTHERS
    mov     ecx, 1_000_000
    call    pass_time
    mov     ecx, [CPUS]
    dec     ecx
    cmp     [ONLINE], ecx
    je      .all
    mov     dword [rdi + 0x300], START_OTHERS
    await   [ONLINE], ecx, e
.all:
    ret

pass_time:                              ; ECX nanoseconds; clobbers RAX, RDX, RCX
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    add     rcx, rax
.look:
    pause
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    cmp     rax, rcx
    jb      .look
    ret

start_waiting:                          ; R12 = when patience ends; keeps the others
    push    rax
    push    rdx
    rdtsc
    shl     rdx, 32
    or      rdx, rax
    mov     r12, PATIENCE
    add     r12, rdx
    pop     rdx
    pop     rax
    ret

wait_on:                                ; fails when patience has ended
    push    rax
    push    rdx
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    cmp     rax, r12
    pop     rdx
    pop     rax
    ja      .in_vain
    ret
.in_vain:
    say     "waited in vain; "
    call    fn(fail)

next_random:                            ; RAX; R14 is the generator (xorshift)
    mov     rax, r14
    shl     rax, 13
    xor     r14, rax
    mov     rax, r14
    shr     rax, 7
    xor     r14, rax
    mov     rax, r14
    shl     rax, 17
    xor     r14, rax
    mov     rax, r14
    shr     rax, 24
    ret

; ---- work ----

work:                                   ; random operations until the time is over, but some of each in any case
    sti
    mov     dword [r13 + LEFT], 500
.next:
    random  16
    call    [operations + rax * 8]
    cmp     dword [r13 + LEFT], 1
    adc     dword [r13 + LEFT], -1      ; down to 0
    jnz     .next
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    cmp     rax, [END_TIME]
    jb      .next
    lock inc dword [DONE]
    ret

count:                                  ; one more in each counter
    inc     qword [r13 + DID_COUNT]
    lock inc byte [IN_BYTE]
    lock add word [IN_WORD], 1
    lock sub dword [IN_DWORD], -1
    mov     eax, 1
    lock xadd [IN_QWORD], rax
    lock inc word [OVER_WORD]
    mov     eax, 1
    lock xadd [OVER_DWORD], eax
    lock add qword [OVER_QWORD], 1
    mov     eax, 1
    lock xadd [PAGE_WORD], ax
    lock inc dword [PAGE_DWORD]
    mov     eax, 1
    lock xadd [PAGE_QWORD], rax
    lock btc dword [FLIPPED], r15d         ; odd and even
    mov     eax, [BY_CX]
.cx:
    lea     ecx, [rax + 1]
    lock cmpxchg [BY_CX], ecx
    jnz     .cx
    mov     esi, BY_CX8
    call    add_cx8
    mov     esi, OVER_CX8
    call    add_cx8
    mov     esi, PAGE_CX8
    call    add_cx8
    mov     rax, [BY_CX16]
    mov     rdx, [BY_CX16 + 8]
.cx16:
    mov     rbx, rax
    mov     rcx, rdx
    add     rbx, 1
    adc     rcx, 0
    add     rcx, 1                      ; both halves count
    lock cmpxchg16b [BY_CX16]
    jnz     .cx16
    ret

add_cx8:                                ; the qword at RSI, by CMPXCHG8B
    mov     eax, [rsi]
    mov     edx, [rsi + 4]
.again:
    mov     ebx, eax
    mov     ecx, edx
    add     ebx, 1
    adc     ecx, 0
    lock cmpxchg8b [rsi]
    jnz     .again
    ret

behind_lock:                            ; plain words behind a spin lock
    lock_it SECTION_LOCK
    inc     qword [r13 + DID_SECTION]
    mov     rax, [PLAIN_A]
    cmp     rax, [PLAIN_B]
    must    e
    inc     rax
    mov     [PLAIN_A], rax
    inc     qword [PLAIN_B]
    unlock  SECTION_LOCK
    ret

read:                                   ; a page must show a frame in use; what is written there must not reach another
    inc     qword [r13 + DID_READ]
    random  PAGE_COUNT
    shl     eax, 12
    lea     rbx, [rax + PAGES]
    mov     eax, [rbx]
    mov     ecx, eax
    and     ecx, ~(FRAME_COUNT - 1)
    cmp     ecx, NUMBER
    jne     .stale
    mov     [rbx + r15 * 8 + 0x40], r14
    test    r14d, 0x700
    jnz     .end
    invlpg  [rbx]
    mov     [rbx + 0xFF8], r14
.end:
    ret
.stale:
    say     "stale translation; "
    call    fn(fail)

shoot:                                  ; another frame for a page; the old one is poisoned when all have forgotten it
    lock_it TABLE_LOCK
    inc     qword [r13 + DID_SHOOT]
.free:
    random  FRAME_COUNT
    cmp     byte [IN_USE + rax], 0
    jne     .free
    mov     ebx, eax                    ; EBX = the new frame
    random  PAGE_COUNT
    mov     ebp, eax                    ; EBP = the page
    call    open_frame
    mov     r10d, ebx
    shl     r10d, 12
    add     r10d, FRAMES | PRESENT | WRITABLE
    mov     r9d, ebx
    lea     esi, [PAGE_TABLE + rbp * 8]
    mov     r8d, ebp
    shl     r8d, 12
    add     r8d, PAGES                  ; R8 = the page's address
    random  4
    mov     r11d, eax                   ; R11 = by which means
    dec     eax
    js      .plain
    jz      .exchange
    dec     eax
    jz      .absent
    mov     edi, ebp                    ; two entries at once
    and     edi, ~1
    lea     edi, [PAGE_TABLE + rdi * 8]
    mov     rax, [rdi]
    mov     rdx, [rdi + 8]
.pair:
    mov     rbx, rax
    mov     rcx, rdx
    test    ebp, 1
    cmovz   rbx, r10
    cmovnz  rcx, r10
    lock cmpxchg16b [rdi]
    jnz     .pair
    jmp     .written
.plain:
    mov     [rsi], r10
    jmp     .written
.exchange:
    mov     rax, r10
    xchg    [rsi], rax
    jmp     .written
.absent:
    mov     byte [rsi], 0
.written:
    invlpg  [r8]
    mov     [SHOT], r8
    mov     dword [ACKS], 0
    mov     ecx, [CPUS]
    dec     ecx
    jz      .all
    mov     edi, APIC
    mov     dword [rdi + 0x300], TO_OTHERS | SHOOT_VECTOR
    await   [ACKS], ecx, e
.all:
    movzx   ebx, byte [FRAME_OF + rbp]
    mov     [FRAME_OF + rbp], r9b
    call    poison_frame
    cmp     r11d, 2
    jne     .shown
    mov     [rsi], r10
.shown:
    lea     eax, [r9 + NUMBER]
    cmp     [r8], eax
    must    e
    unlock  TABLE_LOCK
    ret

open_frame:                             ; the frame EBX: nobody has written it; it gets its number. Clobbers RAX, RCX, RDI
    mov     edi, ebx
    shl     edi, 12
    add     edi, FRAMES
    mov     ecx, 1024
    mov     eax, POISON
    push    rdi
    repe scasd
    pop     rdi
    jne     .written
    lea     eax, [rbx + NUMBER]
    mov     [rdi], eax
    mov     byte [IN_USE + rbx], 1
    ret
.written:
    say     "written through a stale translation; "
    call    fn(fail)

poison_frame:                           ; the frame EBX. Clobbers RAX, RCX, RDI
    mov     edi, ebx
    shl     edi, 12
    add     edi, FRAMES
    mov     ecx, 1024
    mov     eax, POISON
    rep stosd
    mov     byte [IN_USE + rbx], 0
    ret

self:                                   ; an interrupt to oneself arrives, once
    inc     qword [r13 + DID_SELF]
    mov     rbx, [r13 + SELF_TAKEN]
    inc     rbx
    mov     edi, APIC
    mov     dword [rdi + 0x300], TO_SELF | SELF_VECTOR
    await   [r13 + SELF_TAKEN], rbx, e
    ret

mail:                                   ; an interrupt to some processor, which answers
    call    next_random
    xor     edx, edx
    mov     eax, eax
    div     dword [CPUS]
    mov     ebp, edx                    ; EBP = to whom
    lea     rsi, [r13 + ANSWERED + rbp * 8]
    mov     rbx, [rsi]
    inc     rbx
    lock bts [MAIL + rbp * 8], r15
    mov     ecx, ebp
    shl     ecx, 12
    mov     ecx, [rcx + PRIVATE + APIC_ID]
    mov     edi, APIC
    mov     [rdi + 0x310], ecx
    mov     dword [rdi + 0x300], TO_ONE | MAIL_VECTOR
    await   [rsi], rbx, e
    inc     qword [r13 + DID_MAIL]
    ret

own_code:                               ; code that its own processor has just written
    inc     qword [r13 + DID_CODE]
    mov     ebx, r15d
    shl     ebx, 12
    add     ebx, OWN_CODE
    mov     [rbx + 1], r14d
    call    rbx
    cmp     eax, r14d
    must    e
    not     dword [rbx + 1]
    call    rbx
    not     eax
    cmp     eax, r14d
    must    e
    ret

cross:                                  ; code that another processor has written: after a serialising instruction, it runs
    inc     qword [r13 + DID_CROSS]
    test    r14d, 0x3000
    jnz     .run
    mov     eax, 1
    xchg    eax, [CODE_LOCK]
    test    eax, eax
    jnz     .run
    mov     eax, [WRITTEN]
    inc     eax
    mov     [COMMON_CODE + 4], eax
    mov     [WRITTEN], eax
    unlock  CODE_LOCK
.run:
    mov     esi, [WRITTEN]
    xor     eax, eax
    cpuid
    mov     ebx, COMMON_CODE + 3
    call    rbx
    sub     eax, esi                    ; at least as new as what was announced
    must    ns
    ret

root:                                   ; another root with the same tables, or the same root again
    inc     qword [r13 + DID_ROOT]
    random  2
    lea     eax, [rax + r15 * 2]
    shl     eax, 12
    add     eax, ROOTS
    mov     cr3, rax
    ret

bits_of_an_entry:                       ; bits 57–52 of an entry count, while processors set its accessed and dirty bits
    inc     qword [r13 + DID_BITS]
    mov     rsi, 0x03F0000000000000
    mov     rdi, 0x0010000000000000
    mov     rax, [BITS_ENTRY]
.again:
    lea     rcx, [rax + rdi]
    and     rcx, rsi
    mov     rdx, rsi
    not     rdx
    and     rdx, rax
    or      rcx, rdx
    lock cmpxchg [BITS_ENTRY], rcx
    jnz     .again
    mov     [BITS_PAGE + r15 * 8], r14
    test    r14d, 0x300
    jnz     .end
    lock_it BITS_LOCK
    lock and dword [BITS_ENTRY], ~(ACCESSED | DIRTY)
    invlpg  [BITS_PAGE]
    mov     eax, [BITS_PAGE]
    mov     [BITS_PAGE + r15 * 8], r14
    mov     eax, [BITS_ENTRY]
    not     eax
    test    eax, ACCESSED | DIRTY
    must    z
    unlock  BITS_LOCK
.end:
    cmp     [BITS_PAGE + r15 * 8], r14
    must    e
    ret

; ---- interrupts ----

%macro end_of_interrupt 0
    mov     eax, APIC
    mov     dword [rax + 0xB0], 0
%endmacro

forget:                                 ; somebody changed a translation
    push    rax
    mov     rax, [SHOT]
    invlpg  [rax]
    lock inc dword [ACKS]
    end_of_interrupt
    pop     rax
    iretq

take_self:
    push    rax
    inc     qword [r13 + SELF_TAKEN]
    end_of_interrupt
    pop     rax
    iretq

take_mail:                              ; answers everybody who has sent since
    push    rax
    push    rcx
    end_of_interrupt                    ; first, so that a later sender's interrupt is a new one
    xor     eax, eax
    xchg    rax, [MAIL + r15 * 8]
.next:
    bsf     rcx, rax
    jz      .end
    btr     rax, rcx
    shl     ecx, 12
    add     ecx, PRIVATE
    inc     qword [rcx + ANSWERED + r15 * 8]
    jmp     .next
.end:
    pop     rcx
    pop     rax
    iretq

spurious:
    iretq

page_fault:                             ; a page that moves is absent for a moment: again. Anything else is a failure
    push    rax
    mov     rax, cr2
    sub     rax, PAGES
    cmp     rax, PAGE_COUNT * 0x1000
    jae     .wrong
    test    byte [rsp + 8], PRESENT
    jnz     .wrong
    inc     qword [r13 + DID_FAULT]
    pop     rax
    add     rsp, 8
    iretq
.wrong:
    mov     dword [FAULT_VECTOR], PF
    mov     rax, [rsp + 8]
    mov     [FAULT_ERROR], rax
    mov     rax, [rsp + 16]
    mov     [FAULT_RETURN], rax
    mov     rax, cr2
    jmp     fn(unexpected)

; ---- verdict ----

%macro same 2                           ; a counter is the sum, as far as it reaches
    cmp     %1, %2
    must    e
%endmacro

verdict:
    cli
    check   "bits of one dword, each flipped by its own processor"
    xor     ebx, ebx
.bit:
    mov     esi, ebx
    shl     esi, 12
    mov     eax, [rsi + PRIVATE + DID_COUNT]
    bt      dword [FLIPPED], ebx
    sbb     ecx, ecx
    xor     eax, ecx
    test    al, 1
    must    z
    inc     ebx
    cmp     ebx, [CPUS]
    jb      .bit
    mov     ecx, [CPUS]                 ; sums of what all did, on top of the first one's
    mov     esi, PRIVATE
.other:
    add     esi, 0x1000
    dec     ecx
    jz      .summed
    xor     edx, edx
.kind:
    mov     rax, [rsi + rdx * 8]
    add     [r13 + rdx * 8], rax
    inc     edx
    cmp     edx, KINDS
    jb      .kind
    jmp     .other
.summed:
    say_decimal [CPUS]
    say     " processors: "
    xor     edx, edx
    mov     esi, .names
.tell:
    mov     rax, [r13 + rdx * 8]
    mov     ecx, 1
    push    rdx
    push    rsi
    call    fn(decimal)
    pop     rsi
    call    fn(print)
    pop     rdx
    inc     edx
    cmp     edx, KINDS
    jb      .tell
    mov     rax, [r13 + DID_COUNT]
    check   "locked counters: INC, ADD, SUB, XADD"
    same    [IN_BYTE], al
    same    [IN_WORD], ax
    same    [IN_DWORD], eax
    same    [IN_QWORD], rax
    check   "over the end of a cache line"
    same    [OVER_WORD], ax
    same    [OVER_DWORD], eax
    same    [OVER_QWORD], rax
    same    [OVER_CX8], rax
    check   "over the end of a page"
    same    [PAGE_WORD], ax
    same    [PAGE_DWORD], eax
    same    [PAGE_QWORD], rax
    same    [PAGE_CX8], rax
    check   "CMPXCHG, CMPXCHG8B, CMPXCHG16B"
    same    [BY_CX], eax
    same    [BY_CX8], rax
    same    [BY_CX16], rax
    same    [BY_CX16 + 8], rax
    check   "plain words behind a spin lock"
    mov     rax, [r13 + DID_SECTION]
    same    [PLAIN_A], rax
    same    [PLAIN_B], rax
    check   "bits of a table entry"
    mov     rax, [BITS_ENTRY]
    shr     rax, 52
    xor     eax, [r13 + DID_BITS]
    test    eax, 63
    must    z
    check   "each processor did something of everything"
    xor     edx, edx
.did:
    cmp     qword [r13 + rdx * 8], 0
    must    ne
    inc     edx
    cmp     edx, DID_FAULT / 8          ; whether somebody meets an absent page is chance
    jb      .did
    passed
[section .rodata]
.names:
    db " rounds of counters, ", 0, " sections, ", 0, " reads of moving pages, ", 0, " moves, ", 0, " interrupts to oneself, ", 0
    db " to others, ", 0, " rounds of own code, ", 0, " of common code, ", 0, " roots, ", 0, " entries' bits, ", 0
    db " page faults", 10, 0
__SECT__
