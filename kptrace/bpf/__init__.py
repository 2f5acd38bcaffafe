"""Programs for the kernel: the capture filter, the drop program, BTF. Pure."""
