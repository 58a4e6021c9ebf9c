"""The ACPI tables that tell an x86 kernel of more than one CPU. Pure: bytes only.

The fewest that do: RSDP -> XSDT -> FADT (with FACS and DSDT) and MADT. They describe CPUs and
interrupt controllers, and no hardware that firmware would have to switch on first: the required
power-management registers are plain RAM in which nothing ever happens, and the DSDT defines no
device. A machine with one CPU needs none of this.

Source: ACPI Specification 6.5, the sections named at each table. All addresses are guest-physical.
"""

from __future__ import annotations

import struct
from typing import Final

from bootproof.loader.address import PAGE, align_up

RSDP_SIZE: Final = 36
HEADER_SIZE: Final = 36

# Where every PC has them (Intel MultiProcessor Specification 1.4, section 3.1 and 3.6.5).
LOCAL_APIC: Final = 0xFEE00000
IO_APIC: Final = 0xFEC00000

MOST_CPUS: Final = 255  # 8-bit APIC ids, of which 0xff means all (section 5.2.12.2)

_OEM_ID: Final = b"BOOTPR"
_OEM_TABLE_ID: Final = b"BOOTPROO"
_CREATOR_ID: Final = b"BTPF"
_ALIGNMENT: Final = 64  # of the FACS (section 5.2.10); the other tables ask for none

# The registers in RAM: status and enable, then control with SCI_EN set (section 4.8.3.1 and .2).
_EVENT_SIZE, _CONTROL_SIZE = 4, 2
_CONTROL_IN_ACPI_MODE: Final = 1
_SYSTEM_MEMORY: Final = 0  # of a generic address, section 5.2.3.2
_WORD_ACCESS: Final = 2

_FACS_SIZE: Final = 64
_FADT_SIZE: Final = 276
_SCI: Final = 9
_FADT_WBINVD: Final = 1 << 0
_FADT_POWER_BUTTON: Final = 1 << 4  # no fixed-hardware button
_FADT_SLEEP_BUTTON: Final = 1 << 5
_FADT_NO_FIXED_RTC: Final = 1 << 6
_LEGACY_DEVICES: Final = 1 << 0  # IAPC_BOOT_ARCH, section 5.2.9.3
_KEYBOARD_CONTROLLER: Final = 1 << 1

_PCAT_COMPAT: Final = 1  # a dual 8259 is there as well (section 5.2.12)
_ENABLED: Final = 1
_TIMER_IRQ, _TIMER_PIN = 0, 2
_LEVEL_ACTIVE_HIGH: Final = 0b1101


def size(cpus: int) -> int:
    """Bytes of guest RAM for the tables of `cpus` CPUs: whole pages, as memory maps like them."""
    return align_up(_build(0, cpus)[1], PAGE)


def tables(address: int, cpus: int) -> bytes:
    """All tables for guest-physical `address`; the RSDP is the first of them.

    The CPUs' APIC ids are 0 to `cpus` - 1, at most MOST_CPUS of them.
    """
    return _build(address, cpus)[0]


def _build(address: int, cpus: int) -> tuple[bytes, int]:
    if not 1 <= cpus <= MOST_CPUS:
        raise ValueError(f"{cpus} CPUs; the tables hold 1 to {MOST_CPUS}")
    image = bytearray(align_up(RSDP_SIZE, _ALIGNMENT))

    def add(table: bytes) -> int:
        image.extend(bytes(align_up(len(image), _ALIGNMENT) - len(image)))
        place = address + len(image)
        image.extend(table)
        return place

    facs, dsdt = add(_facs()), add(_table(b"DSDT", 2, b""))
    registers = add(struct.pack("<IH", 0, _CONTROL_IN_ACPI_MODE))
    fadt, madt = add(_fadt(facs, dsdt, registers)), add(_madt(cpus))
    xsdt = add(_table(b"XSDT", 1, struct.pack("<2Q", fadt, madt)))
    image[:RSDP_SIZE] = _rsdp(xsdt)
    return bytes(image), len(image)


def _rsdp(xsdt: int) -> bytes:
    """Section 5.2.5.3: revision 2; the first 20 bytes have a checksum of their own."""
    revision, no_rsdt = 2, 0
    first = struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM_ID, revision, no_rsdt)
    first = _summed(first, 8)
    return _summed(first + struct.pack("<IQB3x", RSDP_SIZE, xsdt, 0), 32)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Section 5.2.6: the header that every table but RSDP and FACS begins with."""
    header = struct.pack(
        "<4sIBB6s8sI4sI",
        *(signature, HEADER_SIZE + len(body), revision, 0),
        *(_OEM_ID, _OEM_TABLE_ID, 1, _CREATOR_ID, 1),
    )
    return _summed(header + body, 9)


def _facs() -> bytes:
    """Section 5.2.10: without waking vectors; it has no checksum."""
    return struct.pack("<4sI24xB31x", b"FACS", _FACS_SIZE, 2)


def _fadt(facs: int, dsdt: int, registers: int) -> bytes:
    """Section 5.2.9. Register blocks with address and length 0 are not there.

    Not "hardware-reduced": Linux would then have no clock but the TSC, which it cannot measure on
    a busy host in real time.
    """
    body = bytearray(_FADT_SIZE - HEADER_SIZE)

    def put(offset: int, layout: str, value: int) -> None:
        struct.pack_into(layout, body, offset - HEADER_SIZE, value)

    put(36, "<I", facs)
    put(40, "<I", dsdt)
    put(46, "<H", _SCI)
    put(88, "<B", _EVENT_SIZE)
    put(89, "<B", _CONTROL_SIZE)
    put(109, "<H", _LEGACY_DEVICES | _KEYBOARD_CONTROLLER)
    flags = _FADT_WBINVD | _FADT_POWER_BUTTON | _FADT_SLEEP_BUTTON | _FADT_NO_FIXED_RTC
    put(112, "<I", flags)
    put(131, "<B", 5)  # minor version
    put(140, "<Q", dsdt)
    event, control = registers, registers + _EVENT_SIZE
    for offset, place, size_ in ((148, event, _EVENT_SIZE), (172, control, _CONTROL_SIZE)):
        generic = struct.pack("<BBBBQ", _SYSTEM_MEMORY, 8 * size_, 0, _WORD_ACCESS, place)
        body[offset - HEADER_SIZE : offset - HEADER_SIZE + 12] = generic
    return _table(b"FACP", 6, bytes(body))


def _madt(cpus: int) -> bytes:
    """Section 5.2.12: a local APIC for each CPU, the I/O APIC, where its pins are not the IRQs."""
    entries = [struct.pack("<BBBBI", 0, 8, cpu, cpu, _ENABLED) for cpu in range(cpus)]
    entries.append(struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC, 0))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, _TIMER_IRQ, _TIMER_PIN, 0))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, _SCI, _SCI, _LEVEL_ACTIVE_HIGH))
    head = struct.pack("<II", LOCAL_APIC, _PCAT_COMPAT)
    return _table(b"APIC", 5, head + b"".join(entries))


def _summed(data: bytes, offset: int) -> bytes:
    """`data` with the byte at `offset` chosen so that all of it sums up to 0."""
    summed = bytearray(data)
    summed[offset] = -sum(data) & 0xFF
    return bytes(summed)
