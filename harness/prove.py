"""A case from start to finish: kernel file, boot image, run, result.

What pytest and the command line both call; everything it does is done by other modules.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bootproof.harness import command_line, typedjson
from bootproof.harness.arch import DEFAULT_PROFILE, Arch
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.guest.evidence import nonce_for
from bootproof.harness.inputs import damage, images, kernel_check
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.inputs.symbols import Symbols
from bootproof.harness.judgement import CaseEnd, came_to, judge_case
from bootproof.harness.observation import Budget, Observation, Observer, Place, Probe
from bootproof.harness.qemu.argv import ICOUNT_SHIFT
from bootproof.harness.qemu.binary import build_of
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.session import CONSOLE
from bootproof.harness.qemu.talker import Talker
from bootproof.harness.record import interrupted, rundir
from bootproof.harness.record.rundir import DMESG, write_result
from bootproof.harness.results.key import Key
from bootproof.harness.run import Outcome, Start, Unpacked, run
from bootproof.harness.text import printable
from bootproof.harness.verdict import CodeAnywhere, CodeAt, Expected, Verdict
from bootproof.kernels import scratch
from bootproof.loader import assemble, initramfs, kconfig
from bootproof.loader.address import Range, align_up
from bootproof.loader.arch import to_json
from bootproof.loader.assemble import Assembled, Assembly
from bootproof.loader.errors import LoaderError
from bootproof.loader.protocols import BootRequest
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.protocols.virtual_kaslr import VirtualMove
from bootproof.loader.result import KernelLoaderResult

_LOG_LINES: Final = 10

_KASLR_LOWEST: Final = 512 << 20  # arch/x86/boot/compressed/kaslr.c: choose_random_location


@dataclass(frozen=True, slots=True)
class Proven:
    """How a case ended; what there is only of a boot is None when loading was refused."""

    case: Case
    verdict: Verdict
    reason: str
    # The loader's error code of a refusal.
    code: str | None
    assembled: Assembled | None
    outcome: Outcome | None
    # The run directory.
    directory: Path
    # Wall time of all of it.
    host_seconds: float
    # What must be the same of two runs whose transcripts and counts are compared.
    key: Key | None = None

    @property
    def problem(self) -> str | None:
        """What is not as the case expects, in one sentence; None when all is."""
        end = CaseEnd(self.verdict, self.reason, self.code, complaint=self._complaint)
        if self.assembled is not None:
            pvh = self.assembled.kernel.pvh_boot_cap.state
            end = replace(end, pvh=pvh, protocol=self.assembled.protocol)
        return judge_case(self.case.expect, end)

    @property
    def came_to(self) -> str:
        """What the case came to, as bootproof.harness.judgement calls it."""
        return came_to(self.verdict.value, self.problem)

    @property
    def _complaint(self) -> str | None:
        if not self.case.fail_on_complaints or self.outcome is None:
            return None
        return next(map(str, self.outcome.judgement.complaints), None)


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
    # What the guest gets as its initrd, where it is not made here.
    initrd: bytes | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A boot image, written into its run directory, and what it has to prove."""

    assembled: Assembled
    start: Start[Expected]


def prove(case: Case, directory: Path, options: Options = Options()) -> Proven:
    """Boots one case in `directory` and leaves its artifacts there, in place of an earlier run's.

    Raises UserError and FetchError for what is not the case's own doing.
    """
    began = time.monotonic()
    with _host_errors():
        try:
            prepared = prepare(case, directory, options)
        except LoaderError as error:
            if error.of_host:
                raise
            return _refused(case, error, directory, began)
        return run_prepared(case, prepared, directory, began)


@contextlib.contextmanager
def _host_errors() -> Iterator[None]:
    """What the host refuses is said of no kernel. Raises UserError."""
    try:
        yield
    except LoaderError as error:
        if not error.of_host:
            raise
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError("this process has no memory left") from error


def run_prepared(
    case: Case, prepared: Prepared, directory: Path, began: float | None = None
) -> Proven:
    """Runs what `prepare` made, judges it and writes result.json. Raises as `prove`."""
    began = time.monotonic() if began is None else began
    about = {"case": case.id}
    with interrupted.noted(directory, about):
        outcome = run(prepared.start, directory)
    judgement = outcome.judgement
    proven = Proven(
        *(case, judgement.verdict, judgement.reason, None, prepared.assembled, outcome, directory),
        time.monotonic() - began,
        _key(case, prepared.start, outcome),
    )
    write_result(directory, result_json(proven, prepared.start.machine))
    return proven


