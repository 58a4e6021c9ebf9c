"""bootproof: proves that a kernel image boots. An image goes in, a proof comes out.

In a clone the packages in here are links to the folders at its top, in a wheel they are the folders
themselves: a module has one name everywhere.
"""
