"""Parts of the coverage benchmark: which models, how one is measured, how results are kept and shown."""
