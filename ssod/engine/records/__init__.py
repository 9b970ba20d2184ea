"""What a run leaves and shows: result.json, metrics, curves, pictures, the console."""
