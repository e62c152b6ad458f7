//! Karpenter's controllers over the provisioning core.
