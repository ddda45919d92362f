; The system BIOS of the PC: 64 KiB that end at 1 MiB and at 4 GiB. It brings the board up (power-on self-test, `post.inc`),
; answers the software interrupts that boot loaders and real-mode systems call, and starts a system from floppy, CD or disk.
; INT 10h is the display adapter's own ROM (`vgabios/`).
;
; Facts: the interrupt list of Ralf Brown; El Torito 1.0; Enhanced Disk Drive 1.1 and 3.0; PCI BIOS 2.1; the chips' data sheets.
; A service enters through `enter`: the caller's registers are a frame on its stack (`FRAME`), DS is the BIOS data area, FS
; the extended one. The ROM is copied to RAM, which stays writable: tables that are filled in lie in it (`tables.inc`).
;
; Leaves out: APM, plug and play, PCMCIA, the cassette and every BASIC.

%include "asm/ports.inc"

cpu 686
bits 16
org 0

BIOS_SEGMENT    equ 0xF000
BDA             equ 0x40                ; the segment of the BIOS data area
EBDA            equ 0x9F00              ; the segment of the extended one, as the power-on self-test places it
SCRATCH         equ 0x2000              ; a segment that the power-on self-test uses as it likes

%include "bios/data.inc"
%include "bios/frame.inc"

%include "bios/post.inc"
%include "bios/chips.inc"
%include "bios/memory.inc"
%include "bios/pci.inc"
%include "bios/fwcfg.inc"
%include "bios/tables.inc"
%include "bios/screen.inc"
%include "bios/keyboard.inc"
%include "bios/keys.inc"
%include "bios/mouse.inc"
%include "bios/time.inc"
%include "bios/system.inc"
%include "bios/serial.inc"
%include "bios/ata.inc"
%include "bios/ahci.inc"
%include "bios/disk.inc"
%include "bios/edd.inc"
%include "bios/cdrom.inc"
%include "bios/floppy.inc"
%include "bios/boot.inc"
%include "bios/kernel.inc"

; ---- what is looked for at fixed addresses

%macro fixed 1
    %if ($ - $$) > %1
        %error the code has grown over a fixed address
    %endif
    times %1 - ($ - $$) db 0
%endmacro

    fixed 0xEFC7
floppy_parameters:                      ; INT 1Eh: step rate and head unload, head load, motor off after 37 ticks, 512 bytes,
    db 0xAF, 0x02, 37, 2, 18, 0x1B, 0xFF, 0x6C, 0xF6, 15, 8     ; 18 sectors, gaps, fill byte, settle time, motor start

    fixed 0xFA6E                           ; the lower half of an 8x8 font, which graphics programs look for here
    incbin "fonts/8x8.bin", 0, 1024

    fixed 0xFFF0
    jmp     BIOS_SEGMENT:reset
    db      "01/01/26"                  ; the date; then the model byte: an AT
    db      0, 0xFC, 0
