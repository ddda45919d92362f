; Hardware task switches: JMP, CALL and IRET, task gates, what is saved and loaded, busy bits, back links, faults
; (SDM vol. 3, chapter 8).

%define TEST_NAME "tasks: hardware task switches"
%include "asm/test.inc"

OTHER           equ FREE_SLOT           ; the other task's selector
TASK_GATE       equ FREE_SLOT + 8
TSS_2           equ 0x2500
OTHER_STACK     equ 0x4C00

%macro fresh_task 1                     ; the other task starts at a label, with nothing but what is said here
    mov     edi, TSS_2
    mov     ecx, 0x68 / 4
    xor     eax, eax
    rep stosd
    mov     dword [TSS_2 + 0x20], %1
    mov     dword [TSS_2 + 0x24], 2     ; EFLAGS
    mov     dword [TSS_2 + 0x28], 'A   '
    mov     dword [TSS_2 + 0x2C], 'C   '
    mov     dword [TSS_2 + 0x38], OTHER_STACK
    mov     dword [TSS_2 + 0x48], DATA  ; ES
    mov     dword [TSS_2 + 0x4C], CODE_32
    mov     dword [TSS_2 + 0x50], DATA  ; SS
    mov     dword [TSS_2 + 0x54], DATA  ; DS
    mov     word [TSS_2 + 0x66], 0x68
    set_descriptor GDT + OTHER, TSS_2, 0x67, 0x89, 0
%endmacro

width 16
test_main:
    to_protected
    check   "JMP to a task and back: registers, busy bits, CR0.TS, no NT"
    fresh_task .first
    clts
    mov     ebx, 'kept'
    jmp     OTHER:0
    equal   ebx, 'kept'
    jmp     .first_done
.first:
    mov     [VAR0], eax
    mov     [VAR1], ecx
    mov     [VAR2], esp
    pushfd
    pop     dword [VAR3]
    mov     eax, cr0
    mov     [0x5A0], eax
    str     ax
    mov     [0x5A8], eax
    mov     al, [GDT + TASK + 5]
    mov     [0x5B0], al
    mov     al, [GDT + OTHER + 5]
    mov     [0x5B1], al
    mov     ebx, 'else'
    jmp     TASK:0
.first_done:
    equal   dword [VAR0], 'A   '
    equal   dword [VAR1], 'C   '
    equal   dword [VAR2], OTHER_STACK
    test    dword [VAR3], FLAG_NT
    must    z
    test    dword [0x5A0], CR0_TS
    must    nz
    equal   word [0x5A8], OTHER
    equal   byte [0x5B0], 0x89
    equal   byte [0x5B1], 0x8B
    equal   byte [GDT + TASK + 5], 0x8B
    equal   byte [GDT + OTHER + 5], 0x89
    equal   dword [TSS_2 + 0x34], 'else' ; its EBX was saved

    check   "CALL nests: NT, a back link, both busy; IRET returns"
    fresh_task .nested
    call    OTHER:0
    jmp     .nested_done
.nested:
    pushfd
    pop     dword [VAR0]
    mov     al, [GDT + TASK + 5]
    mov     [VAR1], al
    iretd
.nested_done:
    test    dword [VAR0], FLAG_NT
    must    nz
    equal   byte [VAR1], 0x8B
    equal   word [TSS_2], TASK
    equal   byte [GDT + OTHER + 5], 0x89
    pushfd
    pop     eax
    test    eax, FLAG_NT
    must    z

    check   "through a task gate in the GDT, and one in the IDT"
    mov     dword [GDT + TASK_GATE], OTHER << 16
    mov     dword [GDT + TASK_GATE + 4], 0x8500
    mov     dword [VAR0], 0
    fresh_task .by_gate
    call    TASK_GATE:0
    equal   dword [VAR0], 1
    fresh_task .by_gate
    mov     dword [INTERRUPTS + 0x2F * 8], OTHER << 16
    mov     dword [INTERRUPTS + 0x2F * 8 + 4], 0x8500
    int     0x2F
    equal   dword [VAR0], 2
    jmp     .by_gate_done
.by_gate:
    inc     dword [VAR0]
    iretd
.by_gate_done:

    check   "an exception with an error code through a task gate: the code is on the new stack"
    mov     esi, [INTERRUPTS + GP * 8]
    mov     edi, [INTERRUPTS + GP * 8 + 4]
    push    esi
    push    edi
    fresh_task .exception
    mov     dword [INTERRUPTS + GP * 8], OTHER << 16
    mov     dword [INTERRUPTS + GP * 8 + 4], 0x8500
    mov     eax, GDT_SIZE
    mov     fs, eax                     ; #GP; the task moves the return address on
.after_exception:
    jmp     .exception_done
.exception:
    pop     dword [VAR1]
    mov     dword [TSS + 0x20], .after_exception
    iretd
.exception_done:
    pop     edi
    pop     esi
    mov     [INTERRUPTS + GP * 8], esi
    mov     [INTERRUPTS + GP * 8 + 4], edi
    equal   dword [VAR1], GDT_SIZE

    check   "a busy task: #GP(selector) for JMP and CALL"
    fresh_task start
    mov     byte [GDT + OTHER + 5], 0x8B
    may_fault
    jmp     OTHER:0
    faulted GP, OTHER
    may_fault
    call    OTHER:0
    faulted GP, OTHER

    check   "a task not present: #NP; a short TSS: #TS(selector)"
    mov     byte [GDT + OTHER + 5], 0x09
    may_fault
    jmp     OTHER:0
    faulted NP, OTHER
    set_descriptor GDT + OTHER, TSS_2, 0x66, 0x89, 0
    may_fault
    jmp     OTHER:0
    faulted TS_, OTHER

    check   "IRET with NT to a task that is not busy: #TS(selector)"
    mov     word [TSS], OTHER
    set_descriptor GDT + OTHER, TSS_2, 0x67, 0x89, 0
    may_fault
    pushfd
    or      dword [esp], FLAG_NT
    popfd
    iretd
    faulted TS_, OTHER
    push    2
    popfd

    check   "segments and EFLAGS come from the TSS"
    fresh_task .segments
    mov     dword [TSS_2 + 0x58], DATA_USER
    mov     dword [TSS_2 + 0x24], 2 | FLAG_CF | FLAG_DF
    call    OTHER:0
    jmp     .segments_done
.segments:
    pushfd
    pop     dword [VAR0]
    mov     [VAR1], fs
    iretd
.segments_done:
    test    dword [VAR0], FLAG_CF
    must    nz
    test    dword [VAR0], FLAG_DF
    must    nz
    equal   word [VAR1], DATA_USER
    passed
