"""ClipEdge in ROS 2. ``messages.py`` knows the messages and needs no ROS; ``node.py`` is the node."""
