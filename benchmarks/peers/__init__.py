"""The stages in the shape that public code of the field gives them, written anew and as plainly as there."""
