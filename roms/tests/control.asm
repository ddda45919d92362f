; Control registers and EFER: which combinations are refused (SDM vol. 3, 2.5 and 9.8.5). QEMU's TCG accepts most of them.

%define TEST_NAME "control: rules of CR0, CR4 and EFER"
%include "asm/test.inc"

width 16
test_main:
    check   "CR0: PG without PE is refused in real mode"
    mov     eax, cr0
    mov     ebx, eax
    or      eax, CR0_PG
    may_fault
    mov     cr0, eax
    faulted GP
    mov     eax, cr0
    equal   eax, ebx

    check   "CR0: NW without CD is refused; ET reads as 1"
    mov     eax, CR0_ET | 1 << 29
    may_fault
    mov     cr0, eax
    faulted GP
    mov     eax, cr0
    test    al, CR0_ET
    must    nz

    check   "LMSW sets PE but cannot clear it; it touches the low four bits only"
    to_protected
    mov     eax, CR0_TS | CR0_MP        ; without PE
    lmsw    ax
    smsw    ax
    and     eax, 0xF
    equal   eax, CR0_PE | CR0_TS | CR0_MP
    clts
    smsw    ax
    test    al, CR0_TS
    must    z

    check   "TS and EM keep the x87 away: #NM"
    mov     eax, cr0
    or      eax, CR0_TS
    mov     cr0, eax
    may_fault
    fninit
    faulted NM
    may_fault
    fwait                               ; MP and TS
    faulted NM
    and     eax, ~(CR0_TS | CR0_MP)
    or      eax, CR0_EM
    mov     cr0, eax
    may_fault
    fninit
    faulted NM
    may_fault
    fwait
    not_faulted
    and     eax, ~CR0_EM
    mov     cr0, eax

    check   "registers that there are not: MOV CR1, CR5 #UD"
    may_fault
    db 0x0F, 0x20, 0xC8                 ; MOV EAX, CR1
    faulted UD
    may_fault
    db 0x0F, 0x22, 0xE8                 ; MOV CR5, EAX
    faulted UD

    check   "CR4: reserved bits are refused"
    mov     eax, cr4
    or      eax, 1 << 31
    may_fault
    mov     cr4, eax
    faulted GP, 0

    check   "MOV DR4 is DR6 without CR4.DE, #UD with it; DR7.GD traps"
    mov     eax, dr6
    db 0x0F, 0x21, 0xE3                 ; MOV EBX, DR4
    equal   eax, ebx
    mov     eax, 0x2400                 ; GD
    mov     dr7, eax
    may_fault
    mov     ebx, dr0
    faulted DB_
    mov     eax, dr7
    test    eax, 0x2000
    must    z                           ; the handler may use them
    mov     eax, 0x400
    mov     dr7, eax

    test    dword [FEATURES], 1 << 5
    jz      .no_msr
    check   "RDMSR and WRMSR of a register that there is not: #GP(0)"
    mov     ecx, 0x12345678
    may_fault
    rdmsr
    faulted GP, 0
    may_fault
    wrmsr
    faulted GP, 0
.no_msr:

    test    dword [FEATURES_EXT], HAS_LONG_MODE
    jnz     .long_mode
    passed
.long_mode:
    check   "LME without PAE: setting PG is #GP(0)"
    mov     ecx, EFER
    rdmsr
    or      eax, EFER_LME
    wrmsr
    mov     eax, cr0
    or      eax, CR0_PG
    may_fault
    mov     cr0, eax
    faulted GP, 0

    check   "EFER: reserved bits are refused, LMA cannot be written"
    mov     ecx, EFER
    rdmsr
    mov     ebx, eax
    or      eax, 1 << 1
    may_fault
    wrmsr
    faulted GP, 0
    rdmsr
    equal   eax, ebx

    to_long
    check   "in long mode PAE stays, LME stays, PG cannot be cleared in 64-bit code"
    mov     rax, cr4
    and     eax, ~CR4_PAE
    may_fault
    mov     cr4, rax
    faulted GP, 0
    mov     ecx, EFER
    rdmsr
    and     eax, ~EFER_LME
    may_fault
    wrmsr
    faulted GP, 0
    mov     rax, cr0
    and     eax, ~CR0_PG
    may_fault
    mov     cr0, rax
    faulted GP, 0

    check   "upper halves: CR0 and CR4 #GP(0), EFER #GP(0)"
    mov     rax, cr0
    mov     rbx, 1 << 32
    or      rax, rbx
    may_fault
    mov     cr0, rax
    faulted GP, 0
    mov     rax, cr4
    or      rax, rbx
    may_fault
    mov     cr4, rax
    faulted GP, 0
    mov     ecx, EFER
    rdmsr
    mov     edx, 1
    may_fault
    wrmsr
    faulted GP, 0

    check   "an MSR that holds an address refuses one that is not canonical"
    mov     ecx, 0xC0000102             ; KernelGSBase
    xor     eax, eax
    mov     edx, 0x8000
    may_fault
    wrmsr
    faulted GP, 0

    check   "an address that is not canonical: #GP(0), by the stack segment #SS(0)"
    mov     rbx, 0x0000800000000000
    may_fault
    mov     eax, [rbx]
    faulted GP, 0
    mov     rbp, rbx
    may_fault
    mov     eax, [rbp]
    faulted SS_, 0
    may_fault
    mov     eax, [rbx + rbp]            ; RBX is the base: the data segment
    faulted GP, 0

    check   "instructions that 64-bit mode does not have: #UD"
%macro undefined 1+
    may_fault
    db %1
    faulted UD
%endmacro
    undefined 0x06                      ; PUSH ES
    undefined 0x0E                      ; PUSH CS
    undefined 0x1F                      ; POP DS
    undefined 0x27                      ; DAA
    undefined 0x37                      ; AAA
    undefined 0x60                      ; PUSHA
    undefined 0x61                      ; POPA
    undefined 0x62, 0x00                ; BOUND
    undefined 0x9A, 0, 0, 0, 0, 0, 0    ; CALL far
    undefined 0xC4, 0x00                ; LES
    undefined 0xCE                      ; INTO
    undefined 0xD4, 10                  ; AAM
    undefined 0xEA, 0, 0, 0, 0, 0, 0    ; JMP far
    undefined 0xD6                      ; SALC
    passed
