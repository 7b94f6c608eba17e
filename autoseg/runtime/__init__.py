"""Everything around a run: where files lie, what they were made from, locks, serialization, hardware."""
