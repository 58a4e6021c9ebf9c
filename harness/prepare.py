"""Everything of a case up to QEMU: kernel file, boot image, and what its guest has to prove.

What is refused is refused in here: a boot that never comes to bootproof.harness.prove imports
nothing that runs a guest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.harness import command_line
from bootproof.harness.arch.arch import Arch
from bootproof.harness.arch.profiles import DEFAULT_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.expected import CodeAnywhere, CodeAt, Expected, ExpectedHandover
from bootproof.harness.guest.nonce import nonce_for
from bootproof.harness.host import rundir
from bootproof.harness.inputs import images, kernel_check
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.talker import Talker
from bootproof.harness.start import Start, Unpacked
from bootproof.harness.terms import Budget, Observer
from bootproof.kernels import scratch
from bootproof.kernels.content import Content
from bootproof.loader import assemble, initramfs
from bootproof.loader.address import Range, align_up, common
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.assemble import Assembled, Assembly, Lent
from bootproof.loader.copying import Copy
from bootproof.loader.errors import LoaderError
from bootproof.loader.protocols import BootRequest
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.result import KernelLoaderResult

if TYPE_CHECKING:
    from bootproof.harness.inputs.symbols import Symbols

_KASLR_LOWEST: Final = 512 << 20  # arch/x86/boot/compressed/kaslr.c: choose_random_location


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that a case is made of, as they were when they were read."""

    kernel: KernelFile
    # What the guest gets: our archive where it has to prove itself, the user's, those of his tests.
    initrd: bytes | None
    # Whether the user's has an /init.
    has_init: bool
    # The user's device tree.
    dtb: bytes | None


