"""The command line: arguments in, one call of the driver out."""
