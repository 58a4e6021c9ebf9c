"""The matrix: claims about kernels, and the pytest files that prove them one by one."""
