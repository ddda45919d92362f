; A disk that checks the BIOS that starts it: a boot sector and what it loads call each service and look at the answers. The
; number of a check goes to port 80h, its name to port E9h; the exit device gets 0, or the number of the check that failed.
; It holds for our own BIOS and for SeaBIOS. The disk is a copy of this image with zeros behind it, 1 MiB in all.
;
; Leaves out: what needs a floppy, a CD or a person (test-suites/guests/firmware.sh).

%include "asm/ports.inc"

cpu 686
bits 16
org 0x7C00

SECTORS         equ 24                  ; of this image
SPARE           equ 1000                ; a sector that may be written
BUFFER          equ 0x1000              ; a segment

start:
    xor     ax, ax
    mov     ds, ax
    mov     es, ax
    mov     ss, ax
    mov     sp, 0x7C00
    cld
    sti
    mov     [drive], dl
    mov     ax, 0x0200 + SECTORS - 1
    mov     cx, 2
    mov     dh, 0
    mov     bx, 0x7E00
    int     0x13
    mov     al, 1
    jc      .failed
    jmp     checks
.failed:
    out     EXIT, al
    hlt
drive:  db 0
number: db 0
    times 510 - ($ - $$) db 0
    dw      0xAA55

; Begins a check: its number and name. `expect CONDITION` fails it where the condition does not hold.
%macro check 1
    call    begin
    db      %1, 10, 0
%endmacro
%macro expect 1
    j%+1    %%good
    jmp     failed
%%good:
%endmacro

begin:
    inc     byte [cs:number]
    mov     al, [cs:number]
    out     POST, al
    pop     si
    call    say
    xor     ax, ax
    mov     ds, ax
    mov     es, ax
    jmp     si
say:                                    ; the text at CS:SI, which ends with 0; SI = what follows it
    cs lodsb
    test    al, al
    jz      .end
    out     CONSOLE, al
    jmp     say
.end:
    ret
failed:
    mov     si, .text
    call    say
    mov     al, [cs:number]
    out     EXIT, al
    hlt
    jmp     failed
.text:  db "failed", 10, 0

checks:
%include "bios/check/memory.inc"
%include "bios/check/time.inc"
%include "bios/check/pci.inc"
%include "bios/check/disk.inc"
%include "bios/check/keyboard.inc"
%include "bios/check/mouse.inc"
%include "bios/check/video.inc"
%include "bios/check/tables.inc"
    mov     al, 0
    out     EXIT, al
    hlt

    times SECTORS * 512 - ($ - $$) db 0