Lend: TypeAlias = Callable[[Content, Path, Range, Sequence[Copy]], Lent | None]
"""Puts a kernel's part of RAM into a run directory, if it can: see `assemble.Lender`."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a case is booted; nothing of it changes what the case is."""

    # What the guest may use, where the case does not say it.
    budget: Budget = Budget()
    # Who talks to the guest; then it runs in real time, and after its proof a shell.
    talker: Talker | None = None
    # Gets the guest's output as it comes.
    on_console: Callable[[bytes], None] | None = None
    # Is told what the guest has used so far.
    observer: Observer | None = None
    # The paths of the QEMUs that cases name, by those names.
    qemus: Mapping[str, str] = field(default_factory=dict)
    # What was read of the case's files, where that was elsewhere.
    inputs: Inputs | None = None
    # Gives a run directory what it has in common with others: see bootproof.harness.record.sharing.
    lend: Lend | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be run; its boot image is in the run directory."""

    start: Start
    # What the loader says of the kernel, where it has loaded one.
    kernel: KernelLoaderResult | None


_NO_OPTIONS: Final = Options()


def prepare(case: Case, directory: Path, options: Options = _NO_OPTIONS) -> Prepared:
    """Everything up to QEMU: the run directory with its boot image, and the expectation.

    Raises LoaderError for a request that is refused, UserError and FetchError as `prove`.
    """
    of = _of_kernel if case.boot_image is None else _of_given_image
    prepared = of(case, directory, options)
    start = replace(
        prepared.start,
        budget=_budget(case, options),
        on_console=options.on_console,
        observer=options.observer,
        talker=options.talker,
        probe=case.probe,
    )
    return replace(prepared, start=start)


def _of_kernel(case: Case, directory: Path, options: Options) -> Prepared:
    scratch.sweep_once()
    rundir.make_fresh(directory, case.files)  # first: of a refusal no earlier run may seem to tell
    inputs, machine, nonce, cmdline = asked(case, options)
    kernel = inputs.kernel
    with rundir.no_image_left(directory):
        assembly = _assembly(case, machine, inputs, cmdline)
        lend = options.lend if case.damage is None else None
        assembled = _assembled(case, kernel, assembly, directory, lend)
        if case.damage is not None:
            from bootproof.harness.inputs import damage

            damaged = damage.inflict(case.damage, assembled.image, directory)
            assembled = replace(assembled, image=damaged)
        unpacked = None if case.no_proof else _unpacked(case, kernel, assembled.kernel)
    start = Start(
        image=assembled.image,
        machine=machine,
        expected=_expected(case, inputs, machine, assembled, nonce, cmdline),
        placement=case.placement,
        kill_at=None if case.kill_at is None else case.kill_at.encode(),
        unpacked=unpacked,
        symbols=functools.partial(_symbols, case, kernel),
        lacks=functools.partial(_lacks, case, kernel),
        unstartable=functools.partial(_unstartable, inputs, cmdline, case.arch),
        nonzero={lent.backing.file: lent.nonzero} if (lent := assembled.lent) else {},
    )
    return Prepared(start, assembled.kernel)


def asked(case: Case, options: Options = _NO_OPTIONS) -> tuple[Inputs, Machine, str, str]:
    """All that a case asks for before its kernel is loaded: files, machine, nonce, command line.

    Writes nothing. Raises UserError and FetchError as `prove`.
    """
    inputs = options.inputs or inputs_of(case, options.talker)
    machine = machine_for(case, inputs.kernel, options)
    if inputs.dtb is not None and not (case.no_proof or case.unsafe):
        from bootproof.harness.qemu import tables  # few have one

        tables.check_tree(case.dtb or "", machine, inputs.dtb)
    nonce = nonce_for(case.id, inputs.kernel.sha256)
    return inputs, machine, nonce, _cmdline(case, nonce, options, has_init=inputs.has_init)


def _of_given_image(case: Case, directory: Path, options: Options) -> Prepared:
    """The image is only read."""
    from bootproof.harness import given_image  # few boots are of those

    source = Path(case.boot_image or "")
    rundir.make_fresh(directory, case.files)
    with given_image.opened(source) as given, rundir.no_image_left(directory):
        placed = given_image.on_its_board(case, given)
        machine = _machine(placed, options, given.page_size, lambda: given.release)
        given_image.check_cpus(case, given, machine)
        start = Start(
            image=given.image,
            machine=machine,
            expected=given_image.expected(case, given, machine),
            placement=given.placement(machine),
            check_text=not given.told.unpacks,
            marker=None if case.until is None else os.fsencode(case.until),
            stop_at_entry=case.only_handover,
            home=source,
            findings=given.findings(case),
        )
        given.keep(directory)
    return Prepared(start, None)


def inputs_of(case: Case, talker: Talker | None = None) -> Inputs:
    """Reads all that a case is made of. Raises UserError and FetchError."""
    return Inputs(
        kernel=images.kernel_file(case.kernel_source),
        initrd=_initrd_of(case, talker),
        has_init=case.initrd is not None and images.has_init(Path(case.initrd)),
        dtb=None if case.dtb is None else _users_device_tree(case.arch, Path(case.dtb)),
    )


def _users_device_tree(arch: str, path: Path) -> bytes:
    if not ARCHES[arch].device_tree:
        raise UserError(f"--dtb: kernels of {arch} are given no device tree")
    return images.read_dtb(path)


def _assembled(
    case: Case, kernel: KernelFile, assembly: Assembly, directory: Path, lend: Lend | None = None
) -> Assembled:
    file = _in_format(kernel, case)
    lender = None if lend is None else functools.partial(lend, file.content, directory)
    with file.open() as source:
        return assemble.assemble(source, assembly, directory, lender)


def machine_for(case: Case, kernel: KernelFile, options: Options) -> Machine:
    """The machine of a case, in real time where it was asked for or nothing else works."""
    return _machine(
        *(case, options, _page_size(case, kernel)),
        lambda: next(iter(images.releases(kernel, case.format)), None),
    )


def _machine(
    case: Case, options: Options, page_size: str | None, release: Callable[[], str | None]
) -> Machine:
    machine = Machine.with_defaults(
        case.arch,
        memory=case.memory,
        board=case.board,
        cpu=case.cpu,
        cpus=case.smp,
        binary=_binary(case.qemu, options.qemus),
        page_size=page_size,
    )
    if options.talker is not None:
        return replace(machine, realtime=options.talker.about)
    if case.realtime:
        return replace(machine, realtime="asked for")
    return machine.for_kernel(release)


def _page_size(case: Case, kernel: KernelFile) -> str | None:
    """The kernel's page size, where the CPU model depends on it."""
    depends = ARCHES[case.arch].page_cpus
    return images.page_size(_in_format(kernel, case)) if depends else None


