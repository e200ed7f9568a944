"""Chapters and the site."""
