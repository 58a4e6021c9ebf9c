"""Getting what bootproof needs: from the system's package manager, and into a virtual environment.

Runs before there is a virtual environment: the standard library only.
"""
