//! The agent: pods to processes, probes, logs.
