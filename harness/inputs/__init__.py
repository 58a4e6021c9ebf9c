"""Kernel files as a case asks for them: unpacked, changed, spoilt on purpose."""
