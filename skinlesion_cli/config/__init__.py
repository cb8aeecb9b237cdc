"""Settings: frozen models that refuse unknown keys, and where they come from (YAML, environment, options)."""
