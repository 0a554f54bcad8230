"""`make demo`: the main job on a real cluster, step by step, with its times."""
