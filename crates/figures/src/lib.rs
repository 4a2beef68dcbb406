//! Figures as Prometheus reads them: its text format, version 0.0.4.
//!
//! ```
//! use std::time::Duration;
//!
//! let took = figures::Histogram::doubling(0.001, 3);
//! took.observe(Duration::from_millis(2));
//! let mut out = String::new();
//! figures::family(&mut out, "sync_seconds", "histogram", "How long syncs took");
//! took.write(&mut out, "sync_seconds", r#"disk="a""#);
//! assert!(out.contains("sync_seconds_bucket{disk=\"a\",le=\"0.002\"} 1\n"));
//! ```

mod histogram;

use std::fmt::{Display, Write};

pub use histogram::Histogram;

/// Begins a family of figures: its name, its kind (`counter`, `gauge`, `histogram`, `summary`), and what it is about.
pub fn family(out: &mut String, name: &str, kind: &str, about: &str) {
    // A string takes everything, here and below.
    let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} {kind}");
}

/// One figure. The labels are like `a="b",c="d"`; none where they are empty.
pub fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A family of one figure.
pub fn single(out: &mut String, name: &str, kind: &str, about: &str, value: impl Display) {
    family(out, name, kind, about);
    sample(out, name, "", value);
}
