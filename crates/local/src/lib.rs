//! A whole cluster on one machine: hosts, links, switch, power.
