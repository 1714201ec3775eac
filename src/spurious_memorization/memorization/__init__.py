"""Memorization scores: which training samples does a network get right only because it was trained on them?"""
