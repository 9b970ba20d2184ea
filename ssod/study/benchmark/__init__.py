"""What a step costs: seconds, phases, operators, waits and memory, ours and mmdet's in one process."""
