"""PURE: sightings -> hops; hops against the prediction -> outcome and findings."""