def _binary(name: str | None, qemus: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    if name not in qemus:
        raise UserError(f"no QEMU is called {name!r}; name one with --qemu {name}=PATH")
    return qemus[name]


def _cmdline(case: Case, nonce: str, options: Options, *, has_init: bool) -> str:
    """All of the guest's command line. Raises UserError."""
    base = _base_cmdline(case)
    if case.no_proof:
        return base
    shell = options.talker.shell if options.talker else None
    following = command_line.next_init(base, has_init=has_init, shell=shell)
    if not case.runs_tests:
        return command_line.complete(base, nonce, following)
    then = following if case.test is None else None
    return command_line.complete(base, nonce, command_line.TESTS, then)


def _base_cmdline(case: Case) -> str:
    """The case's own command line, else its profile's, and what is added to it.

    Raises UserError for both at once, and for one that cannot be right.
    """
    if case.cmdline is not None and case.profile != DEFAULT_PROFILE:
        raise UserError(
            f"the profile {case.profile!r} is a command line of ours, and you gave your own:"
            " leave out one of them (--profile, --cmdline)"
        )
    ours = ARCHES[case.arch].command_line(case.profile, case.board)
    line = command_line.appended(ours if case.cmdline is None else case.cmdline, case.append)
    problem = command_line.problem(line, initrd=case.initrd is not None)
    if problem is not None:
        raise UserError(f"the command line {problem}")
    return line


def _symbols(case: Case, file: KernelFile) -> Symbols | None:
    """The names of what a case's kernel is once it runs."""
    try:
        return images.symbols_of(images.running(file, case.format))
    except (LoaderError, UserError, OSError):  # no names are no failure
        return None


def _lacks(case: Case, file: KernelFile) -> tuple[str, ...]:
    """What the kernel of a case needs for a proof and was built without."""
    try:
        return kernel_check.lacking(images.running(file, case.format), case.arch, case.board)
    except (LoaderError, UserError, OSError):  # nothing is known
        return ()


def _unstartable(inputs: Inputs, cmdline: str, arch: str) -> str:
    """Why what the user has running after the proof cannot be started; "" when nothing is known."""
    program = command_line.users_program(cmdline)
    if program in (None, command_line.TESTS) or inputs.initrd is None:
        return ""
    from bootproof.loader import cpio, programs  # few boots have a program of the user's

    items = cpio.items(inputs.initrd, "")
    return programs.why_not(items, os.fsencode(program), ARCHITECTURES[arch].programs)


def _unpacked(case: Case, file: KernelFile, kernel: KernelLoaderResult) -> Unpacked | None:
    """What a bzImage unpacks to; None for kernels that lie in RAM as they are."""
    if kernel.setup_header is None:
        return None
    return Unpacked(images.in_format(file, "elf").content, kernel.setup_header.pref_address)


def _in_format(kernel: KernelFile, case: Case) -> KernelFile:
    image = kernel if case.format == "file" else images.in_format(kernel, case.format)
    return images.variant(image, case.variant) if case.variant else image


def _assembly(case: Case, machine: Machine, inputs: Inputs, cmdline: str) -> Assembly:
    own, reserved = inputs.dtb, machine.reserved
    if own is not None:
        from bootproof.loader.protocols import by_tree

        reserved += by_tree.withheld(own)
    request = BootRequest(
        cmdline=cmdline.encode(),
        initrd=inputs.initrd,
        dtb=device_tree(machine) if own is None else own,
        reserved=reserved,
        firmware=machine.firmware,
        hypervisor=machine.hypervisor,
        label=case.id,
        cpus=machine.cpus,
        unsafe=case.unsafe,
    )
    provenance = {
        "case": case.id,
        "kernel": inputs.kernel.name,
        "kernel_sha256": inputs.kernel.sha256,
        "format": case.format,
        "kernel_offset": "none" if case.offset is None else hex(case.offset),
        "cmdline": cmdline,
    }
    ram = assemble.Machine(case.arch, case.memory, machine.most_memory, machine.banks_with)
    virtual = None
    if case.moved_virtually:
        from bootproof.loader.protocols.virtual_kaslr import VirtualMove

        virtual = VirtualMove(case.virtual_offset, case.kaslr_seed)
    return Assembly(
        *(ram, request, case.protocol, case.offset, case.pvh_relocate),
        virtual=virtual,
        provenance=provenance,
    )


@functools.cache
def evidence_archive(
    arch: str, board: str | None = None, init: str = "init", *, virtual: bool = False
) -> bytes:
    port = ARCHES[arch].on(board).serial
    serial = port.device or port.name
    entries = initramfs.evidence_entries(images.busybox(arch), serial, init, virtual=virtual)
    return initramfs.archive(entries)


def _initrd_of(case: Case, talker: Talker | None) -> bytes | None:
    """Our archive, then the user's own and those of his tests, where there are any.

    A kernel that cannot unpack the user's has ours by then, and says so behind it. Who talks to the
    guest through a program gets a shell for that. Raises UserError.
    """
    own = [] if case.initrd is None else [images.read_initrd(Path(case.initrd))]
    if case.no_proof:
        return own[0] if own else None
    parts = [evidence_archive(case.arch, case.board, case.init, virtual=case.moved_virtually)]
    if talker is not None and talker.shell == command_line.DIALOGUE:
        parts.append(initramfs.archive(initramfs.dialogue_entries()))
    parts += own
    if case.runs_tests or case.overlay is not None:
        from bootproof.harness.inputs import modules, overlay

        loaded = modules.read(case.modules) if case.modules is not None else []
        files = {module.name: module.data for module in loaded}
        tests = [*(module.command for module in loaded), *_lines(case.test)]
        parts.append(overlay.archive(_lines(case.overlay), tests, files))
    return b"".join(parts)


def _lines(text: str | None) -> list[str]:
    return [line for line in (text or "").split("\n") if line.strip()]


def _budget(case: Case, options: Options) -> Budget:
    budget = options.budget.with_limits(case.budget, case.budget_seconds)
    if not case.runs_tests:
        return budget
    return replace(  # what comes after the proof is no longer only an end
        budget,
        proven_instructions=budget.quiet_instructions,
        proven_cpu_seconds=budget.quiet_cpu_seconds,
    )


def _expected(
    case: Case,
    inputs: Inputs,
    machine: Machine,
    assembled: Assembled,
    nonce: str,
    cmdline: str,
) -> Expected | ExpectedHandover:
    if case.no_proof:
        return ExpectedHandover(assembled.image.entry, serial=machine.serial.name)
    banks, acpi = assembled.image.ram, assembled.image.region("acpi")
    ram, keeps = machine.arch.system_ram(banks, acpi), dict[str, Any]()
    if inputs.dtb is not None:
        ram, keeps = _told(inputs.dtb, ram, _page_size(case, inputs.kernel))
    return Expected(
        arch=case.arch,
        nonce=nonce,
        cmdline=cmdline,
        cpus=machine.cpus,
        ram=ram,
        **keeps,
        banks=banks,
        code=expected_code(assembled.kernel, machine.arch, cmdline, banks),
        bootloader_type=PROTOCOLS[assembled.protocol].bootloader_type,
        releases=images.releases(inputs.kernel, case.format),
        request=case.id if machine.arch.device_tree else None,
        serial=machine.serial.name,
        mode=assembled.image.cpus[0].mode,
        mode_log=machine.arch.mode_log,
        virtual_start=assembled.kernel.virtual_start,
    )


def _told(
    dtb: bytes, ram: tuple[Range, ...], page_size: str | None
) -> tuple[tuple[Range, ...], dict[str, Any]]:
    """What of the machine's `ram` the user's device tree tells the kernel of, and the fields of
    what it keeps from itself.
    """
    from bootproof.loader import imageheader
    from bootproof.loader.device_tree import DeviceTree
    from bootproof.loader.protocols import by_tree

    tree, page = DeviceTree.parse(dtb), imageheader.page_bytes(page_size)
    told = common(ram, by_tree.system_ram(tree, page))
    twice = by_tree.reserved_twice(tree, page)
    return tuple(told), {"unplaced": by_tree.unplaced(tree, page), "reserved_twice": twice}


def expected_code(
    kernel: KernelLoaderResult, arch: Arch, cmdline: str, ram: tuple[Range, ...]
) -> CodeAt | CodeAnywhere:
    """Where /proc/iomem must show the kernel's code, in guest-physical addresses.

    vmlinux: the start of its first segment. bzImage: where the decompressor puts it (boot.rst:
    pref_address, kernel_alignment), or with KASLR anywhere legal; one that is not relocatable moves
    itself to pref_address from everywhere. Image: the load address.
    """
    header = kernel.setup_header
    if arch.code_starts:
        return CodeAt(tuple(kernel.kernel_load + start for start in arch.code_starts))
    if header is None:
        return CodeAt((kernel.footprint.start,))
    if header.pref_address and not header.relocatable_kernel:
        return CodeAt((header.pref_address,))
    start = max(align_up(kernel.kernel_load, header.kernel_alignment), header.pref_address)
    if "nokaslr" in cmdline.split():
        return CodeAt((start,))
    window = Range.between(min(start, _KASLR_LOWEST), max(bank.end for bank in ram))
    return CodeAnywhere(header.kernel_alignment, window)
