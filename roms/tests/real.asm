; Real mode: instruction basics, flags, the stack, far transfers, interrupts and the exceptions of the 8086 and 80186.

%define TEST_NAME "real: real mode"
%include "asm/test.inc"

width 16

%macro flags_are 1                      ; the status flags are these and no others
    pushf
    pop     dx
    and     dx, STATUS_FLAGS
    cmp     dx, %1
    must    e
%endmacro

test_main:
    check   "ADD: carry, overflow, adjust, parity"
    mov     al, 0x7F
    add     al, 1
    flags_are FLAG_OF | FLAG_SF | FLAG_AF
    mov     ax, 0xFFFF
    add     ax, 1
    flags_are FLAG_CF | FLAG_ZF | FLAG_AF | FLAG_PF
    mov     eax, 0x80000000
    add     eax, eax
    flags_are FLAG_CF | FLAG_ZF | FLAG_OF | FLAG_PF
    equal   eax, 0

    check   "SUB, CMP, NEG, INC and DEC"
    mov     al, 0x80
    sub     al, 1
    flags_are FLAG_OF | FLAG_AF
    mov     ax, 3
    cmp     ax, 5
    flags_are FLAG_CF | FLAG_SF | FLAG_AF
    mov     bl, 0x80
    neg     bl
    flags_are FLAG_CF | FLAG_OF | FLAG_SF
    stc
    mov     cl, 0xFF
    inc     cl                          ; keeps the carry
    flags_are FLAG_CF | FLAG_ZF | FLAG_AF | FLAG_PF
    stc
    dec     cl
    flags_are FLAG_CF | FLAG_SF | FLAG_AF | FLAG_PF

    check   "ADC and SBB carry through 64 bits"
    mov     eax, 0xFFFFFFFF
    mov     edx, 0x00000001
    add     eax, 1
    adc     edx, 0
    equal   edx, 2
    sub     eax, 1
    sbb     edx, 0
    equal   edx, 1
    equal   eax, -1

    check   "shifts: the last bit out, a count of 0, counts beyond 31"
    mov     al, 0x81
    shl     al, 1
    must    c
    equal   al, 2
    mov     eax, 0x80000001
    stc
    mov     cl, 32                      ; is 0: nothing changes, the flags neither
    shl     eax, cl
    must    c
    equal   eax, 0x80000001
    mov     cl, 33                      ; is 1
    shr     eax, cl
    must    c
    equal   eax, 0x40000000
    mov     ax, 0x8000
    sar     ax, 15
    equal   ax, -1

    check   "rotates through the carry"
    stc
    mov     al, 0x40
    rcl     al, 1
    must    nc
    equal   al, 0x81
    rcr     al, 1
    must    c
    equal   al, 0x40
    mov     ax, 0x1234
    rol     ax, 4
    equal   ax, 0x2341

    check   "SHLD and SHRD"
    mov     eax, 0x12345678
    mov     edx, 0x9ABCDEF0
    shld    eax, edx, 8
    equal   eax, 0x3456789A
    shrd    eax, edx, 16
    equal   eax, 0xDEF03456

    check   "MUL and IMUL: the upper half decides the carry"
    mov     al, 16
    mov     bl, 16
    mul     bl
    must    c
    equal   ax, 0x100
    mov     ax, -2
    mov     bx, 3
    imul    bx
    must    nc
    equal   dx, -1
    equal   ax, -6
    imul    ecx, eax, 0x10000

    check   "DIV and IDIV"
    mov     dx, 1
    mov     ax, 0
    mov     bx, 0x10
    div     bx
    equal   ax, 0x1000
    mov     ax, -7
    mov     bl, 2
    idiv    bl
    equal   ax, 0xFFFD                  ; quotient -3 in AL, remainder -1 in AH

    check   "division by zero and overflow: #DE at the instruction, registers kept"
    mov     ax, 0x1234
    xor     bl, bl
    may_fault