def prepare(case: Case, directory: Path, options: Options = Options()) -> Prepared:
    """Everything up to QEMU: the run directory with its boot image, and the expectation.

    Raises LoaderError for a request that is refused, UserError and FetchError as `prove`.
    """
    scratch.sweep_once()
    rundir.make_fresh(directory)  # first: of what is refused, no earlier run may seem to tell
    initrd = options.initrd or initrd_of(case, options.talker)
    kernel = images.kernel_file(case.kernel_source)
    machine = machine_for(case, kernel, options)
    nonce = nonce_for(case.id, kernel.sha256)
    cmdline = _cmdline(case, nonce, options)
    with rundir.no_image_left(directory):
        assembly = _assembly(case, machine, kernel, cmdline, initrd)
        assembled = _assembled(case, kernel, assembly, directory)
        if case.damage is not None:
            damaged = damage.inflict(case.damage, assembled.image, directory)
            assembled = replace(assembled, image=damaged)
        unpacked = _unpacked(case, kernel, assembled.kernel)
    start = Start(
        image=assembled.image,
        machine=machine,
        expected=_expected(case, kernel, machine, assembled, nonce, cmdline),
        placement=case.placement,
        budget=_budget(case, options),
        on_console=options.on_console,
        observer=options.observer,
        talker=options.talker,
        probe=case.probe,
        kill_at=None if case.kill_at is None else case.kill_at.encode(),
        unpacked=unpacked,
        symbols=functools.partial(_symbols, case, kernel),
        lacks=functools.partial(_lacks, case, kernel),
    )
    return Prepared(assembled, start)


def write_without_proof(case: Case, directory: Path, options: Options) -> tuple[Assembled, Machine]:
    """Writes a boot image of nothing but the case's own: its kernel, command line and initrd.

    For kernels that have no proof to give. Raises as `prepare`.
    """
    rundir.make_fresh(directory)
    initrd = None if case.initrd is None else images.read_initrd(Path(case.initrd))
    kernel = images.kernel_file(case.kernel_source)
    machine = machine_for(case, kernel, options)
    assembly = _assembly(case, machine, kernel, _base_cmdline(case), initrd)
    with rundir.no_image_left(directory):
        return _assembled(case, kernel, assembly, directory), machine


def _assembled(case: Case, kernel: KernelFile, assembly: Assembly, directory: Path) -> Assembled:
    with _in_format(kernel, case).open() as source:
        return assemble.assemble(source, assembly, directory)


def machine_for(case: Case, kernel: KernelFile, options: Options) -> Machine:
    """The machine of a case, in real time where it was asked for or nothing else works."""
    machine = Machine.with_defaults(
        case.arch,
        memory=case.memory,
        board=case.board,
        cpu=case.cpu,
        cpus=case.smp,
        binary=_binary(case.qemu, options.qemus),
        page_size=_page_size(case, kernel),
    )
    if options.talker is not None:
        return replace(machine, realtime=options.talker.about)
    if case.realtime:
        return replace(machine, realtime="asked for")
    return machine.for_kernel(lambda: next(iter(images.releases(kernel, case.format)), None))


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


def _cmdline(case: Case, nonce: str, options: Options) -> str:
    """All of the guest's command line. Raises UserError."""
    base = _base_cmdline(case)
    following = command_line.next_init(
        base,
        initrd=case.initrd is not None,
        shell=options.talker.shell if options.talker else None,
        tests=case.test is not None,
    )
    return command_line.complete(base, nonce, following)


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


def result_json(proven: Proven, machine: Machine | None) -> dict[str, Any]:
    """The case's result as data; the keys are stable within a version."""
    result: dict[str, Any] = {
        "case": proven.case.id,
        "verdict": proven.verdict.value,
        "reason": proven.reason,
        "problem": proven.problem,
        "code": proven.code,
        "profile": _profile(proven.case),
        "host_seconds": round(proven.host_seconds, 3),
    }
    if proven.assembled is not None:
        result["pvh"] = str(proven.assembled.kernel.pvh_boot_cap)
        result["protocol"] = proven.assembled.protocol
        result["entry"] = hex(proven.assembled.image.entry)
    if machine is not None:
        result["machine"] = machine_json(machine)
    if proven.key is not None:
        result["key"] = typedjson.to_json(proven.key)
    if proven.outcome is not None:
        result |= outcome_json(proven.outcome)
    return result


