; Code that writes code: the next instruction, loops that patch themselves, code across pages, through another linear
; address, by string instructions, beside data (SDM vol. 3, 12.1.3: a processor sees its own stores).

%define TEST_NAME "smc: code that writes code"
%include "asm/test.inc"
%include "asm/flat32.inc"

CODE            equ 0x40000             ; where code is put
DATA_PAGE       equ 0x50000

%macro place 2                          ; copies code from a label up to another to CODE
    mov     esi, %1
    mov     edi, CODE
    mov     ecx, %2 - %1
    rep movsb
%endmacro

width 16
test_main:
    check   "real mode: the next instruction is patched"
    mov     ax, 0x4000
    mov     es, ax
    mov     esi, .patch16 - ROM
    xor     edi, edi
    mov     ecx, .patch16_end - .patch16
    rep movsb
    xor     ax, ax
    mov     es, ax
    call    0x4000:0
    equal   al, 7
    jmp     .patch16_end
.patch16:
    mov     byte [cs:.immediate16 + 1 - .patch16], 7
.immediate16:
    mov     al, 1
    retf
.patch16_end:

    to_protected
    check   "protected mode: the next instruction is patched, again and again"
    place   .next, .next_end
    mov     edx, CODE
    xor     ebp, ebp
.again:
    mov     ecx, ebp
    call    edx
    equal   eax, ebp
    inc     ebp
    cmp     ebp, 300
    jb      .again
    jmp     .next_end
.next:
    mov     [edx + .immediate + 1 - .next], ecx
.immediate:
    mov     eax, 0x55555555
    ret
.next_end:

    check   "a loop that patches an instruction behind it, then one before it"
    place   .loop, .loop_end
    call    edx
    equal   eax, 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9
    jmp     .loop_end
.loop:
    xor     eax, eax
    xor     ecx, ecx
.loop_body:
    add     eax, strict dword 0         ; this immediate counts up
    inc     ecx
    mov     [edx + .loop_body + 1 - .loop], ecx
    cmp     ecx, 10
    jb      .loop_body
    ret
.loop_end:

    check   "an instruction becomes another: NOP to INC, RET to JMP"
    place   .nops, .nops_end
    xor     eax, eax
    mov     edx, CODE
    call    edx
    equal   eax, 0
    mov     byte [CODE + 1], 0x40       ; INC EAX
    call    edx
    equal   eax, 1
    mov     word [CODE + 3], 0x00EB     ; RET and NOP to a jump forward by 0
    call    edx
    equal   eax, 0x102
    jmp     .nops_end
.nops:
    nop
    nop
    nop
    ret
    nop
    mov     ah, 1
    ret
.nops_end:

    check   "only the second half of an instruction that straddles two pages changes"
    mov     word [CODE + 0xFFE], 0xB890 ; NOP; MOV EAX, …
    mov     dword [CODE + 0x1000], 0x11111111
    mov     byte [CODE + 0x1004], 0xC3
    mov     edx, CODE + 0xFFE
    call    edx
    equal   eax, 0x11111111
    mov     dword [CODE + 0x1000], 0x22222222
    call    edx
    equal   eax, 0x22222222
    mov     byte [CODE + 0x1003], 0x33
    call    edx
    equal   eax, 0x33222222
    mov     byte [CODE + 0xFFF], 0x35   ; XOR EAX, …: the first half
    call    edx
    equal   eax, 0

    check   "a store that straddles into the page of code"
    mov     word [CODE + 0x2000], 0x00B0 ; MOV AL, 0; RET
    mov     byte [CODE + 0x2002], 0xC3
    mov     edx, CODE + 0x2000
    call    edx
    equal   al, 0
    mov     dword [CODE + 0x1FFE], 0x42B09090
    call    edx
    equal   al, 0x42

    check   "code beside data: a counter in the same page, in the same cache line"
    place   .counter, .counter_end
    mov     edx, CODE
    xor     ebp, ebp
.count:
    call    edx
    inc     ebp
    cmp     ebp, 1000
    jb      .count
    equal   dword [CODE + .counted - .counter], 1000
    jmp     .counter_end
.counter:
    inc     dword [edx + .counted - .counter]
    ret
.counted:
    dd 0
