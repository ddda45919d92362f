; flushlog: a firmware image that writes records to the first IDE disk, flushes each, and then names it on COM1.
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
    ; The IDE function answers, and its channels are decoded.
    mov eax, 0x80000904
    mov ebx, 5
    call configure
    mov eax, 0x80000940
    mov ebx, 0x80008000
    call configure
    mov ebp, 1
.find:                          ; the first record that is not there
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
    cmp eax, ebp
    jne .record
    inc ebp
    jmp .find

.record:
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
    call wait_idle
    mov al, 0xE7
    mov dx, 0x1F7
    out dx, al
    call wait_idle
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
