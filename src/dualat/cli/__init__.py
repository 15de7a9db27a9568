"""The command line: one thin file per command. Nothing here knows how a thing is done, only how it is asked for."""
