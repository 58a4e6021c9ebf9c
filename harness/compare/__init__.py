"""Our boot beside QEMU's own -kernel: what differs, and why."""
