"""Reports: gathered once into a versioned `report.json`, rendered last."""
