"""The command line: each command parses, calls one library function and prints rows. No logic of its own."""
