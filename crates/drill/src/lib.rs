//! Faults, probes, timeline, report: works against any Kubernetes.