def _key(case: Case, start: Start[Expected], outcome: Outcome) -> Key:
    """What another run must have in common with this one; QEMU is asked for its build, once."""
    machine = start.machine
    return Key(
        qemu=build_of(machine.qemu.path),
        machine=machine.board,
        cpu=machine.cpu,
        memory=machine.memory,
        cpus=machine.cpus,
        icount_shift=None if machine.realtime else ICOUNT_SHIFT,
        probe=start.probe,
        console=start.talker.console if start.talker else "file",
        profile=_profile(case),
        boot_image=outcome.boot_image,
    )


def _profile(case: Case) -> str | None:
    return case.profile if case.cmdline is None else None


def machine_json(machine: Machine) -> Mapping[str, Any]:
    return {
        "arch": machine.arch.name,
        "qemu": str(machine.qemu),
        "board": machine.board,
        "cpu": machine.cpu,
        "memory": machine.memory,
        "cpus": machine.cpus,
        "deterministic": machine.deterministic,
        "realtime": machine.realtime or None,
    }


def outcome_json(outcome: Outcome) -> Mapping[str, Any]:
    seen = outcome.observation
    return {
        "end": seen.end.name.lower().replace("_", "-"),
        "exit_code": seen.exit_code,
        "instructions": outcome.costs.instructions,
        "cpu_seconds": round(outcome.costs.cpu_seconds, 3),
        "qemu_seconds": round(outcome.costs.qemu_seconds, 3),
        "not_recorded": outcome.not_recorded,
        "stages": typedjson.to_json(outcome.stages),
        "console": CONSOLE,
        "console_bytes": len(seen.transcript),
        "evidence": dict(outcome.judgement.evidence.to_json()),
        "complaints": [dict(item.to_json()) for item in outcome.judgement.complaints],
        "tests": typedjson.to_json(outcome.judgement.tests),
        "registers": seen.registers.splitlines(),
        "place": None if seen.place is None else _place_json(seen.place),
        "reset": seen.reset or None,
        "log_buffer": _log_json(seen),
        "code_in_ram": None
        if seen.text is None
        else {"words": seen.text.words, "patched": seen.text.patched},
        "probe": None if seen.probe is None else _probe_json(seen.probe),
        "qemu_stderr": seen.stderr,
    }


def _place_json(place: Place) -> Mapping[str, Any]:
    return {
        "pc": hex(place.pc),
        "symbol": place.symbol,
        "interrupts_off": place.interrupts_off,
        "instructions": list(place.instructions),
        "program_counters": [hex(pc) for pc in place.counters],
    }


def _log_json(seen: Observation) -> Mapping[str, Any] | None:
    """Where the log buffer in guest RAM is kept, and its last lines."""
    if not seen.log:
        return None
    lines = [printable(line) for line in seen.log.splitlines()]
    return {"file": DMESG, "lines": len(lines), "last": lines[-_LOG_LINES:]}


def _symbols(case: Case, file: KernelFile) -> Symbols | None:
    """The names of what a case's kernel is once it runs."""
    try:
        return images.symbols_of(images.running(file, case.format))
    except (LoaderError, UserError, OSError):  # no names are no failure
        return None


def _lacks(case: Case, file: KernelFile) -> tuple[str, ...]:
    """What the kernel of a case needs for a proof and was built without."""
    needs = kernel_check.needs(case.arch, case.board)
    try:
        with images.running(file, case.format).open() as kernel:
            return tuple(kconfig.lacking(kernel.data, needs))
    except (LoaderError, UserError, OSError):  # nothing is known
        return ()


def _unpacked(case: Case, file: KernelFile, kernel: KernelLoaderResult) -> Unpacked | None:
    """What a bzImage unpacks to; None for kernels that lie in RAM as they are."""
    if kernel.setup_header is None:
        return None
    return Unpacked(images.in_format(file, "elf").content.path, kernel.setup_header.pref_address)


def _probe_json(probe: Probe) -> Mapping[str, Any]:
    return {
        "reached": probe.reached,
        "where": probe.where,
        "registers": None if probe.registers is None else to_json(probe.registers),
        "differences": [str(difference) for difference in probe.differences],
        "more_differences": probe.more,
        "findings": [finding.as_dict() for finding in probe.findings],
    }


def _in_format(kernel: KernelFile, case: Case) -> KernelFile:
    image = kernel if case.format == "file" else images.in_format(kernel, case.format)
    return images.variant(image, case.variant) if case.variant else image


