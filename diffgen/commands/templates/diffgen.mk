# Include this in your Makefile. A finished run called again does nothing, so the target is phony on purpose.
.PHONY: diffgen
diffgen:
	diffgen run {name} --quiet
