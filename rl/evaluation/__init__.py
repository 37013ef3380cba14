"""Policies at play: evaluated, matched, recorded, filmed, replayed; or judged by episodes of others."""