def _assembly(
    case: Case, machine: Machine, kernel: KernelFile, cmdline: str, initrd: bytes | None
) -> Assembly:
    request = BootRequest(
        cmdline=cmdline.encode(),
        initrd=initrd,
        dtb=_device_tree(case, machine),
        reserved=machine.reserved,
        firmware=machine.firmware,
        hypervisor=machine.hypervisor,
        label=case.id,
        cpus=machine.cpus,
        unsafe=case.unsafe,
    )
    provenance = {
        "case": case.id,
        "kernel": kernel.name,
        "kernel_sha256": kernel.sha256,
        "format": case.format,
        "kernel_offset": "none" if case.offset is None else hex(case.offset),
        "cmdline": cmdline,
    }
    ram = assemble.Machine(case.arch, case.memory, machine.most_memory, machine.banks_with)
    virtual = VirtualMove(case.virtual_offset, case.kaslr_seed) if case.moved_virtually else None
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


def initrd_of(case: Case, talker: Talker | None = None) -> bytes:
    """Our archive, then the user's own and those of his tests, where there are any.

    A kernel that cannot unpack the user's has ours by then, and says so behind it. Who talks to the
    guest through a program gets a shell for that. Raises UserError.
    """
    parts = [evidence_archive(case.arch, case.board, case.init, virtual=case.moved_virtually)]
    if talker is not None and talker.shell == command_line.DIALOGUE:
        parts.append(initramfs.archive(initramfs.dialogue_entries()))
    if case.initrd is not None:
        parts.append(images.read_initrd(Path(case.initrd)))
    if case.test is not None or case.overlay is not None:
        from bootproof.harness.inputs import overlay

        parts.append(overlay.archive(_lines(case.overlay), _lines(case.test)))
    return b"".join(parts)


def _device_tree(case: Case, machine: Machine) -> bytes | None:
    """The user's, else the machine's own. Raises UserError."""
    if case.dtb is not None and not machine.arch.device_tree:
        raise UserError(f"--dtb: kernels of {machine.arch.name} are given no device tree")
    return device_tree(machine) if case.dtb is None else images.read_dtb(Path(case.dtb))


def _lines(text: str | None) -> list[str]:
    return [line for line in (text or "").split("\n") if line.strip()]


def _budget(case: Case, options: Options) -> Budget:
    budget = options.budget
    if case.test is not None:  # what comes after the proof is no longer only an end
        budget = replace(
            budget,
            proven_instructions=budget.quiet_instructions,
            proven_cpu_seconds=budget.quiet_cpu_seconds,
        )
    return replace(
        budget,
        instructions=case.budget or budget.instructions,
        cpu_seconds=case.budget_seconds or budget.cpu_seconds,
    )


def _expected(
    case: Case,
    kernel: KernelFile,
    machine: Machine,
    assembled: Assembled,
    nonce: str,
    cmdline: str,
) -> Expected:
    banks, acpi = assembled.image.ram, assembled.image.region("acpi")
    return Expected(
        arch=case.arch,
        nonce=nonce,
        cmdline=cmdline,
        cpus=machine.cpus,
        ram=machine.arch.system_ram(banks, acpi),
        banks=banks,
        code=expected_code(assembled.kernel, machine.arch, cmdline, banks),
        bootloader_type=PROTOCOLS[assembled.protocol].bootloader_type,
        releases=images.releases(kernel, case.format),
        request=case.id if machine.arch.device_tree else None,
        serial=machine.serial.name,
        mode=assembled.image.cpus[0].mode,
        mode_log=machine.arch.mode_log,
        virtual_start=assembled.kernel.virtual_start,
    )


def expected_code(
    kernel: KernelLoaderResult, arch: Arch, cmdline: str, ram: tuple[Range, ...]
) -> CodeAt | CodeAnywhere:
    """Where /proc/iomem must show the kernel's code, in guest-physical addresses.

    vmlinux: the start of its first segment. bzImage: where the decompressor puts it (boot.rst:
    pref_address, kernel_alignment), or with KASLR anywhere legal. Image: the load address.
    """
    header = kernel.setup_header
    if arch.code_starts:
        return CodeAt(tuple(kernel.kernel_load + start for start in arch.code_starts))
    if header is None:
        return CodeAt((kernel.footprint.start,))
    start = max(align_up(kernel.kernel_load, header.kernel_alignment), header.pref_address)
    if "nokaslr" in cmdline.split():
        return CodeAt((start,))
    window = Range.between(min(start, _KASLR_LOWEST), max(bank.end for bank in ram))
    return CodeAnywhere(header.kernel_alignment, window)


def _refused(case: Case, error: LoaderError, directory: Path, began: float) -> Proven:
    proven = Proven(
        *(case, Verdict.LOAD_REFUSED, str(error), error.code, None, None, directory),
        time.monotonic() - began,
    )
    write_result(directory, result_json(proven, None))
    return proven
