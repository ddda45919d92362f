; The display's test guest: a ROM of 64 KiB that walks through the VGA's modes, planes, write modes, fonts, palettes, split
; screens, and the modes of the VBE extension. After each picture it tells its number to ports 80h and F4h (the exit device)
; and waits for a key. The last picture follows the mouse: a press of Escape there ends it with number 0.
;
; It needs nothing but the reset vector; everything is programmed through the registers. Pictures hold nothing that blinks.

%include "asm/ports.inc"

VBE_INDEX   equ 0x1CE
VBE_DATA    equ 0x1CF
STACK_TOP   equ 0x7000
; Variables below 64 KiB.
MOUSE_X     equ 0x500
MOUSE_Y     equ 0x502
PACKET      equ 0x504                   ; bytes of a packet, and how many
COUNT       equ 0x508

bits 16
org 0

%macro picture 1
    mov     al, %1
    call    shown
%endmacro
%macro mode 1
    mov     si, mode_%1
    call    set_mode
%endmacro
%macro indexed 3                        ; port, index, value
    mov     dx, %1
    mov     ax, (%3) << 8 | (%2)
    out     dx, ax
%endmacro
%macro attribute 2                      ; index, value
    mov     ax, (%2) << 8 | (%1)
    call    set_attribute
%endmacro
%macro vbe 2                            ; register, value
    mov     dx, VBE_INDEX
    mov     ax, %1
    out     dx, ax
    inc     dx
    mov     ax, %2
    out     dx, ax
%endmacro

SEQ equ 0x3C4
GC  equ 0x3CE
CRTC equ 0x3D4

start:
    cli
    cld
    xor     ax, ax
    mov     ss, ax
    mov     sp, STACK_TOP
    mov     ax, cs
    mov     ds, ax
    call    keyboard_start

%include "vga/text.inc"
%include "vga/planar.inc"
%include "vga/packed.inc"
%include "vga/mouse.inc"

; ---- what all pictures share

shown:                                  ; the picture AL is complete
    out     0x80, al
    out     0xF4, al
wait_key:                               ; until a key goes down; gives its code in AL
    in      al, 0x64
    test    al, 1
    jz      wait_key
    mov     ah, al
    in      al, 0x60
    test    ah, 0x20
    jnz     wait_key
    test    al, 0x80
    jnz     wait_key
    ret

keyboard_start:                         ; translation on, keyboard and mouse enabled, no interrupts
    mov     al, 0x60
    call    command
    mov     al, 0x44
    call    data
    mov     al, 0xA8
command:
    call    ready
    out     0x64, al
    ret
data:
    call    ready
    out     0x60, al
    ret
ready:
    push    ax
.wait:
    in      al, 0x64
    test    al, 2
    jnz     .wait
    pop     ax
    ret

set_attribute:                          ; the attribute controller's register AL becomes AH; the picture is shown
    mov     dx, 0x3DA
    push    ax
    in      al, dx
    pop     ax
    mov     dx, 0x3C0
    out     dx, al
    mov     al, ah
    out     dx, al
    mov     al, 0x20
    out     dx, al
    ret

set_mode:                               ; the 61 registers at SI: misc, 5 sequencer, 25 CRTC, 9 graphics, 21 attribute
    lodsb
    mov     dx, 0x3C2
    out     dx, al
    mov     dx, SEQ
    mov     cx, 5
    call    .file
    indexed CRTC, 0x11, 0x00
    mov     cx, 25
    call    .file
    mov     dx, GC
    mov     cx, 9
    call    .file
    mov     dx, 0x3DA
    in      al, dx
    mov     dx, 0x3C0
    xor     ah, ah
.attributes:
    mov     al, ah
    out     dx, al
    lodsb
    out     dx, al
    inc     ah
    cmp     ah, 21
    jb      .attributes
    mov     al, 0x20
    out     dx, al
    mov     dx, 0x3C6
    mov     al, 0xFF
    out     dx, al
    jmp     ega_palette
.file:
    xor     ah, ah
.next:
    mov     al, ah
    out     dx, al
    inc     dx
    lodsb
    out     dx, al
    dec     dx
    inc     ah
    loop    .next
    ret

ega_palette:                            ; DAC colours 0–63: two bits of each part, as rgbRGB
    mov     dx, 0x3C8
    xor     al, al
    out     dx, al
    inc     dx
    xor     bl, bl
.next:
    mov     cl, 2
.part:
    mov     bh, bl
    shr     bh, cl
    xor     al, al
    test    bh, 1
    jz      .low
    mov     al, 0x2A
.low:
    test    bh, 8
    jz      .out
    add     al, 0x15
.out:
    out     dx, al
    dec     cl
    jns     .part
    inc     bl
    cmp     bl, 64
    jb      .next
    ret

