; String instructions with faults in the middle: registers, memory and the fault must be exact, and the instruction must go
; on where it was (SDM vol. 2, REP; vol. 3, 6.6).

%define TEST_NAME "strings: string instructions across faults"
%include "asm/test.inc"
%include "asm/flat32.inc"

FRAME           equ 0x40000             ; frames of the test, not in order of their pages
FRAME_2         equ 0x48000
FRAME_3         equ 0x44000

fill_next:                              ; a plan: map the page at EAX to a frame of the same number, count
    mov     edx, eax
    shr     edx, 12
    and     edx, 0x3FF
    mov     ecx, edx
    shl     ecx, 12
    add     ecx, 0x60000 | RIGHTS
    mov     [TABLE + edx * 4], ecx
    inc     dword [VAR0]
    ret

clear_frames:
    push    edi
    mov     edi, FRAME
    mov     ecx, 0x3000
    xor     eax, eax
    rep stosd
    pop     edi
    ret

width 16
test_main:
    to_protected
    call    paging_on

    check   "REP MOVSB: the destination's second page is absent"
    map     0, FRAME
    map     1, FRAME_2
    map     2, FRAME_3
    unmap   3
    mov     edi, PAGE
    mov     ecx, 0x3000
    xor     eax, eax
.pattern:
    mov     [edi], al
    add     al, 7
    inc     edi
    loop    .pattern
    mov     esi, PAGE + 0x10
    mov     edi, PAGE + 0x2F00
    mov     ecx, 0x400
    may_fault
    rep movsb
    faulted PF, 2
    equal   dword [FAULT_LINEAR], PAGE + 0x3000
    equal   ecx, 0x300
    equal   esi, PAGE + 0x110
    equal   edi, PAGE + 0x3000
    equal   byte [PAGE + 0x2F00], 0x70
    equal   byte [PAGE + 0x2FFF], (0x10F * 7) & 0xFF

    check   "REP MOVSD that straddles: the element is written whole or not at all"
    mov     dword [PAGE + 0x2FFC], 0x55555555
    mov     esi, PAGE
    mov     edi, PAGE + 0x2FF6
    mov     ecx, 8
    may_fault
    rep movsd
    faulted PF, 2
    equal   dword [FAULT_LINEAR], PAGE + 0x3000
    equal   ecx, 6
    equal   esi, PAGE + 8
    equal   edi, PAGE + 0x2FFE
    equal   byte [PAGE + 0x2FFE], 0x55
    equal   byte [PAGE + 0x2FFF], 0x55

    check   "the source's page is absent"
    mov     esi, PAGE + 0x2FFC
    mov     edi, PAGE
    mov     ecx, 8
    may_fault
    rep movsd
    faulted PF, 0
    equal   ecx, 7
    equal   esi, PAGE + 0x3000
    equal   edi, PAGE + 4

    check   "both are absent: the source comes first"
    mov     esi, PAGE + 0x3000
    mov     edi, PAGE + 0x4000
    mov     ecx, 1
    may_fault
    rep movsb
    faulted PF, 0
    equal   dword [FAULT_LINEAR], PAGE + 0x3000

    check   "a count of 0 touches nothing"
    xor     ecx, ecx
    may_fault
    rep movsb
    rep stosd
    repe cmpsb
    not_faulted

    check   "backwards: the fault is at the page below"
    std
    mov     esi, PAGE + 0x2100
    mov     edi, PAGE + 0x4004
    unmap   4
    map     4, FRAME
    mov     ecx, 10
    may_fault
    rep movsd
    faulted PF, 2
    cld
    equal   dword [FAULT_LINEAR], PAGE + 0x3FFC
    equal   ecx, 8
    equal   edi, PAGE + 0x3FFC
    equal   esi, PAGE + 0x2100 - 8

    check   "the handler maps pages one by one, and the instruction goes on: REP STOSD over 8 pages"
    mov     dword [VAR0], 0
    mov     dword [FAULT_PLAN], fill_next
    mov     edi, PAGE + 0x10008
    mov     ecx, 8 * 1024
    mov     eax, 0x12345678
    rep stosd
    mov     dword [FAULT_PLAN], 0
    equal   dword [VAR0], 9
    equal   edi, PAGE + 0x18008
    equal   ecx, 0
    mov     edi, PAGE + 0x10008
    mov     ecx, 8 * 1024
    repe scasd
    must    e
    equal   ecx, 0
    equal   dword [0x70008], 0x12345678
    equal   dword [0x70004], 0

    check   "REP MOVSB from mapped to unmapped pages, unaligned"
    mov     dword [VAR0], 0
    mov     dword [FAULT_PLAN], fill_next
    mov     esi, PAGE + 0x10003
    mov     edi, PAGE + 0x20FF5
    mov     ecx, 0x3007
    rep movsb
    mov     dword [FAULT_PLAN], 0
    equal   dword [VAR0], 4
    mov     esi, PAGE + 0x10003
    mov     edi, PAGE + 0x20FF5
    mov     ecx, 0x3007
    repe cmpsb
    must    e

    check   "REPE CMPSB and REPNE SCASB stop at a fault with their registers"
    mov     esi, PAGE + 0x12FF0
    unmap   0x13
    mov     edi, PAGE + 0x11FF0
    mov     ecx, 0x40
    may_fault
    repe cmpsb
    faulted PF, 0
    equal   dword [FAULT_LINEAR], PAGE + 0x13000
    equal   ecx, 0x30
    equal   esi, PAGE + 0x13000
    equal   edi, PAGE + 0x12000
    mov     edi, PAGE + 0x12FF8
    mov     ecx, 0x40
    mov     al, 0xEE
    may_fault
    repne scasb
    faulted PF, 0
    equal   ecx, 0x38
    equal   edi, PAGE + 0x13000

    check   "overlap: a copy to the next byte spreads it; backwards it moves up"
    mov     byte [PAGE], 'x'
    mov     esi, PAGE
    mov     edi, PAGE + 1
    mov     ecx, 0x1FFF
    rep movsb
    equal   byte [PAGE + 0x1FFF], 'x'
    mov     dword [PAGE + 0xFFC], 'abcd'
    std
    mov     esi, PAGE + 0x1003
    mov     edi, PAGE + 0x1005
    mov     ecx, 8
    rep movsb
    cld
    equal   dword [PAGE + 0xFFE], 'abcd'
    mov     dword [PAGE], 'pqrs'
    mov     esi, PAGE
    mov     edi, PAGE + 3               ; dwords that overlap by one byte
    mov     ecx, 2
    rep movsd
    equal   dword [PAGE + 3], 'pqrs'
    equal   byte [PAGE + 7], 'q'

    check   "two pages of the same frame: the copy sees itself"
    map     6, FRAME
    map     7, FRAME
    mov     dword [PAGE + 0x6000], '1234'
    mov     dword [PAGE + 0x6004], '5678'
    mov     esi, PAGE + 0x6000
    mov     edi, PAGE + 0x7001
    mov     ecx, 7
    rep movsb
    equal   dword [FRAME], '1111'
    equal   dword [FRAME + 4], '1111'

    check   "a write-protected destination: error 3, nothing written"
    map     8, FRAME_2, PRESENT | USER
    mov     dword [FRAME_2], 'keep'
    mov     edi, PAGE + 0x8000
    mov     ecx, 4
    may_fault
    rep stosd
    faulted PF, 3
    equal   ecx, 4
    equal   dword [FRAME_2], 'keep'

    check   "16-bit addresses: SI, DI and CX wrap, the upper halves stay"
    mov     esi, 0xAAAAFFFE
    mov     edi, 0xBBBB8000
    mov     ecx, 0xCCCC0004
    mov     byte [0xFFFE], 'a'
    mov     byte [0xFFFF], 'b'
    mov     ebx, [0]
    mov     byte [0], 'c'
    mov     byte [1], 'd'
    a16 rep movsb
    mov     [0], ebx
    equal   dword [0x8000], 'abcd'
    equal   esi, 0xAAAA0002
    equal   edi, 0xBBBB8004
    equal   ecx, 0xCCCC0000

    check   "single step: a trap after each element"
    mov     edi, PAGE + 0x6000
    mov     ecx, 3
    may_fault
    pushfd
    or      dword [esp], FLAG_TF
    popfd
.stepped:
    rep stosb
    faulted DB_, 0
    equal   ecx, 2
    equal   dword [FAULT_RETURN], .stepped

    check   "INSB and OUTSB: by element, through the I/O ports"
    mov     esi, FRAME
    mov     byte [FRAME], 0x11
    mov     byte [FRAME + 1], 0x22
    mov     edx, COM1 + 7               ; the scratch register
    mov     ecx, 2
    rep outsb
    equal   esi, FRAME + 2
    in      al, dx
    equal   al, 0x22
    unmap   9
    mov     edi, PAGE + 0x9000
    mov     ecx, 1
    may_fault
    rep insb
    faulted PF, 2
    equal   ecx, 1
    passed
