"""From pictures to a quantized graph. Runs on the workstation (needs the extra ``clipedge[export]``)."""
