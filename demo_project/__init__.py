"""A site that shows the bridge at work: a mentor for school classes."""
