"""Where a run takes place: a lab, a cluster, this node, this pod."""
