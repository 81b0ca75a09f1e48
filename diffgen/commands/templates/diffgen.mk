# Include this in your Makefile. The target is phony on purpose: a finished run has nothing to do.
.PHONY: diffgen
diffgen:
	diffgen run {name} --quiet