.divide:
    div     bl
    faulted DE
    equal   ax, 0x1234
    equal   word [ram(FAULT_RETURN)], .divide - ROM
    mov     ax, 0x8000
    mov     dx, 0xFFFF
    mov     bx, -1
    may_fault
    idiv    bx
    faulted DE

    check   "decimal adjustment"
    mov     al, 0x19
    add     al, 0x28
    daa
    equal   al, 0x47
    sub     al, 0x28
    das
    equal   al, 0x19
    mov     ax, 0x0009
    add     al, 8
    aaa
    equal   ax, 0x0107
    aad
    equal   ax, 17
    aam
    equal   ax, 0x0107

    check   "bit tests and scans"
    mov     eax, 0x00800100
    bsf     ecx, eax
    equal   ecx, 8
    bsr     ecx, eax
    equal   ecx, 23
    xor     ebx, ebx
    bsf     ecx, ebx
    must    z
    btc     eax, 23
    must    c
    equal   eax, 0x100
    mov     dword [ram(VAR0)], 0
    mov     ax, 33                      ; a bit string reaches beyond its word
    mov     ebx, VAR0
    bts     [ram(bx)], ax
    equal   byte [ram(VAR0 + 4)], 2
    mov     byte [ram(VAR0 + 4)], 0

    check   "sign and zero extension, XLAT, BSWAP, XADD, CMPXCHG"
    mov     al, 0x80
    cbw
    equal   ax, 0xFF80
    cwd
    equal   dx, -1
    cwde
    equal   eax, 0xFFFFFF80
    movzx   ecx, al
    equal   ecx, 0x80
    mov     ebx, text(.digits)
    mov     al, 11
    xlatb
    equal   al, 'B'
    mov     eax, 0x11223344
    bswap   eax
    equal   eax, 0x44332211
    mov     ecx, 5
    mov     eax, 7
    xadd    eax, ecx
    equal   eax, 12
    equal   ecx, 7
    mov     edx, 9
    cmpxchg ecx, edx                    ; 12 is not 7
    must    ne
    equal   eax, 7
    cmpxchg ecx, edx
    must    e
    equal   ecx, 9
    jmp     .after_digits
.digits: db "0123456789ABCDEF"
.after_digits:

    check   "the stack: PUSH SP, PUSHA and POPA, ENTER and LEAVE"
    mov     ax, sp
    push    sp
    pop     bx
    equal   ax, bx
    mov     cx, 0x1111
    mov     di, 0x2222
    pusha
    xor     cx, cx
    xor     di, di
    popa
    equal   cx, 0x1111
    equal   di, 0x2222
    mov     bp, 0x3333
    mov     bx, sp
    enter   16, 0
    mov     ax, bx
    sub     ax, bp
    equal   ax, 2
    sub     bx, sp
    equal   bx, 18
    leave
    equal   bp, 0x3333

    check   "the stack pointer wraps within its 64 KiB"
    mov     [ram(VAR0)], esp
    mov     ax, 0x3000
    mov     ss, ax
    mov     esp, 0
    push    word 0x1234
    mov     ax, sp
    mov     bx, [ss:0xFFFE]
    pop     cx
    mov     dx, sp
    xor     si, si
    mov     ss, si
    mov     esp, [ram(VAR0)]
    equal   ax, 0xFFFE
    equal   bx, 0x1234
    equal   cx, 0x1234
    equal   dx, 0

    check   "segment x 16 + offset; LDS, LES, LFS"
    mov     ax, 0x1000
    mov     fs, ax
    mov     dword [fs:0x20], 0x20005678
    lfs     bx, [fs:0x20]
    equal   bx, 0x5678
    mov     ax, fs
    equal   ax, 0x2000
    mov     dword [fs:bx], 'here'
    mov     ax, 0x2567
    mov     gs, ax
    equal   dword [gs:8], 'here'

    check   "16-bit addresses wrap, 32-bit addresses do not"
    mov     ax, 0x2000
    mov     fs, ax
    mov     byte [fs:0x0010], 0x5A
    mov     bx, 0xFFFF
    mov     si, 0x0011
    equal   byte [fs:bx + si], 0x5A
    mov     bp, 0x0020
    equal   byte [fs:bp - 0x10], 0x5A

    check   "string instructions in both directions"
    mov     edi, 0x8000
    mov     ecx, 8
    mov     ax, 0x2A2A
    rep stosw
    equal   di, 0x8010
    equal   cx, 0
    equal   word [ram(0x800E)], 0x2A2A
    mov     byte [ram(0x8007)], '!'
    mov     edi, 0x8000
    mov     cx, 16
    mov     al, '!'
    repne scasb
    must    e
    equal   di, 0x8008
    equal   cx, 8
    std
    mov     di, 0x800F
    mov     cx, 16
    repne scasb
    cld
    must    e
    equal   di, 0x8006
    mov     si, text(.digits)
    mov     di, 0x8000
    mov     cx, 16
    rep movsb
    mov     si, text(.digits)
    mov     di, 0x8000
    mov     cx, 16
    repe cmpsb
    must    e
    equal   cx, 0
    xor     cx, cx                      ; no iteration: the flags stay
    cmp     cx, 1
    repe cmpsb
    must    ne

    check   "LOOP, JCXZ, SETcc"
    mov     cx, 5
    xor     ax, ax
