"""`diffgen stress`: where does a detector fail?"""
