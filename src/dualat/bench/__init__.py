"""Speed against a textbook loop and other libraries, in one process, interleaved: `dualat bench`."""
