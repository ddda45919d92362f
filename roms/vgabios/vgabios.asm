; The display adapter's ROM (1234:1111): INT 10h for the VGA's modes, and VBE 3.0 for the others. An option ROM of 32 KiB, which
; the system BIOS copies to C0000h and starts at byte 3 with AX = bus, device and function.
;
; Facts: the interrupt list of Ralf Brown; the VGA's registers by IBM's and FreeVGA's descriptions; VBE Core 3.0; Bochs, "VBE
; display interface". A service sees its caller's registers as the system BIOS does (`bios/frame.inc`).
;
; Leaves out: CGA composite colours, light pen, mode Fh, saving state (1Ch, 4F04h), the protected-mode interface (4F0Ah).

cpu 686
bits 16
org 0

BDA             equ 0x40
%include "bios/data.inc"

; more of the data area
PAGE_BYTES      equ 0x4C
PAGE_START      equ 0x4E
CURSORS         equ 0x50                ; 8 pages: column, row
CURSOR_SHAPE    equ 0x60
CRTC_PORT       equ 0x63
MODE_CONTROL    equ 0x65
CGA_PALETTE     equ 0x66
LAST_ROW        equ 0x84
CHAR_LINES      equ 0x85
EGA_FLAGS       equ 0x87
EGA_SWITCHES    equ 0x88
VGA_FLAGS       equ 0x89
DISPLAY_CODE    equ 0x8A

SEQ             equ 0x3C4
GC              equ 0x3CE
CRTC            equ 0x3D4
ROM_UNITS       equ 64

    db      0x55, 0xAA, ROM_UNITS
    jmp     start
    times 0x18 - ($ - $$) db 0
    dw      pci_data
    times 0x1C - ($ - $$) db 0
pci_data:
    db      "PCIR"
    dw      0x1234, 0x1111, 0, 0x18
    db      0, 0, 0, 3
    dw      ROM_UNITS, 1
    db      0, 0x80
    dw      0

%include "bios/frame.inc"

; Kept here: while it starts, this is RAM that can be written.
framebuffer:    dd 0                    ; the linear framebuffer's address

%macro indexed 3                        ; port, index, value
    mov     dx, %1
    mov     ax, (%3) << 8 | (%2)
    out     dx, ax
%endmacro

start:
    pushad
    push    ds
    push    es
    movzx   eax, ax                     ; the framebuffer is where window 0 is
    shl     eax, 8
    or      eax, 0x80000010
    mov     dx, 0xCF8
    out     dx, eax
    mov     dx, 0xCFC
    in      eax, dx
    and     al, 0xF0
    mov     [cs:framebuffer], eax
    xor     ax, ax
    mov     es, ax
    mov     word [es:4 * 0x10], int10
    mov     [es:4 * 0x10 + 2], cs
    mov     word [es:4 * 0x42], int10
    mov     [es:4 * 0x42 + 2], cs
    mov     ax, BDA
    mov     ds, ax
    mov     word [EGA_FLAGS], 0xF960    ; 256 KiB, colour; switches 1001
    mov     word [VGA_FLAGS], 0x0811    ; 400 lines, a VGA with a colour display
    pop     es
    pop     ds
    popad
    retf

int10:
    enter_service
    cmp     ah, 0x4F
    je      vbe
    cmp     ah, 0x1C
    jae     service_end
    dispatch .functions, 0x1C, service_end
.functions:
    dw      set_mode, cursor_shape, cursor_to, cursor_where, service_end, show_page, scroll_up, scroll_down
    dw      read_char, write_char, write_char_only, cga_palette, put_pixel, get_pixel, teletype, get_mode
    dw      palette, fonts, alternate, write_string, service_end, service_end, service_end, service_end
    dw      service_end, service_end, display_code, tell_state

%include "vgabios/mode.inc"
%include "vgabios/tables.inc"
%include "vgabios/text.inc"
%include "vgabios/pixels.inc"
%include "vgabios/palette.inc"
%include "vgabios/fonts.inc"
%include "vgabios/vbe.inc"

    times ROM_UNITS * 512 - 1 - ($ - $$) db 0
    db      SUM                         ; makes the sum of all bytes 0; `build.sh` finds it
