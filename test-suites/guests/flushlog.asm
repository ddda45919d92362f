; flushlog: a firmware image that writes records to the first IDE disk (with -D AHCI: to the disk at AHCI's first port),
; flushes each, and then names it on COM1.
;
; Record n is eight sectors at LBA 8 n, each dword n. After FLUSH CACHE has ended well, n is sent as eight hexadecimal
; digits and a newline; after an error "ERROR" and a newline, and the machine ends by the exit port. Starts behind the
; last record that the disk has. Assembled by NASM: nasm -f bin -o flushlog.bin flushlog.asm
bits 16
cpu 386
size equ 4096
org 0x10000 - size

start:
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov dx, 0x3FB
    mov al, 3                   ; eight bits
    out dx, al
    call set_up
    mov ebp, 1
.find:                          ; the first record that is not there
    call read_record
    cmp eax, ebp
    jne .record
    inc ebp
    jmp .find

.record:
    call write_record
    call flush
    mov ebx, ebp
    mov cx, 8
.digit:
    rol ebx, 4
    mov al, bl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .send
    add al, 'a' - '9' - 1
.send:
    call send
    loop .digit
    mov al, 10
    call send
    inc ebp
    jmp .record

; Writes EBX to the configuration register that EAX names.
configure:
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    mov eax, ebx
    out dx, eax
    ret

%ifdef AHCI
LIST    equ 0x8000              ; in RAM: the command list, received FIS, a command table, a record
RECEIVED equ 0x8400
TABLE   equ 0x8500
RECORD  equ 0x9000
PORTS   equ 0xC020              ; where the adapter's ports are: index and data at 10h and 14h (AHCI 1.3.1, 10.14)
%macro set 2                    ; register %1 := %2
    mov eax, %1
    mov dx, PORTS + 0x10
    out dx, eax
    mov eax, %2
    mov dx, PORTS + 0x14
    out dx, eax
%endmacro

set_up:                         ; the function answers, and its first port runs
    mov eax, 0x80002820
    mov ebx, PORTS
    call configure
    mov eax, 0x80002804
    mov ebx, 5
    call configure
    set 0x04, 1 << 31
    set 0x100, LIST
    set 0x104, 0
    set 0x108, RECEIVED
    set 0x10C, 0
    set 0x118, 0x10
    set 0x118, 0x11
    ret

; The first dword of record EBP.
read_record:
    mov al, 0x25                ; READ DMA EXT
    mov ebx, 1 << 16 | 5
    call command
    mov eax, [RECORD]
    ret
write_record:
    mov eax, ebp
    push ds
    pop es
    mov di, RECORD
    mov cx, 1024
    rep stosd
    mov al, 0x35                ; WRITE DMA EXT
    mov ebx, 1 << 16 | 1 << 6 | 5
    jmp command
flush:
    mov al, 0xEA                ; FLUSH CACHE EXT
    mov ebx, 5

; Command AL for the eight sectors of record EBP; EBX begins its header.
command:
    movzx eax, al
    shl eax, 16
    mov ax, 0x8027
    mov [TABLE], eax
    mov eax, ebp
    shl eax, 3
    mov ecx, eax
    and eax, 0xFFFFFF
    or eax, 0x40 << 24
    mov [TABLE + 4], eax
    shr ecx, 24
    mov [TABLE + 8], ecx
    mov dword [TABLE + 12], 8
    mov dword [TABLE + 16], 0
    mov dword [TABLE + 0x80], RECORD
    mov dword [TABLE + 0x84], 0
    mov dword [TABLE + 0x88], 0
    mov dword [TABLE + 0x8C], 4095
    mov [LIST], ebx
    mov dword [LIST + 4], 0
    mov dword [LIST + 8], TABLE
    mov dword [LIST + 12], 0
    set 0x138, 1
.again:
    mov eax, 0x110
    call get
    test eax, 0x79 << 24        ; an error
    jnz failed
    mov eax, 0x138
    call get
    test al, 1
    jnz .again
    mov eax, 0x120
    call get
    test al, 0x21
    jnz failed
    ret
get:                            ; register EAX
    mov dx, PORTS + 0x10
    out dx, eax
    mov dx, PORTS + 0x14
    in eax, dx
    ret
%else
set_up:                         ; the IDE function answers, and its channels are decoded
    mov eax, 0x80000904
    mov ebx, 5
    call configure
    mov eax, 0x80000940
    mov ebx, 0x80008000
    jmp configure

; The first dword of record EBP.
read_record:
    mov ebx, ebp
    mov al, 0x20
    call command
    call wait_data
    mov dx, 0x1F0
    in eax, dx
    push eax
    mov cx, 1023
.drop:
    call wait_data
    mov dx, 0x1F0
    in eax, dx
    loop .drop
    call wait_idle
    pop eax
    ret
write_record:
    mov ebx, ebp
    mov al, 0x30
    call command
    mov cx, 1024
.dword:
    call wait_data
    mov dx, 0x1F0
    mov eax, ebp
    out dx, eax
    loop .dword
    jmp wait_idle
flush:
    mov al, 0xE7
    mov dx, 0x1F7
    out dx, al
    jmp wait_idle

; Command AL for the eight sectors of record EBX.
command:
    mov cl, al
    shl ebx, 3
    mov dx, 0x1F2
    mov al, 8
    out dx, al
    inc dx
    mov al, bl
    out dx, al
    inc dx
    mov al, bh
    out dx, al
    inc dx
    shr ebx, 16
    mov al, bl
    out dx, al
    inc dx
    mov al, bh
    and al, 15
    or al, 0xE0
    out dx, al
    inc dx
    mov al, cl
    out dx, al
    ret

wait_data:
    mov dx, 0x1F7
.again:
    in al, dx
    test al, 0x80
    jnz .again
    test al, 0x21
    jnz failed
    test al, 8
    jz .again
    ret

wait_idle:
    mov dx, 0x1F7
.again:
    in al, dx
    test al, 0x80
    jnz .again
    test al, 0x21
    jnz failed
    ret
%endif

failed:
    mov si, .text
.next:
    cs lodsb
    test al, al
    jz .over
    call send
    jmp .next
.over:
    mov al, 1
    out 0xF4, al
    hlt
.text: db "ERROR", 10, 0

send:
    mov dx, 0x3F8
    out dx, al
    ret

    times size - 16 - ($ - $$) db 0xFF
    jmp 0xF000:start
    times size - ($ - $$) db 0xFF
