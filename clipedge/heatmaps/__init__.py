"""Where in the picture a label is: maps of the dense output, boxes of them, both drawn over the picture."""
