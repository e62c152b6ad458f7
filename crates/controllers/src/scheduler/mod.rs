//! kube-scheduler's loop over the scheduler core.
