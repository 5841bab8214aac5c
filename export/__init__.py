"""From a checkpoint to a proven bundle. Runs on the workstation (needs the extra ``clipedge[export]``)."""
