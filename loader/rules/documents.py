"""The documents that the rules come from, as findings name them. Knows nothing else."""

from __future__ import annotations

from typing import Final

BOOT: Final = "Documentation/arch/x86/boot.rst"
HEADER: Final = f"{BOOT}, The Real-Mode Kernel Header"
LOADING: Final = f"{BOOT}, Loading The Rest of The Kernel"
REAL_MODE: Final = "Linux, arch/x86/realmode/init.c (reserve_real_mode)"
COMMAND_LINE: Final = f"{BOOT}, The Kernel Command Line"
LINUX32: Final = f"{BOOT}, 32-bit Boot Protocol"
LINUX64: Final = f"{BOOT}, 64-bit Boot Protocol"
ZERO_PAGE: Final = "Documentation/arch/x86/zero-page.rst"
PVH: Final = "Xen, docs/misc/pvh.pandoc"
START_INFO: Final = "Xen, public/arch-x86/hvm/start_info.h"
ARM64: Final = "Documentation/arch/arm64/booting.rst"
RISCV: Final = "Documentation/arch/riscv/boot.rst"
RISCV_CPUS: Final = "Documentation/devicetree/bindings/riscv/cpus.yaml"
SBI_HART_STATE: Final = "RISC-V SBI Specification v2.0, section 9.1"
CHOSEN: Final = "Devicetree Specification v0.4, section 3.6"
MEMORY_NODE: Final = "Devicetree Specification v0.4, section 3.4"
RESERVED_MEMORY: Final = "Devicetree Specification v0.4, section 3.5"
ROOT_NODE: Final = "Devicetree Specification v0.4, section 3.2"
DTB_ALIGNMENT: Final = "Devicetree Specification v0.4, section 5.6"
DTB_HEADER: Final = "Devicetree Specification v0.4, section 5.2 (boot_cpuid_phys)"
CPUS_NODE: Final = "Devicetree Specification v0.4, section 3.8"
INITRAMFS: Final = "Documentation/driver-api/early-userspace/buffer-format.rst"
BOOT_IMAGE: Final = "docs/boot-image.md"
EFLAGS: Final = "Intel SDM vol. 3A, 2.3 (System Flags and Fields in the EFLAGS Register)"
PAGING: Final = "Intel SDM vol. 3A, 4.5 and 4.6"


START_UP: Final = "Intel SDM vol. 3A, 9.4.3 (MP Initialization Protocol Algorithm)"


def acpi(section: str) -> str:
    return f"ACPI Specification 6.5, section {section}"


def mp(section: str) -> str:
    return f"Intel MultiProcessor Specification 1.4, section {section}"
