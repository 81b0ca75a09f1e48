"""Makes images: session, loop, worker and run folder."""
