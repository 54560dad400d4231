"""Arrays and layers that every part is made of: products, norms, positions, the byte array.

Imports nothing else of the project.
"""
