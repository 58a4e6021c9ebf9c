"""Starts a boot image, whoever wrote it, and judges it: `bootproof run`.

A stranger's image is only read: what it says is checked, and its RAM is copied for QEMU. When it
carries our init and a nonce, the guest proves its boot as always. Otherwise the guest cannot say
anything that only this boot could have produced, and what is proved is the hand-over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness import command_line, prove
from bootproof.harness.arch.arch import Arch
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.cases import qemus, schema
from bootproof.harness.command_line import NONCE, OTHERS_NONCE
from bootproof.harness.course import Outcome
from bootproof.harness.errors import UserError
from bootproof.harness.expected import CodeInside, Expected, ExpectedHandover, Judgement
from bootproof.harness.host import rundir
from bootproof.harness.inputs import claimed_kernel
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.record import interrupted
from bootproof.harness.report import boot_text, rules
from bootproof.harness.run import run_with
from bootproof.harness.start import AnyStart, Start
from bootproof.harness.terms import Budget, Placement
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.loader import bootimage, imageheader
from bootproof.loader.address import MIB, Range, align_up, counted, format_size, joined
from bootproof.loader.banner import banner_release
from bootproof.loader.boot_parameters import BootParameters, reader
from bootproof.loader.bootimage import BootImage
from bootproof.loader.errors import LoaderError
from bootproof.loader.memory import AddressSpace, GuestMemory
from bootproof.loader.protocols.table import boot_parameters
from bootproof.printable import one_line

_HEADER: Final = 64  # bytes: that of an Image
_MUCH: Final = 128 * MIB  # of data; a kernel and its initrd have less


@dataclass(frozen=True, slots=True)
class Request:
    """A boot image to start, and on what. The other fields are as in a `Case`."""

    directory: Path
    # The run directory.
    out: Path
    # Text that the console must show.
    until: bytes | None = None
    # Whether to stop at the first instruction.
    only_handover: bool = False
    # What the image's kernel is said to be, by any name of a kernel.
    kernel: str | None = None
    board: str | None = None
    cpu: str | None = None
    memory: int | None = None
    smp: int | None = None
    budget: int | None = None
    budget_seconds: float | None = None
    fail_on_complaints: bool = False
    qemu: str | None = None
    qemu_path: str | None = None


def request_of(words: Mapping[str, Any], **others: Any) -> Request:
    """What is asked by `words`, by the names of the options of `run`. Raises UserError."""
    known = schema.options("run")
    schema.check_keys((entry.name for entry in known), words, (), "option")
    asked, paths = qemus.of_words(words)
    values = schema.read_table(known, asked, ())
    return Request(**values, qemu_path=next(iter(paths.values()), None), **others)


def boot_image(request: Request) -> Outcome:
    """Starts, judges, and tells about both on standard output.

    Raises UserError and LoaderError for an image that cannot be run as asked.
    """
    began = time.monotonic()
    image = _normalised(bootimage.open_boot_image(request.directory))
    try:
        with bootimage.open_ram(image, request.directory) as memory:
            told = boot_parameters(image.protocol, image.cpus[0], memory)
            machine = _machine(image, memory, request, told)
            show = boot_text.Console()
            start = _start(image, machine, request, show, told)
            start = replace(start, placement=_placement(image, memory, machine))
            if request.kernel is not None:
                found = claimed_kernel.findings(image, reader(memory), request.kernel)
                start = replace(start, findings=found)
            out = _run_directory(request)
            _print_request(request, image, machine, start)
            _keep(image, memory, request.directory, out)
            about = {"image": str(request.directory.absolute())}
            with interrupted.noted(out, about):
                outcome = run_with(start, memory, out)
    except LoaderError as error:
        error.file = error.file or str(request.directory / bootimage.DESCRIPTION)
        raise
    show.finish()
    rundir.write_result(out, _result(request, image, machine, outcome, time.monotonic() - began))
    _print_outcome(outcome, start)
    return outcome


def problem(request: Request, judgement: Judgement) -> str | None:
    """What is not as it was asked for, in one sentence; None when all is."""
    if not judgement.verdict.passed:
        return f"{judgement.verdict.value}: {judgement.reason}"
    if judgement.complaints and request.fail_on_complaints:
        return f"the kernel complained: {judgement.complaints[0]}"
    return None


def _keep(image: BootImage, memory: GuestMemory, directory: Path, out: Path) -> None:
    """The boot image, in the run directory: its RAM by a link where that is in one file."""
    if image.backing:
        memory.save(out / bootimage.RAM)
    else:
        (out / bootimage.RAM).symlink_to((directory / bootimage.RAM).absolute())
    bootimage.save(replace(image, backing=()), out)


# --- the machine -------------------------------------------------------------------------------


def _machine(
    image: BootImage, memory: GuestMemory, request: Request, told: BootParameters
) -> Machine:
    """The machine for an image's banks. Raises UserError when no such machine has them."""
    file = request.directory / bootimage.DESCRIPTION
    if request.memory is not None and request.memory != image.memory_size:
        raise UserError(
            f"{file}: $.banks: {format_size(image.memory_size)} of RAM, but"
            f" {format_size(request.memory)} was asked for (--memory)"
        )
    handed_over = len(image.cpus)
    if handed_over > 1 and request.smp not in (None, handed_over):
        raise UserError(
            f"{file}: $.cpus: registers for {handed_over} CPUs, but {request.smp} of them asked for"
            " (--smp)"
        )
    board, size = _room_for(file, image, request.board)
    machine = Machine.with_defaults(
        image.arch,
        memory=size,
        board=board,
        cpu=request.cpu or ARCHES[image.arch].cpu_for(image.cpus[0]),
        cpus=handed_over if handed_over > 1 else request.smp or len(told.cpus) or 1,
        binary=request.qemu_path,
        page_size=_page_size(image, memory),
    )
    if not request.only_handover:
        _check_numbers(file, told.cpus, machine)
    return machine.for_kernel(lambda: _release(image, memory))


