"""Wire protocols: bytes of a request into arrays, arrays into bytes of an answer. No I/O, no HTTP."""
