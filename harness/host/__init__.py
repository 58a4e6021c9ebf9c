"""QEMU and bootproof as processes of this machine: rights, signals, directories."""
