"""`diffgen eval`: does a run's dataset help a detector? `diffgen stress`: where does a detector fail?"""
