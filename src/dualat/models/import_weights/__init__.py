"""Published weights of other systems, read without running anything that they hold (system/pickles/).

files.py     the containers: torch's zip and older files, plain pickles, safetensors
states.py    the weights among all that a file holds, without wrappers' prefixes; normalisation beside them
names.py     other systems' names of layers as ours
guess.py     which network has weights of these names and shapes
skeleton.py  a network's names and shapes, at no cost
convert.py   from a file to a network
"""