def _check_numbers(file: Path, told: Sequence[int], machine: Machine) -> None:
    """Raises UserError for tables that are right on a machine whose CPUs have other numbers."""
    others = [number for number in told if number >= machine.cpus]
    if others and len(told) == machine.cpus > 1:
        raise UserError(
            f"{file}: the guest is told of CPU {', '.join(map(hex, others))} by its tables, but"
            f" QEMU's {machine.cpus} CPUs are 0 to {machine.cpus - 1}, and no other can be started:"
            " number them like that, or take --only-handover"
        )


def _room_for(file: Path, image: BootImage, board: str | None) -> tuple[str, int]:
    """A board that starts CPUs in the image's mode, and how much memory it needs to have RAM
    wherever the image has some.

    Raises UserError when `board`, or without one every board, has RAM elsewhere, and when the mode
    is another one.
    """
    arch = ARCHES[image.arch]
    Machine.check_board(arch, board)
    wanted, mode = joined(image.ram), image.cpus[0].mode
    alike = [name for name in arch.boards if _starts_in(arch, name, mode)]
    fits = {name: size for name in alike if (size := _memory_for(arch, name, wanted))}
    if board is not None and board not in alike:
        hint = f"; --machine {next(iter(fits))} does" if fits else ""
        raise UserError(f"{file}: $.cpus[0]: the CPU is in {mode}, and {board} starts none{hint}")
    if board is None:
        best = sorted(fits, key=lambda name: (fits[name], name != arch.board))
        if best:
            return best[0], fits[best[0]]
    elif board in fits:
        return board, fits[board]
    name = board or arch.board
    most = arch.most_memory(name)
    has = _listed(_ranges(arch.boards[name].banks(most)))
    hint = f"; --machine {next(iter(fits))} has RAM there" if fits else ""
    raise UserError(
        f"{file}: $.banks: RAM at {_listed(wanted)}, but {name} with the most it can have,"
        f" {format_size(most)}, has it at {has}{hint}"
    )


def _starts_in(arch: Arch, board: str, mode: str) -> bool:
    """Whether a board's CPUs can be brought to a mode; there is no way up, nor down from EL2."""
    return arch.boards[board].hypervisor == (mode == arch.hypervisor_mode)


def _memory_for(arch: Arch, board: str, wanted: Sequence[Range]) -> int | None:
    """The least memory with which a board has RAM at all of `wanted`, which are in order."""
    banks, end, most = arch.boards[board].banks, wanted[-1].end, arch.most_memory(board)
    before, sizes = 0, []
    for base, size in banks(most):
        sizes += [end - base, before + end - base]  # with one bank, and with as many as it has
        before += size
    for size in sorted(align_up(size, MIB) for size in sizes):
        if MIB <= size <= most:
            ram = joined(_ranges(banks(size)))
            if all(any(bank.contains(part) for bank in ram) for part in wanted):
                return size
    return None


