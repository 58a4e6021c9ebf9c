"""One QEMU: what it is given, how it is started, asked, watched and ended."""
