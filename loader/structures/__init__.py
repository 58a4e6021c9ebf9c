"""What boot protocols hand over in memory, as binary layouts: each structure is declared here once.

Who fills a structure, who checks it and who reads it back share these declarations, and nothing
else. Knows no meaning of a field.
"""
