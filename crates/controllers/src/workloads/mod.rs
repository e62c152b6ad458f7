//! kube-controller-manager's part: Deployment, ReplicaSet, garbage collection, namespaces, node lifecycle.