clear_planes:                           ; all planes, all addresses; the mode has them at A0000h
    mov     ax, 0xA000
    mov     es, ax
    indexed SEQ, 2, 0x0F
    indexed GC, 8, 0xFF
    xor     di, di
    xor     ax, ax
    mov     cx, 0x8000
    rep     stosw
    ret

mode_text:   db 0x67, 3,0,3,0,2
    db 0x5F,0x4F,0x50,0x82,0x55,0x81,0xBF,0x1F,0,0x4F,0x2D,0x0E,0,0,0,0,0x9C,0x8E,0x8F,0x28,0x1F,0x96,0xB9,0xA3,0xFF
    db 0,0,0,0,0,0x10,0x0E,0,0xFF
    db 0,1,2,3,4,5,0x14,7,0x38,0x39,0x3A,0x3B,0x3C,0x3D,0x3E,0x3F, 0x0C,0,0x0F,8,0
mode_text40: db 0x67, 3,8,3,0,2
    db 0x2D,0x27,0x28,0x90,0x2B,0xA0,0xBF,0x1F,0,0x4F,0x2D,0x0E,0,0,0,0,0x9C,0x8E,0x8F,0x14,0x1F,0x96,0xB9,0xA3,0xFF
    db 0,0,0,0,0,0x10,0x0E,0,0xFF
    db 0,1,2,3,4,5,0x14,7,0x38,0x39,0x3A,0x3B,0x3C,0x3D,0x3E,0x3F, 0x0C,0,0x0F,8,0
mode_cga4:   db 0x63, 3,9,3,0,2
    db 0x2D,0x27,0x28,0x90,0x2B,0x80,0xBF,0x1F,0,0xC1,0,0,0,0,0,0,0x9C,0x8E,0x8F,0x14,0,0x96,0xB9,0xA2,0xFF
    db 0,0,0,0,0,0x30,0x0F,0,0xFF
    db 0,0x13,0x15,0x17,2,4,6,7,0x10,0x11,0x12,0x13,0x14,0x15,0x16,0x17, 1,0,3,0,0
mode_cga2:   db 0x63, 3,1,1,0,6
    db 0x5F,0x4F,0x50,0x82,0x54,0x80,0xBF,0x1F,0,0xC1,0,0,0,0,0,0,0x9C,0x8E,0x8F,0x28,0,0x96,0xB9,0xC2,0xFF
    db 0,0,0,0,0,0,0x0D,0,0xFF
    db 0,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17,0x17, 1,0,1,0,0
mode_ega:    db 0x63, 3,9,0x0F,0,6
    db 0x2D,0x27,0x28,0x90,0x2B,0x80,0xBF,0x1F,0,0xC0,0,0,0,0,0,0,0x9C,0x8E,0x8F,0x14,0,0x96,0xB9,0xE3,0xFF
    db 0,0,0,0,0,0,5,0x0F,0xFF
    db 0,1,2,3,4,5,6,7,0x10,0x11,0x12,0x13,0x14,0x15,0x16,0x17, 1,0,0x0F,0,0
mode_vga16:  db 0xE3, 3,1,0x0F,0,6
    db 0x5F,0x4F,0x50,0x82,0x54,0x80,0x0B,0x3E,0,0x40,0,0,0,0,0,0,0xEA,0x8C,0xDF,0x28,0,0xE7,0x04,0xE3,0xFF
    db 0,0,0,0,0,0,5,0x0F,0xFF
    db 0,1,2,3,4,5,0x14,7,0x38,0x39,0x3A,0x3B,0x3C,0x3D,0x3E,0x3F, 1,0,0x0F,0,0
mode_13h:    db 0x63, 3,1,0x0F,0,0x0E
    db 0x5F,0x4F,0x50,0x82,0x54,0x80,0xBF,0x1F,0,0x41,0,0,0,0,0,0,0x9C,0x8E,0x8F,0x28,0x40,0x96,0xB9,0xA3,0xFF
    db 0,0,0,0,0,0x40,5,0x0F,0xFF
    db 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15, 0x41,0,0x0F,0,0
mode_x:      db 0xE3, 3,1,0x0F,0,6
    db 0x5F,0x4F,0x50,0x82,0x54,0x80,0x0D,0x3E,0,0x41,0,0,0,0,0,0,0xEA,0xAC,0xDF,0x28,0,0xE7,0x06,0xE3,0xFF
    db 0,0,0,0,0,0x40,5,0x0F,0xFF
    db 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15, 0x41,0,0x0F,0,0

font:
    incbin "fonts/8x16.bin"

    times 0xFFF0 - ($ - $$) db 0xFF
    jmp     0xF000:start
    times 0x10000 - ($ - $$) db 0xFF
