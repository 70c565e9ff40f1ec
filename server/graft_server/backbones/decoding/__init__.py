"""Files to pixels and samples, within bounds: one module each, which bundles carry as they are."""
