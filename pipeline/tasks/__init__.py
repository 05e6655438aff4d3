"""The seam between the chain and what is predicted: a task owns its targets, scores, gates, signature and networks."""
