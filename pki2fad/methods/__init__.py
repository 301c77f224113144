"""Does what each method of the protocol says."""