def _release(image: BootImage, memory: GuestMemory) -> str | None:
    """What an uncompressed kernel's banner says in RAM."""
    region = image.region("kernel")
    return banner_release(_read(memory, region)) if region else None


def _page_size(image: BootImage, memory: GuestMemory) -> str | None:
    """What the header of a kernel that lies in RAM says of its pages."""
    region = image.region("kernel")
    if region is None:
        return None
    return imageheader.page_size(_read(memory, Range(region.start, min(region.size, _HEADER))))


def _read(memory: GuestMemory, part: Range) -> memoryview:
    """A part of guest RAM; nothing where there is none."""
    if not memory.contains(part.start, part.size):
        return memoryview(b"")
    return memoryview(memory.read(part.start, part.size))


def _ranges(banks: Sequence[tuple[int, int]]) -> tuple[Range, ...]:
    return tuple(Range(base, size) for base, size in banks)


def _listed(ranges: Sequence[Range]) -> str:
    return ", ".join(map(str, ranges))


def _normalised(image: BootImage) -> BootImage:
    """The image with its banks in address order, as machines have them, and regions inside RAM.

    That of the kernel stays: it is no name, but what the kernel needs.
    """
    ram = joined(image.ram)
    return replace(
        image,
        banks=tuple(sorted(image.banks, key=lambda bank: bank.base)),
        regions=tuple(
            region
            for region in image.regions
            if region.name == "kernel" or any(area.contains(region.range) for area in ram)
        ),
    )


# --- what can be proved ------------------------------------------------------------------------


def _start(
    image: BootImage,
    machine: Machine,
    request: Request,
    show: boot_text.Console,
    told: BootParameters,
) -> AnyStart:
    expected = _expected(image, machine, told)
    if request.only_handover or isinstance(expected, ExpectedHandover):
        expected = ExpectedHandover(image.entry, request.until, machine.serial.name)
    elif request.until is not None:
        raise UserError("--until: this boot image proves its boot; nothing else is waited for")
    if request.only_handover and request.fail_on_complaints:
        raise UserError("--fail-on-complaints: with --only-handover the kernel says nothing")
    _check_until(request.until, told)
    return Start(
        image=image,
        machine=machine,
        expected=expected,
        budget=Budget().with_limits(request.budget, request.budget_seconds),
        on_console=show,
        check_text=not told.unpacks,
        marker=request.until,
        stop_at_entry=request.only_handover,
    )


def _check_until(until: bytes | None, told: BootParameters) -> None:
    """Raises UserError for text that a kernel says that does nothing but read its command line."""
    if until is not None and until in (told.cmdline or "").encode():
        raise UserError(
            f"--until: {printable(until)!r} stands in the guest's own command line, which"
            " kernels say again: it proves nothing; wait for what only a program there prints"
        )


def _placement(image: BootImage, memory: GuestMemory, machine: Machine) -> Placement:
    """The guest starts the same either way. What devices put in place QEMU first reads elsewhere:
    much of it is mapped, where ram.img has the banks as this machine does.
    """
    much = sum(extent.size for extent in memory.data_extents()) > _MUCH
    alike = AddressSpace(machine.banks).banks == image.banks
    return Placement.MAPPED if much and alike else Placement.DEVICES


def _expected(
    image: BootImage, machine: Machine, told: BootParameters
) -> Expected | ExpectedHandover:
    """What the guest has to prove, when its command line says that it is going to."""
    # The guest's shell does not see blanks at the ends, and parts the rest.
    cmdline = (told.cmdline or "").strip(" \t")
    words = cmdline.split()
    if not command_line.names_our_init(cmdline):
        return _expected_of_other(image, machine, told, cmdline)
    nonce = _last(words, NONCE)
    if nonce is None:
        return ExpectedHandover(image.entry)
    ram = told.system_ram
    if ram is None:
        ram = machine.arch.system_ram(image.ram, None)
    return Expected(
        arch=image.arch,
        nonce=nonce,
        cmdline=cmdline,
        cpus=machine.cpus,
        ram=ram,
        unplaced=told.unplaced,
        banks=image.ram,
        code=_code(image, told, words),
        bootloader_type=told.bootloader_type,
        request=told.label,
        serial=machine.serial.name,
    )