.loop:
    inc     ax
    loop    .loop
    equal   ax, 5
    jcxz    .zero
    call    fn(fail)
.zero:
    cmp     ax, 5
    sete    bl
    setb    bh
    equal   bx, 1
    mov     ecx, 0x10000
    jecxz   .wrong
    jmp     .ecx_done
.wrong:
    call    fn(fail)
.ecx_done:

    check   "far call and return, with a parameter"
    push    word 0x7777
    mov     bp, sp
    call    0xF000:(.far - ROM)
    mov     ax, bp
    sub     ax, sp
    equal   ax, -2
    jmp     .far_done
.far:
    retf    2
.far_done:

    check   "INT and IRET: the frame, IF and TF cleared, flags restored"
    mov     word [ram(0x60 * 4)], .handler - ROM
    mov     word [ram(0x60 * 4 + 2)], 0xF000
    mov     dword [ram(VAR0)], 0
    stc
    sti
    int     0x60
    pushf
    cli
    pop     bx
    test    bx, FLAG_IF
    must    nz
    test    bx, FLAG_CF
    must    nz
    mov     ax, [ram(VAR0)]
    test    ax, FLAG_IF
    must    z
    jmp     .int_done
.handler:
    pushf
    pop     word [ram(VAR0)]
    clc
    iret
.int_done:

    check   "INTO, BOUND, INT3, an undefined opcode"
    may_fault
    xor     ax, ax
    into
    not_faulted
    may_fault
    mov     al, 0x7F
    add     al, 1
    into
    faulted OF_
    mov     word [ram(VAR0)], 10
    mov     word [ram(VAR0 + 2)], 20
    mov     ax, 20
    may_fault
    bound   ax, [ram(VAR0)]
    not_faulted
    mov     ax, 21
    may_fault
.bound:
    bound   ax, [ram(VAR0)]
    faulted BR_
    equal   word [ram(FAULT_RETURN)], .bound - ROM
    may_fault
    int3
.after_int3:
    faulted BP_
    equal   word [ram(FAULT_RETURN)], .after_int3 - ROM
    may_fault
    ud2
    faulted UD
    mov     dword [ram(VAR0)], 0

    check   "instructions that real mode does not have are undefined"
    may_fault
    sldt    ax
    faulted UD
    may_fault
    ltr     ax
    faulted UD
    may_fault
    arpl    ax, bx
    faulted UD
    may_fault
    lar     ax, bx
    faulted UD
    may_fault
    db 0x8C, 0xF8                       ; MOV AX from a segment register that there is not
    faulted UD
    may_fault
    db 0x8E, 0xC8                       ; MOV CS, AX
    faulted UD
    may_fault
    db 0xF0, 0x90                       ; LOCK NOP
    faulted UD
    may_fault
    db 0xF0, 0x01, 0xD8                 ; LOCK ADD AX, BX: no memory operand
    faulted UD

    check   "single step: #DB after the instruction"
    pushf
    pop     ax
    or      ax, FLAG_TF
    may_fault
    push    ax
    popf
    nop
.stepped:
    nop
    faulted DB_
    equal   word [ram(FAULT_RETURN)], .stepped - ROM

    check   "MOV SS holds off the step for one instruction"
    may_fault
    push    ax
    xor     bx, bx
    popf
    mov     ss, bx
    mov     ecx, 0x1234
.after_shadow:
    nop
    faulted DB_
    equal   ecx, 0x1234
    equal   word [ram(FAULT_RETURN)], .after_shadow - ROM

    check   "an interrupt table elsewhere: LIDT works in real mode"
    mov     esi, 0
    mov     edi, 0x9000
    mov     cx, 0x400
    push    ds
    xor     ax, ax
    mov     ds, ax
    rep movsb
    pop     ds
    mov     word [ram(0x9000 + 0x61 * 4)], .moved - ROM
    mov     word [ram(0x9000 + 0x61 * 4 + 2)], 0xF000
    mov     word [ram(VAR0)], 0x3FF
    mov     dword [ram(VAR0 + 2)], 0x9000
    o32 lidt [ram(VAR0)]
    xor     bx, bx
    int     0x61
    equal   bx, 0x1234
    mov     dword [ram(VAR0 + 2)], 0
    o32 lidt [ram(VAR0)]
    jmp     .lidt_done
.moved:
    mov     bx, 0x1234
    iret
.lidt_done:
    passed
