//! A small Kubernetes client: kubeconfig, requests, watches, tables.
