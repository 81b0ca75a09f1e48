"""What a user writes: the YAML recipe, its schema, presets and overrides."""
