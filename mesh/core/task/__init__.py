"""One task at a worker: the agent's function, its result, offsets, poison detection, injected faults."""
