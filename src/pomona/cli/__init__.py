"""The command line: parse, call, exit code. One verb a file."""