.counter_end:

    check   "a function replaced by REP MOVSB, 200 different ones"
    xor     ebp, ebp
.replace:
    mov     [DATA_PAGE + 1], ebp
    mov     byte [DATA_PAGE], 0xB8      ; MOV EAX, EBP's value; RET
    mov     byte [DATA_PAGE + 5], 0xC3
    mov     esi, DATA_PAGE
    mov     edi, CODE
    mov     ecx, 6
    rep movsb
    mov     edx, CODE
    call    edx
    equal   eax, ebp
    inc     ebp
    cmp     ebp, 200
    jb      .replace

    check   "REP STOSB over the instructions behind itself"
    place   .overrun, .overrun_end
    mov     edx, CODE
    mov     eax, 0x90
    xor     ebx, ebx
    call    edx
    equal   ebx, 1
    jmp     .overrun_end
.overrun:
    lea     edi, [edx + .target - .overrun]
    mov     ecx, .target_end - .target
    rep stosb
.target:
    mov     ebx, 0x77777777             ; becomes NOPs
.target_end:
    inc     ebx
    ret
.overrun_end:

    check   "code on the stack"
    mov     ebx, esp
    push    0xC3909090
    push    0x12345678
    sub     esp, 1
    mov     byte [esp], 0xB8            ; MOV EAX, 12345678h; NOPs; RET
    mov     edx, esp
    call    edx
    mov     esp, ebx
    equal   eax, 0x12345678

    check   "PUSH, XCHG, LOCK and x87 stores into code"
    place   .variants, .variants_end
    mov     edx, CODE
    mov     eax, 0x00002222
    xchg    [CODE + 1], eax
    call    edx
    equal   eax, 0x2222
    lock add dword [CODE + 1], 0x1111
    call    edx
    equal   eax, 0x3333
    mov     ebx, esp
    mov     esp, CODE + 5
    push    0x4444
    mov     esp, ebx
    call    edx
    equal   eax, 0x4444
    mov     dword [DATA_PAGE], 0x5555
    fninit
    fild    dword [DATA_PAGE]
    fistp   dword [CODE + 1]
    call    edx
    equal   eax, 0x5555
    jmp     .variants_end
.variants:
    mov     eax, 0x1111
    ret
.variants_end:

    check   "paging: through another linear address of the same frame"
    call    paging_on
    map     0, CODE
    map     1, CODE
    place   .alias, .alias_end
    mov     edx, PAGE
    call    edx
    equal   eax, 1
    mov     byte [PAGE + 0x1000 + 1], 2
    call    edx
    equal   eax, 2
    mov     byte [CODE + 1], 3
    call    edx
    equal   eax, 3
    lea     edx, [PAGE + 0x1000]
    call    edx
    equal   eax, 3
    jmp     .alias_end
.alias:
    mov     eax, 1
    ret
.alias_end:

    check   "a code page replaced by another frame"
    mov     dword [DATA_PAGE], 0x000009B8
    mov     dword [DATA_PAGE + 4], 0x0000C300
    mov     edx, PAGE
    call    edx
    equal   eax, 3
    map     0, DATA_PAGE
    call    edx
    equal   eax, 9
    map     0, CODE
    call    edx
    equal   eax, 3

    check   "a chain between two pages, of which the second is replaced"
    map     4, CODE
    map     5, DATA_PAGE
    mov     byte [CODE + 0xFF0], 0xE9   ; JMP to the next page's first byte
    mov     dword [CODE + 0xFF1], 0x1000 - 0xFF5
    mov     edx, PAGE + 0x4FF0
    mov     ebp, 50
.chain:
    map     5, DATA_PAGE
    call    edx
    equal   eax, 9
    map     5, CODE
    call    edx
    equal   eax, 3
    dec     ebp
    jnz     .chain

    check   "the frame is filled while its code page is write-protected elsewhere"
    map     6, CODE, PRESENT | USER
    mov     edx, PAGE + 0x6000
    call    edx
    equal   eax, 3
    may_fault
    mov     byte [PAGE + 0x6001], 4
    faulted PF, 3
    call    edx
    equal   eax, 3
    mov     byte [CODE + 1], 5
    call    edx
    equal   eax, 5
    passed
