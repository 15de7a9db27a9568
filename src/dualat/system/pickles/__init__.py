"""Somebody else's pickles, read without running anything that they hold.

values.py    what comes out of a pickle: plain values, tensors that are still in the file, and inert leftovers
rebuild.py   the few functions that a pickle may ask for, written anew; everything else becomes an inert leftover
reader.py    a pickle's opcodes, interpreted as data
"""
