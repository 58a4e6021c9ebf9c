"""The profiles: our own kernel command lines, by what a guest is to leave out."""

from __future__ import annotations

from typing import Final

DEFAULT_PROFILE, FAST_PROFILE = "default", "fast"
PROFILES: Final = (DEFAULT_PROFILE, FAST_PROFILE)
# Steps of a boot that say nothing about how a kernel was loaded, by what is lost without them. A
# kernel that lacks one is not disturbed by its name. bench/fast_profile.py prints what each saves.
_SKIPPED_INITCALLS: Final = (
    # Self-tests of the random number generator's hash, and of jitterentropy.
    *("blake2s_mod_init", "jent_mod_init"),
    # Tracing: a search for weak functions, printing enums by name, the files in tracefs.
    *("ftrace_check_for_weak_functions", "trace_eval_init", "tracer_init_tracefs"),
    # The certificates that modules would be checked against.
    "load_system_certificate_list",
    # Slab caches and the parameters of built-in modules, as files in sysfs.
    *("slab_sysfs_init", "slab_late_init", "param_sysfs_builtin_init"),
    # All that makes Linux 6.1 parse its BTF; CUBIC goes with it, and TCP takes Reno.
    *("bpf_rstat_kfunc_init", "bpf_key_sig_kfuncs_init", "kfunc_init", "bpf_prog_test_run_init"),
    *("bpf_tcp_ca_kfunc_init", "cubictcp_register"),
    # What only the kernel's own tests of BPF use.
    "bpf_dummy_struct_ops_init",
    # The integrity measurement of files, and a thread that samples which memory is in use.
    *("init_ima", "damon_stat_init"),
)
# Self-tests, security modules, pages that are zeroed once more than needed, write protection of the
# kernel itself with its check; the audit log, and the accounting of stalls (PSI). Not among them:
# mitigations=off (patching code costs more than it saves), ftrace=off, apparmor=0, nowatchdog (save
# nothing), quiet (the log is what tells of a boot that fails), pci=off (x86 then leaves reserved
# ranges of the memory map out of its resources), ipv6.disable=1 (saves 1 to 1.5 % of the blocks,
# but with it kernels crash whose guest test uses a bridge or a tunnel: CVE-2026-23381, -23293).
_FAST: Final = "cryptomgr.notests lsm=none init_on_alloc=0 rodata=off audit=0 psi=0"


def fast(words: str, *initcalls: str) -> str:
    """The words of the fast profile, with an architecture's own and the initcalls that it skips."""
    return f"{_FAST} {words} initcall_blacklist={','.join((*_SKIPPED_INITCALLS, *initcalls))}"
