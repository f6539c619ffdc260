"""The Python side of vivarium: one job a process, events on a descriptor of their own."""
