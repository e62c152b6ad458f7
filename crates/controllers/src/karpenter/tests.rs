//! Karpenter end to end.
