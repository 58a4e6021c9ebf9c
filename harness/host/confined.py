"""Becomes the program it is told to, with limits that hold before that program's first instruction.

    confined.main([PARENT, CHANNEL])

Run in a process of its own, by bootproof.harness.host.process only. The process dies with the
thread that started it (PARENT is the process it belongs to). On the socket CHANNEL it is told the
rest, maybe later: a directory, a limit in bytes, another user, a program with its arguments, and
what its descriptors are. It writes no longer file and leaves no core dump. Where the kernel has
Landlock, it reads nothing but what programs need to run, writes nothing outside the directory,
opens no TCP connection and reaches no other process. Knows nothing of QEMU; imports nothing of
ours, nor what takes as long as Python itself, so that it starts quickly.

Sources: prctl(2), setrlimit(2), capabilities(7), landlock(7), unix(7) (SCM_RIGHTS).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in C, and in no stub; signal itself is slow
import _socket  # as above
import ctypes
import marshal
import os
import resource
import stat
import struct
import sys

NAME = "confined"
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 (capget(2))
_CAP_DAC_OVERRIDE = 1
_CHUNK = 64 << 10
_MOST_FILES = 253  # SCM_MAX_FD (include/net/scm.h)

# landlock(7): the numbers of its system calls are the same everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG = 1, 2, 4, 8, 1 << 5, 1 << 8
_TRUNCATE = 1 << 14  # since ABI 3
# All rights to files that an ABI knows of: what is not granted below is denied.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FILE_RIGHTS_SINCE_5 = (1 << 16) - 1
_TCP = 3  # bind and connect, since ABI 4
_SCOPES = 3  # abstract UNIX sockets and signals, since ABI 6

PROGRAMS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store")
_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives"),
    *("/etc/ssl", "/etc/gnutls", "/etc/crypto-policies", "/etc/qemu"),
    *("/proc", "/sys/devices/system", "/sys/kernel/mm", "/dev/urandom", "/dev/random"),
)
_DEVICES = ("/dev/null", "/dev/zero")


def main(arguments: list[str]) -> None:
    parent, channel = map(int, arguments)
    die_with(parent)
    directory, most_bytes, user, command = told(channel)
    try:
        os.chdir(directory)
    except OSError as error:
        sys.exit(f"{NAME}: {directory}: {error.strerror}")
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    confine([*PROGRAMS, home(command[0])], [*_SETTINGS], [directory], [*_DEVICES])
    limit(resource.RLIMIT_FSIZE, most_bytes)
    limit(resource.RLIMIT_CORE, 0)
    if user is not None:
        become(user)
        die_with(parent)  # who gives up rights has to ask again (prctl(2)), and look again
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and exec keeps that
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{NAME}: {command[0]}: {error.strerror}")


def told(channel: int) -> tuple[str, int, int | None, list[str]]:
    """What comes on the channel: directory, limit, user and command; descriptors are in place then.

    The process ends when the other side does before all was said.
    """
    sock = _socket.socket(fileno=channel)
    space = _socket.CMSG_SPACE(_MOST_FILES * struct.calcsize("i"))
    said, rights, _, _ = sock.recvmsg(_CHUNK, space, _socket.MSG_CMSG_CLOEXEC)
    while more := sock.recv(_CHUNK):
        said += more
    sock.close()
    try:
        numbers, *rest = marshal.loads(said)
    except EOFError:
        sys.exit()
    put(struct.unpack(f"{len(numbers)}i", b"".join(data for _, _, data in rights)), numbers)
    directory, most_bytes, user, command = rest
    return directory, most_bytes, user, command


def put(files: tuple[int, ...], numbers: list[int]) -> None:
    """Gives each descriptor its number; what had it before is closed."""
    for fd, number in zip([apart(fd, numbers) for fd in files], numbers, strict=True):
        os.dup2(fd, number)


def apart(fd: int, numbers: list[int]) -> int:
    """A descriptor, or another of the same file, that has none of these numbers."""
    return apart(os.dup(fd), numbers) if fd in numbers else fd


def become(user: int) -> None:
    """Gives up root for another user, the group of that number, and no other group.

    Of root's rights that to any file stays here, as the program may be where only root can go: it
    is not inherited, so that exec takes it away (capabilities(7)).
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header, kept = struct.pack("=Ii", _CAPABILITY_VERSION, 0), 1 << _CAP_DAC_OVERRIDE
    if library.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) != 0:
        sys.exit(f"{NAME}: capset: {os.strerror(ctypes.get_errno())}")


def home(program: str) -> str:
    """The directory a program was installed into, with its libraries and firmware."""
    folder, _ = os.path.split(os.path.realpath(program))
    above, name = os.path.split(folder)
    return above if name in ("bin", "build") and above != "/" else folder


def landlock_abi() -> int:
    """The version of Landlock this kernel has; 0 for none."""
    return max(0, _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION))


def confine(programs: list[str], settings: list[str], work: list[str], devices: list[str]) -> None:
    """Gives up all rights to files and more but these, where the kernel can do that."""
    abi = landlock_abi()
    if abi == 0:
        return
    rights = _FILE_RIGHTS.get(abi, _FILE_RIGHTS_SINCE_5)
    network, scopes = _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0
    attributes = struct.pack("=QQQ", rights, network, scopes)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    written = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
    for paths, granted in (
        (programs, _EXECUTE | _READ_FILE | _READ_DIR),
        (settings, _READ_FILE | _READ_DIR),
        (work, written & rights),
        (devices, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights),
    ):
        for path in paths:
            allow(ruleset, path, granted)
    if _syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        sys.exit(f"{NAME}: landlock: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def allow(ruleset: int, path: str, granted: int) -> None:
    """Adds a file, or a directory with all below it; what is not there needs no rule."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        granted &= ~(_READ_DIR | _REMOVE_FILE | _MAKE_REG)
    _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", granted, fd), 0)
    os.close(fd)


def _syscall(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    return int(library.syscall(ctypes.c_long(number), *arguments))


def limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def die_with(parent: int) -> None:
    """Has this process killed when the thread that started it ends; at once when it has already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), _signal.SIGKILL)
