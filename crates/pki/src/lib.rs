//! Authorities and certificates.