def _expected_of_other(
    image: BootImage, machine: Machine, told: BootParameters, cmdline: str
) -> Expected | ExpectedHandover:
    """What a guest that is no Linux has to prove (docs/other-guests.md), if it is going to."""
    nonce = _last(cmdline.split(), OTHERS_NONCE)
    if nonce is None:
        return ExpectedHandover(image.entry)
    return Expected(
        arch=image.arch,
        nonce=nonce,
        cmdline=cmdline,
        cpus=machine.cpus,
        ram=image.ram if told.ram is None else told.ram,
        banks=image.ram,
        code=None,
        serial=machine.serial.name,
        other=True,
    )


def _last(words: Sequence[str], name: str) -> str | None:
    """The value of the last word of that name, if it has one."""
    values = [word.removeprefix(name) for word in words if word.startswith(name)]
    return (values[-1] or None) if values else None


def _code(image: BootImage, told: BootParameters, words: Sequence[str]) -> CodeInside | None:
    """Where the kernel must be found: in its region, unless it may choose another place (KASLR)."""
    region = image.region("kernel")
    if region is None or (told.unpacks and "nokaslr" not in words):
        return None
    return CodeInside(region)


# --- what the user sees ------------------------------------------------------------------------


def _run_directory(request: Request) -> Path:
    """A fresh run directory, never the image's own. Raises UserError."""
    out = request.out.absolute()
    source = request.directory / bootimage.DESCRIPTION
    rundir.refuse_input(out, source, "the boot image itself")
    rundir.make_fresh(out)
    return out


def _print_request(request: Request, image: BootImage, machine: Machine, start: AnyStart) -> None:
    unruled = "" if image.protocol != bootimage.NO_PROTOCOL else " (no rules to check)"
    print(f"image     {one_line(str(request.directory))}")
    print(f"protocol  {image.protocol}{unruled}, entered at {image.entry:#x}")
    print(
        f"machine   {machine.qemu}, {machine.board}, {machine.cpu},"
        f" {format_size(machine.memory)}, {counted(machine.cpus, 'CPU')}, {machine.mode}"
    )
    for region in image.regions:
        print(f"memory    {region.range!s:<24} {region.name}")
    rules.print_marks(image)
    expected = start.expected
    if isinstance(expected, Expected):
        print(f"cmdline   {printable(expected.cmdline.encode())}")
        how = "by a guest that is no Linux" if expected.other else "by the guest itself"
        means = "a nonce" if expected.other else "a nonce and our init"
        print(f"proof     {how}: it carries {means}", flush=True)
    else:
        why = "as asked" if request.only_handover else "the guest carries no nonce of ours"
        print(f"proof     of the hand-over only: {why}", flush=True)


def _print_outcome(outcome: Outcome, start: AnyStart) -> None:
    judgement = outcome.judgement
    print(f"verdict   {judgement.verdict.value}: {judgement.reason}")
    boot_text.print_complaints(outcome)
    boot_text.print_tests(outcome)
    boot_text.print_probe(outcome.observation.probe)
    boot_text.print_cost(outcome)
    boot_text.print_record(outcome)
    boot_text.print_stages(outcome.stages)
    expected = start.expected
    if (
        isinstance(expected, ExpectedHandover)
        and judgement.verdict is Verdict.HANDED_OVER
        and expected.until is None
    ):
        print("hint      nothing was asked of what follows the hand-over (see --until)")
    print(f"run       {one_line(str(outcome.directory))}")


def _result(
    request: Request, image: BootImage, machine: Machine, outcome: Outcome, seconds: float
) -> dict[str, Any]:
    return {
        "image": str(request.directory.absolute()),
        "verdict": outcome.judgement.verdict.value,
        "reason": outcome.judgement.reason,
        "problem": problem(request, outcome.judgement),
        "host_seconds": round(seconds, 3),
        "protocol": image.protocol,
        "entry": hex(image.entry),
        "unseen": [{"field": u.field, "how": str(u)} for u in image.unseen],
        "machine": prove.machine_json(machine),
        **prove.outcome_json(outcome),
    }
